"""Builds that must fail, each with its own reason, and what they leave behind: nothing."""

import io
import zipfile

import pytest


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in files.items():
            packed.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


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
        ("no-dockerfile", archive(readme="hello"), "ARCHIVE_DOCKERFILE_NOT_FOUND"),
        ("failing-run", archive(Dockerfile="FROM debian:13\nRUN exit 7\nCMD [\"true\"]\n"), "CONTAINER_BUILD_FAILED"),
        ("no-such-base", archive(Dockerfile="FROM no-such-base:1\nCMD [\"true\"]\n"), "CONTAINER_BUILD_FAILED"),
        ("exits", archive(Dockerfile="FROM debian:13\nCMD [\"sh\", \"-c\", \"exit 3\"]\n"), "Container Stopped with Exit Code: 3"),
    ],
)
def test_a_bad_artifact_fails_with_its_reason(hearth, name, body, reason):
    build = failing(hearth, name, hearth.upload(f"{name}.zip", body))
    assert reason in build["stateReason"], build


@pytest.mark.parametrize("uri, reason", [("s3://test-artifacts/none.zip", "S3_NO_SUCH_KEY"), ("s3://no-such-bucket/x.zip", "S3_NO_SUCH_BUCKET")])
def test_a_missing_artifact_fails_with_its_reason(hearth, uri, reason):
    hearth.upload("something", b"x")
    assert reason in failing(hearth, reason.lower().replace("_", "-"), uri)["stateReason"]
