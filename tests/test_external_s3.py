"""Artifacts from an external S3 service, for which this daemon's own S3, reached as any client reaches it, stands: under
another account's keys, so that nothing can come out of the caller's own buckets."""

import json

import boto3
import botocore.config
import pytest

from private import settings
from raw import Raw
from support import Hearth
from test_bases import archive

OTHER = "000000000077"
BUCKET = "external-artifacts"


@pytest.fixture(scope="module")
def external(hearth):
    """The daemon with an external service, whose account sees one bucket with one object."""
    made = [hearth.json("keys", "create", "external", "--administrator", "--account", OTHER)]
    made.append(hearth.json("keys", "create", "nobody", "--account", OTHER))
    all_rights, none = (
        f"access_key_id = {json.dumps(key['accessKeyId'])}\nsecret_access_key = {json.dumps(key['secretAccessKey'])}\n"
        for key in made
    )
    more = (
        f"\n[external_s3]\nendpoint = {json.dumps(hearth.settings['endpointUrl'])}\nca = {json.dumps(hearth.settings['ca'])}\n"
        f"{all_rights}\n[roles.\"{role(hearth, 'barred')}\"]\n{none}"
    )
    with settings(hearth, more):
        yield made[0]
    for key in made:
        hearth.cli("keys", "revoke", key["accessKeyId"], "--account", OTHER, check=False)


def role(hearth, name):
    return f"arn:aws:iam::{hearth.account()}:role/{name}"


@pytest.fixture
def there(hearth, external):
    s3 = boto3.client(
        "s3", endpoint_url=hearth.settings["endpointUrl"], region_name=hearth.settings["region"],
        aws_access_key_id=external["accessKeyId"], aws_secret_access_key=external["secretAccessKey"],
        verify=hearth.settings["ca"], config=botocore.config.Config(s3={"addressing_style": "path"}),
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="no.tar", Body=b"this is no archive" * 100)
    yield s3
    s3.delete_object(Bucket=BUCKET, Key="no.tar")
    s3.delete_bucket(Bucket=BUCKET)


def failure(hearth, name, uri, build_role):
    """Why a build of this artifact fails."""
    hearth.create_image(name, uri, buildRoleArn=role(hearth, build_role))
    assert hearth.await_image(name)["state"] == "CREATE_FAILED"
    reason = hearth.build_of(name)["stateReason"]
    hearth.delete_image(name)
    return reason.split(":")[0]


def test_each_refusal_of_the_external_service_has_its_code(hearth, there):
    for key, build_role, expected in [
        ("none.zip", "any", "S3_NO_SUCH_KEY"),
        # Keys of its own, which the external service lets do nothing.
        ("no.tar", "barred", "S3_ACCESS_DENIED"),
    ]:
        assert failure(hearth, "from-outside", f"s3://{BUCKET}/{key}", build_role) == expected
    assert failure(hearth, "from-nowhere", "s3://no-such-bucket-anywhere/x.zip", "any") == "S3_NO_SUCH_BUCKET"


def test_bytes_come_from_the_external_service(hearth, there):
    """What came is looked at, and is no archive."""
    client = hearth.client("s3")
    assert BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    raw = Raw(hearth.settings)
    answer = raw("POST", "/hearth/v1/bases", {"archiveUri": f"s3://{BUCKET}/no.tar", "name": "never:1"})
    assert (answer.status, answer.message.split(":")[0]) == (400, "ARCHIVE_INVALID")
    missing = raw("POST", "/hearth/v1/bases", {"archiveUri": f"s3://{BUCKET}/none.tar", "name": "never:1"})
    assert (missing.status, missing.message.split(":")[0]) == (400, "S3_NO_SUCH_KEY")
    raw.close()


def test_a_container_base_and_an_image_on_it_come_from_the_external_service(hearth, there, tmp_path):
    there.upload_file(str(archive(tmp_path / "tiny.tar")), BUCKET, "tiny.tar")
    dockerfile = 'FROM far:1\nRUN echo "$FROM_BASE" > /word\nCMD ["sh", "-c", "cat /word; sleep 100000"]\n'
    there.put_object(Bucket=BUCKET, Key="app.zip", Body=Hearth.archive(Dockerfile=dockerfile))
    raw = Raw(hearth.settings)
    imported = raw("POST", "/hearth/v1/bases", {"archiveUri": f"s3://{BUCKET}/tiny.tar", "name": "far:1"})
    assert imported.status < 300, imported
    raw.close()
    hearth.create_image("from-far", f"s3://{BUCKET}/app.zip", buildRoleArn=role(hearth, "any"))
    assert hearth.await_image("from-far")["state"] == "CREATED", hearth.build_of("from-far")
    assert "yes" in hearth.log_of("from-far").splitlines()
    vm = hearth.run("from-far")
    vm.terminate()
    hearth.delete_image("from-far")
    for key in ("tiny.tar", "app.zip"):
        there.delete_object(Bucket=BUCKET, Key=key)
