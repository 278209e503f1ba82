"""The artifact store as people use it from a shell: `aws s3` of the unmodified AWS CLI."""

import os
import pathlib
import subprocess
import sys
import time

import pytest


@pytest.fixture
def s3(hearth):
    """Runs `aws s3`; what it printed."""
    given = hearth.settings
    environment = {
        **hearth.environment, "AWS_ACCESS_KEY_ID": given["accessKeyId"], "AWS_SECRET_ACCESS_KEY": given["secretAccessKey"],
        "AWS_REGION": given["region"], "AWS_CA_BUNDLE": str(given["ca"]), "AWS_ENDPOINT_URL_S3": given["endpointUrl"],
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }

    def run(*words, check=True):
        done = subprocess.run([sys.executable, "-m", "awscli", "s3", *map(str, words)], env=environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def tree(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in pathlib.Path(directory).rglob("*") if path.is_file()}


def test_cp_sync_ls_and_rm_of_the_aws_cli(s3, tmp_path):
    bucket = "s3://from-a-shell"
    s3("mb", bucket)
    # More than 8 MiB, so that it goes in parts.
    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    s3("cp", large, f"{bucket}/large")
    s3("cp", f"{bucket}/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()

    here, hour_ago = tmp_path / "here", time.time() - 3600
    for name, size in (("a", 0), ("b/c", 1), ("b/d e", 70_000), ("b/ü/ß", 9 << 20)):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(os.urandom(size))
        # The store tells whole seconds, and a file that is younger than its object would be sent again.
        os.utime(here / name, (hour_ago, hour_ago))
    s3("sync", here, f"{bucket}/tree")
    s3("sync", f"{bucket}/tree", tmp_path / "there")
    assert tree(tmp_path / "there") == tree(here)
    # What is there already is not sent again; what is gone here is removed there.
    (here / "b/c").unlink()
    (here / "new").write_text("new")
    told = s3("sync", here, f"{bucket}/tree", "--delete").stdout
    assert sorted(line.split(":")[0] for line in told.splitlines() if line.startswith(("upload", "delete"))) == ["delete", "upload"]

    listed = {line.split(maxsplit=3)[3]: int(line.split()[2]) for line in s3("ls", "--recursive", bucket).stdout.splitlines()}
    assert listed == {"large": 20 << 20, **{f"tree/{name}": len(content) for name, content in tree(here).items()}}
    assert "PRE tree/" in s3("ls", bucket).stdout
    s3("rm", f"{bucket}/tree", "--recursive")
    s3("rm", f"{bucket}/large")
    assert s3("ls", "--recursive", bucket, check=False).stdout == ""
    s3("rb", bucket)
    gone = s3("ls", bucket, check=False)
    assert gone.returncode != 0 and "NoSuchBucket" in gone.stderr
