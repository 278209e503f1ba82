"""Builds that must fail, each with its own reason, and what they leave behind: nothing."""

import io
import struct
import zipfile

import pytest

import private
from support import Hearth


def forged(declared):
    """A zip of a few bytes whose directory declares `declared` bytes for each of three files."""
    body = bytearray(Hearth.archive(Dockerfile="FROM debian:13\n", a="x", b="y", c="z"))
    for name in (b"a", b"b", b"c"):
        for signature, size_at, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
            start = body.index(signature)
            while body[start + name_at : start + name_at + 1] != name:
                start = body.index(signature, start + 4)
            body[start + size_at : start + size_at + 4] = struct.pack("<I", declared)
    return bytes(body)


def escaping():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("Dockerfile", "FROM debian:13\n")
        packed.writestr("../../etc/cron.d/evil", "* * * * * root true\n")
    return buffer.getvalue()


def test_a_build_that_does_not_end_is_ended(hearth):
    dockerfile = "FROM debian:13\nRUN echo so far so good && sleep 3600\nCMD [\"true\"]\n"
    uri = hearth.upload("endless.zip", hearth.archive(Dockerfile=dockerfile))
    with private.settings(hearth, "", first="build_timeout_seconds = 20"):
        build = failing(hearth, "endless", uri)
    assert build["stateReason"].endswith(
        "CONTAINER_BUILD_FAILED: the build took longer than 20 s (build_timeout_seconds in hearthd.toml)"
    )


def failing(hearth, name, uri, **more):
    """Creates an image that must fail; its build."""
    hearth.create_image(name, uri, **more)
    image = hearth.await_image(name)
    assert image["state"] == "CREATE_FAILED"
    assert image["latestFailedImageVersion"] == "1.0"
    build = hearth.build_of(name)
    assert build["buildState"] == "FAILED"
    hearth.delete_image(name)
    return build


@pytest.mark.parametrize(
    "name, body, reason",
    [
        ("no-zip", b"this is no zip", "ARCHIVE_INVALID"),
        ("path-escape", escaping(), "ARCHIVE_INVALID"),
        ("zip-bomb", forged(0xFFFFFF00), "DISK_STORAGE_FULL"),
        ("no-dockerfile", Hearth.archive(readme="hello"), "ARCHIVE_DOCKERFILE_NOT_FOUND"),
        ("failing-run", Hearth.archive(Dockerfile="FROM debian:13\nRUN exit 7\nCMD [\"true\"]\n"), "CONTAINER_BUILD_FAILED"),
        ("no-such-base", Hearth.archive(Dockerfile="FROM no-such-base:1\nCMD [\"true\"]\n"), "CONTAINER_BUILD_FAILED"),
        ("exits", Hearth.archive(Dockerfile="FROM debian:13\nCMD [\"sh\", \"-c\", \"exit 3\"]\n"), "Container Stopped with Exit Code: 3"),
    ],
)
def test_a_bad_artifact_fails_with_its_reason(hearth, name, body, reason):
    build = failing(hearth, name, hearth.upload(f"{name}.zip", body))
    assert reason in build["stateReason"], build


@pytest.mark.parametrize("uri, reason", [("s3://test-artifacts/none.zip", "S3_NO_SUCH_KEY"), ("s3://no-such-bucket/x.zip", "S3_NO_SUCH_BUCKET")])
def test_a_missing_artifact_fails_with_its_reason(hearth, uri, reason):
    hearth.upload("something", b"x")
    assert reason in failing(hearth, reason.lower().replace("_", "-"), uri)["stateReason"]


def test_a_guest_that_ends_before_its_snapshot_fails_its_build(hearth):
    # With every capability, in a proc of its own, an application can reset its machine.
    reset = "mount -t proc proc /mnt && sleep 2 && echo b >/mnt/sysrq-trigger; sleep 60"
    uri = hearth.upload("resets.zip", Hearth.archive(Dockerfile=f'FROM debian:13\nCMD ["sh", "-c", "{reset}"]\n'))
    build = failing(hearth, "resets", uri, additionalOsCapabilities=["ALL"])
    assert "MicroVM terminated before its snapshot was taken" in build["stateReason"], build


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(int(os.environ.get(self.path.rsplit("/", 1)[-1].upper(), "200")))
        self.end_headers()
http.server.HTTPServer(("", 9000), Handler).serve_forever()
"""


def test_a_validate_hook_that_refuses_fails_its_build_and_leaves_nothing(hearth):
    name = "refusing-hooks"
    before = set((hearth.data / "images").glob("*/*"))
    files = {"Dockerfile": 'FROM python:3.13\nCOPY server.py /\nCMD ["python3", "/server.py"]\n', "server.py": SERVER}
    uri = hearth.upload(f"{name}.zip", Hearth.archive(**files))
    hooks = dict(port=9000, microvmImageHooks=dict(
        ready="ENABLED", readyTimeoutInSeconds=60, validate="ENABLED", validateTimeoutInSeconds=60))
    hearth.create_image(name, uri, hooks=hooks, environmentVariables={"VALIDATE": "404"})
    assert hearth.await_image(name)["state"] == "CREATE_FAILED"
    assert "Validate hook check failed" in hearth.build_of(name)["stateReason"]
    assert set((hearth.data / "images").glob("*/*")) == before
    hearth.delete_image(name)
