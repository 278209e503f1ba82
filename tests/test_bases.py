"""Container bases that an operator imports: `hearth base import ARCHIVE --as NAME`."""

import hashlib
import io
import json
import os
import tarfile

from raw import Raw
from support import Hearth, wait_for


def archive(path):
    """What `docker save` writes of an image that holds busybox and nothing else."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tree:
        tree.add("/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tree.addfile(link)
    diff = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin", "FROM_BASE=yes"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{name}.json", "RepoTags": ["tiny:latest"], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as saved:
        for member, content in ((f"{name}.json", config), ("layer.tar", layer.getvalue()), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            saved.addfile(info, io.BytesIO(content))
    return path


def test_an_imported_archive_is_a_base_that_dockerfiles_name(hearth, tmp_path):
    hearth.cli("base", "import", str(archive(tmp_path / "tiny.tar")), "--as", "tiny:1")
    assert "tiny:1" in hearth.cli("base", "ls").stdout
    dockerfile = 'FROM tiny:1\nRUN echo "$FROM_BASE" > /word\nCMD ["sh", "-c", "cat /word; sleep 100000"]\n'
    hearth.create_image("on-tiny", hearth.upload("on-tiny.zip", Hearth.archive(Dockerfile=dockerfile)))
    assert hearth.await_image("on-tiny")["state"] == "CREATED"
    assert "yes" in hearth.log_of("on-tiny").splitlines()
    hearth.delete_image("on-tiny")


def test_builds_read_the_prepared_bases_until_one_is_imported_and_newer_ones_are_told_of(hearth, tmp_path):
    hearth.cli("base", "import", str(archive(tmp_path / "tiny.tar")), "--as", "tiny:1")
    own = hearth.data / "builder" / "bases.img"
    warning = f"builds use the container bases of {own}, made before those of "
    os.utime(own, (0, 0))
    hearth.stop()
    hearth.start()
    wait_for("the warning", lambda: hearth.logged(warning))

    hearth.stop()
    own.unlink()
    hearth.start()
    for base, state in (("debian:13", "CREATED"), ("tiny:1", "CREATE_FAILED")):
        name = "sleeps-on-" + base.partition(":")[0]
        body = hearth.archive(Dockerfile=f'FROM {base}\nCMD ["sleep", "infinity"]\n')
        hearth.create_image(name, hearth.upload("on.zip", body))
        assert hearth.await_image(name)["state"] == state
        # It is a snapshot of a program that listens to nothing, and its builder is told so.
        assert ("Nothing listened within 20 s" in hearth.log_of(name)) == (state == "CREATED")
        hearth.delete_image(name)
    assert not own.exists()


def test_what_is_no_archive_is_refused_with_its_cause(hearth, tmp_path):
    (tmp_path / "no.tar").write_bytes(b"this is no archive" * 100)
    refused = hearth.cli("base", "import", str(tmp_path / "no.tar"), "--as", "never:1", check=False)
    assert refused.returncode != 0 and len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert "never:1" not in hearth.cli("base", "ls").stdout
    raw = Raw(hearth.settings)
    for key, code in [("no.tar", "ARCHIVE_INVALID"), ("none.tar", "S3_NO_SUCH_KEY")]:
        uri = hearth.upload("no.tar", b"this is no archive" * 100).replace("no.tar", key)
        answer = raw("POST", "/hearth/v1/bases", {"archiveUri": uri, "name": "never:1"})
        assert (answer.status, answer.kind) == (400, "ValidationException"), answer
        assert answer.message.startswith(f"{code}: "), answer
    raw.close()
