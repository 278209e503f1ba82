"""Accounts, keys, policies, roles, sessions, rates, quotas and the audit log. No MicroVM is started."""

import contextlib
import json
import pathlib
import re
import time
import uuid

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError

from raw import Raw
from support import wait_for

OTHER = "000000000002"


def allow(*actions, resource="*", **more):
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


class Key:
    """An access key and clients that sign with it."""

    def __init__(self, hearth, key_id, secret, token=None, attempts=1):
        self.hearth, self.id, self.secret, self.token, self.attempts = hearth, key_id, secret, token, attempts

    def client(self, service="lambda-microvms"):
        return boto3.client(
            service,
            endpoint_url=self.hearth.settings["endpointUrl"],
            region_name=self.hearth.settings["region"],
            aws_access_key_id=self.id,
            aws_secret_access_key=self.secret,
            aws_session_token=self.token,
            verify=self.hearth.settings["ca"],
            config=botocore.config.Config(
                retries={"total_max_attempts": self.attempts, "mode": "standard"},
                s3={"addressing_style": "path"},
                # The service is to refuse, not the client.
                parameter_validation=False,
            ),
        )


@pytest.fixture
def make_key(hearth, tmp_path):
    """Makes keys with `hearth keys create` and revokes them in the end."""
    made = []

    def make(*statements, account=None, name=None, administrator=False, attempts=1):
        arguments = [name or f"user-{uuid.uuid4().hex[:8]}"]
        if statements:
            file = tmp_path / f"policy-{len(made)}.json"
            file.write_text(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
            arguments += ["--policy", str(file)]
        arguments += ["--administrator"] if administrator else []
        arguments += ["--account", account] if account else []
        answer = hearth.json("keys", "create", *arguments)
        made.append((answer["accessKeyId"], answer["account"]))
        return Key(hearth, answer["accessKeyId"], answer["secretAccessKey"], attempts=attempts)

    yield make
    for key, account in made:
        hearth.cli("keys", "revoke", key, "--account", account, check=False)


@pytest.fixture
def make_role(hearth, tmp_path):
    """Makes roles with `hearth roles create` and removes them in the end."""
    made = []

    def make(*statements, name=None):
        name = name or f"role-{uuid.uuid4().hex[:8]}"
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))
        arn = hearth.json("roles", "create", name, "--policy", str(file))["roleArn"]
        made.append(name)
        return arn

    yield make
    for name in made:
        hearth.cli("roles", "rm", name, check=False)


@contextlib.contextmanager
def refused(code, status=403):
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def message_of(caught):
    return caught.value.response["Error"]["Message"]


def test_a_key_without_a_policy_may_only_ask_who_it_is(hearth, make_key):
    key = make_key(name="nobody")
    identity = key.client("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:iam::{hearth.account()}:user/nobody"
    assert re.fullmatch("AIDA[A-Z2-7]{16}", identity["UserId"])
    for call in (
        key.client().list_microvms,
        key.client("logs").describe_log_groups,
    ):
        with refused("AccessDeniedException"):
            call()
    with refused("AccessDenied"):
        key.client("s3").list_buckets()
    with refused("AccessDenied"):
        key.client("sts").assume_role(RoleArn=hearth.role(), RoleSessionName="me")


def test_a_refusal_names_principal_action_and_resource(hearth, make_key):
    key = make_key(allow("lambda:GetMicrovmImage", resource=hearth.arn("other")), name="ann")
    with refused("AccessDeniedException") as caught:
        key.client().get_microvm_image(imageIdentifier=hearth.arn("mine"))
    assert message_of(caught) == (
        f"User: arn:aws:iam::{hearth.account()}:user/ann is not authorized to perform: lambda:GetMicrovmImage "
        f"on resource: {hearth.arn('mine')} because no identity-based policy allows the lambda:GetMicrovmImage action"
    )
    with refused("ResourceNotFoundException", 404):
        key.client().get_microvm_image(imageIdentifier=hearth.arn("other"))


def test_an_explicit_denial_wins(hearth, make_key):
    denial = {"Effect": "Deny", "Action": "lambda:List*", "Resource": "*"}
    key = make_key(allow("*"), denial)
    with refused("AccessDeniedException") as caught:
        key.client().list_microvms()
    assert "explicit deny" in message_of(caught)
    key.client("logs").describe_log_groups()


def test_conditions_look_at_the_call(hearth, make_key):
    here = make_key(allow("lambda:ListMicrovms", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    here.client().list_microvms()
    elsewhere = make_key(allow("lambda:ListMicrovms", Condition={"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    with refused("AccessDeniedException"):
        elsewhere.client().list_microvms()


def test_roles_and_connectors_are_passed_only_with_permission(hearth, make_key):
    statements = [allow("lambda:RunMicrovm")]
    call = dict(imageIdentifier=hearth.arn("missing"), executionRoleArn=hearth.role())
    for action, arn in (
        ("iam:PassRole", hearth.role()),
        ("lambda:PassNetworkConnector", "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:HTTP_INGRESS"),
    ):
        with refused("AccessDeniedException") as caught:
            make_key(*statements).client().run_microvm(**call)
        assert f"perform: {action} on resource: {arn} " in message_of(caught)
        statements.append(allow(action))
    with refused("ResourceNotFoundException", 404):
        make_key(*statements).client().run_microvm(**call)


def test_accounts_are_strictly_apart(hearth, make_key):
    uri = hearth.upload("apart/secret.txt", b"mine")
    bucket = uri.split("/")[2]
    hearth.client("logs").create_log_group(logGroupName="apart")
    other = make_key(allow("*"), account=OTHER)
    assert other.client("sts").get_caller_identity()["Account"] == OTHER
    with refused("AccessDenied"):
        other.client("s3").get_object(Bucket=bucket, Key="apart/secret.txt")
    assert bucket not in [entry["Name"] for entry in other.client("s3").list_buckets()["Buckets"]]
    groups = other.client("logs").describe_log_groups()["logGroups"]
    assert "apart" not in [group["logGroupName"] for group in groups]
    with refused("AccessDeniedException"):
        other.client().get_microvm_image(imageIdentifier=hearth.arn("any"))
    with refused("AccessDeniedException") as caught:
        other.client().run_microvm(
            imageIdentifier=hearth.arn("any").replace(hearth.account(), OTHER), executionRoleArn=hearth.role()
        )
    assert "another account" in message_of(caught)
    with refused("AccessDenied"):
        other.client("sts").assume_role(RoleArn=hearth.role(), RoleSessionName="thief")
    hearth.client("logs").delete_log_group(logGroupName="apart")


def test_only_an_administrator_manages_other_accounts(hearth, make_key, monkeypatch):
    other = make_key(allow("*"), account=OTHER)
    environment = {
        **hearth.environment, "AWS_ENDPOINT_URL": hearth.settings["endpointUrl"], "AWS_CA_BUNDLE": hearth.settings["ca"],
        "AWS_ACCESS_KEY_ID": other.id, "AWS_SECRET_ACCESS_KEY": other.secret,
    }
    monkeypatch.setattr(type(hearth), "environment", property(lambda _: environment))
    assert [key["accessKeyId"] for key in hearth.json("keys", "ls")["items"]] == [other.id]
    failed = hearth.cli("keys", "ls", "--account", "000000000001", check=False)
    assert failed.returncode == 1 and "only an administrator may" in failed.stderr
    failed = hearth.cli("keys", "create", "--administrator", check=False)
    assert failed.returncode == 1 and "only an administrator may" in failed.stderr


def test_a_key_is_revoked_at_once_and_its_secret_shown_once(hearth, make_key):
    key = make_key(allow("*"))
    s3, microvms = key.client("s3"), key.client()
    s3.list_buckets()
    assert key.secret not in hearth.cli("--json", "keys", "ls").stdout
    hearth.cli("keys", "revoke", key.id)
    with refused("InvalidAccessKeyId"):
        s3.list_buckets()
    with refused("UnrecognizedClientException"):
        microvms.list_microvms()
    failed = hearth.cli("keys", "revoke", key.id, check=False)
    assert failed.returncode == 1 and "does not exist" in failed.stderr


def test_a_policy_that_is_not_understood_is_refused(hearth, tmp_path):
    file = tmp_path / "policy.json"
    file.write_text('{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Like": {"a": "b"}}}]}')
    failed = hearth.cli("keys", "create", "bad", "--policy", str(file), check=False)
    assert failed.returncode == 1
    assert "MalformedPolicyDocument: the condition operator Like is unknown" in failed.stderr


def test_objects_are_allowed_one_by_one(hearth, make_key):
    hearth.upload("open/a", b"a")
    hearth.upload("shut/b", b"b")
    objects = "arn:aws:s3:::test-artifacts"
    key = make_key(
        allow("s3:GetObject", "s3:DeleteObject", resource=f"{objects}/open/*"),
        allow("s3:ListBucket", resource=objects, Condition={"StringEquals": {"aws:SecureTransport": "true"}}),
    )
    s3 = key.client("s3")
    assert s3.get_object(Bucket="test-artifacts", Key="open/a")["Body"].read() == b"a"
    assert s3.list_objects_v2(Bucket="test-artifacts")["KeyCount"] >= 2
    with refused("AccessDenied"):
        s3.get_object(Bucket="test-artifacts", Key="shut/b")
    with refused("AccessDenied"):
        s3.put_object(Bucket="test-artifacts", Key="open/c", Body=b"c")
    with refused("AccessDenied"):
        s3.delete_objects(Bucket="test-artifacts", Delete={"Objects": [{"Key": "open/a"}, {"Key": "shut/b"}]})
    assert s3.get_object(Bucket="test-artifacts", Key="open/a")["Body"].read() == b"a"


def session(hearth, role, **more):
    answer = hearth.client("sts").assume_role(RoleArn=role, RoleSessionName="night", **more)
    given = answer["Credentials"]
    return Key(hearth, given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]), answer


def test_a_session_acts_as_its_role_on_every_service_and_across_a_restart(hearth, make_role):
    hearth.upload("session/a", b"a")
    role = make_role(allow("lambda:ListMicrovms", "s3:GetObject", "logs:DescribeLogGroups"))
    key, answer = session(hearth, role, DurationSeconds=900)
    assert key.id.startswith("ASIA")
    arn = role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/night"
    assert answer["AssumedRoleUser"]["Arn"] == arn

    def works():
        key.client().list_microvms()
        key.client("logs").describe_log_groups()
        assert key.client("s3").get_object(Bucket="test-artifacts", Key="session/a")["Body"].read() == b"a"
        assert key.client("sts").get_caller_identity()["Arn"] == arn

    works()
    with refused("AccessDeniedException"):
        key.client().list_microvm_images()
    with refused("AccessDenied"):
        key.client("s3").list_buckets()
    hearth.kill()
    hearth.start()
    works()


def test_a_session_is_nothing_without_its_token(hearth, make_role):
    key, _ = session(hearth, make_role(allow("*")))
    for token in (None, key.token[:-8] + "AAAAAAAA"):
        forged = Key(hearth, key.id, key.secret, token)
        with refused("UnrecognizedClientException"):
            forged.client().list_microvms()
        with refused("InvalidClientTokenId"):
            forged.client("sts").get_caller_identity()
        with refused("InvalidToken", 400):
            forged.client("s3").list_buckets()


def test_a_sessions_own_policy_only_takes_away(hearth, make_role):
    role = make_role(allow("lambda:List*"))
    policy = {"Version": "2012-10-17", "Statement": [allow("lambda:ListMicrovms", "logs:*")]}
    key, _ = session(hearth, role, Policy=json.dumps(policy))
    key.client().list_microvms()
    with refused("AccessDeniedException"):
        key.client().list_microvm_images()
    with refused("AccessDeniedException"):
        key.client("logs").describe_log_groups()


def test_a_removed_role_takes_its_sessions_along(hearth, make_role):
    role = make_role(allow("*"))
    key, _ = session(hearth, role)
    key.client().list_microvms()
    hearth.cli("roles", "rm", role.rsplit("/", 1)[1])
    with refused("AccessDeniedException"):
        key.client().list_microvms()
    with refused("AccessDenied"):
        session(hearth, role)


@pytest.mark.parametrize(
    "wrong, code",
    [
        (dict(DurationSeconds=899), "ValidationError"),
        (dict(DurationSeconds=43201), "ValidationError"),
        (dict(RoleSessionName="a b"), "ValidationError"),
        (dict(Policy='{"Statement": 1}'), "MalformedPolicyDocument"),
    ],
)
def test_a_session_that_cannot_be_is_refused(hearth, wrong, code):
    key = Key(hearth, hearth.settings["accessKeyId"], hearth.settings["secretAccessKey"])
    with refused(code, 400):
        key.client("sts").assume_role(**{"RoleArn": hearth.role(), "RoleSessionName": "night", **wrong})


def test_110_beyond_its_rate_an_account_waits_and_sdk_retries_succeed(hearth, make_key):
    once = make_key(allow("*"), account="000000000429").client()

    def throttled():
        try:
            once.list_microvm_images()
        except ClientError as error:
            return error.response

    response = wait_for("a refusal", throttled, pause=0)
    metadata = response["ResponseMetadata"]
    assert (response["Error"]["Code"], metadata["HTTPStatusCode"]) == ("ThrottlingException", 429)
    assert response["Error"]["Message"] == "Rate exceeded"
    assert int(metadata["HTTPHeaders"]["retry-after"]) >= 1
    patient = make_key(allow("*"), account="000000000429", attempts=10).client()
    retries = lambda: patient.list_microvm_images()["ResponseMetadata"]["RetryAttempts"]
    wait_for("a call that the SDK had to try again", retries, pause=0)
    hearth.client().list_microvm_images()


def test_quotas_of_an_account_are_402_with_their_texts(hearth, make_key):
    key = make_key(allow("*"), account="000000000402")
    client = key.client()
    arguments = dict(
        baseImageArn=hearth.base_arn(), buildRoleArn="arn:aws:iam::000000000402:role/build",
        codeArtifact={"uri": "s3://quota-none/none.zip"},
    )

    def create(name, **more):
        return client.create_microvm_image(name=name, **arguments, **more)["imageArn"]

    def settled(arn):
        wait_for("the build's end", lambda: client.get_microvm_image(imageIdentifier=arn)["state"].endswith("FAILED"))

    with refused("ServiceQuotaExceededException", 402) as caught:
        create("a", environmentVariables={name: "x" for name in "abc"})
    assert "maximum number of environment variables (2)" in message_of(caught)
    first = create("a")
    settled(first)
    with refused("ServiceQuotaExceededException", 402) as caught:
        client.update_microvm_image(imageIdentifier=first, **arguments)
    assert "maximum number of versions (1)" in message_of(caught)
    settled(create("b"))
    with refused("ServiceQuotaExceededException", 402) as caught:
        create("c")
    assert "maximum number of MicroVM images (2)" in message_of(caught)
    for name in "ab":
        client.delete_microvm_image(imageIdentifier=first[:-1] + name)


def test_a_build_role_that_may_not_read_the_artifact_fails_the_build(hearth, make_role):
    uri = hearth.upload("denied/app.zip", b"no zip")
    role = make_role(allow("s3:GetObject", resource="arn:aws:s3:::elsewhere/*"))
    hearth.create_image("denied", uri, buildRoleArn=role)
    assert hearth.await_image("denied")["state"] == "CREATE_FAILED"
    assert hearth.build_of("denied")["stateReason"].startswith("S3_ACCESS_DENIED: ")
    hearth.delete_image("denied")


def audit(hearth):
    files = sorted(pathlib.Path(hearth.data, "audit").iterdir(), reverse=True)
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_every_change_is_in_the_audit_log_and_no_secret_is(hearth, make_key, make_role):
    role = make_role(allow("*"), name="audited")
    key = make_key(allow("s3:*"), name="auditee")
    with refused("AccessDeniedException"):
        key.client().terminate_microvm(microvmIdentifier="microvm-none")
    key.client("s3").create_bucket(Bucket="audited")
    key.client("s3").delete_bucket(Bucket="audited")
    key.client("s3").list_buckets()
    session_key, _ = session(hearth, role)
    lines = audit(hearth)
    me = f"arn:aws:iam::{hearth.account()}"

    def last(operation):
        line = [line for line in lines if line["operation"] == operation][-1]
        return line["service"], line["principal"], line["resource"], line["status"], line["error"]

    assert last("CreateKey") == ("lambda", f"{me}:root", "*", 200, None)
    denied = ("lambda", f"{me}:user/auditee", "*", 403, "AccessDeniedException")
    assert last("TerminateMicrovm") == denied
    assert last("CreateBucket") == ("s3", f"{me}:user/auditee", "arn:aws:s3:::audited", 200, None)
    assert last("DeleteBucket")[3:] == (204, None)
    assert last("AssumeRole") == ("sts", f"{me}:root", role, 200, None)
    line = lines[-1]
    assert line["source"] == "127.0.0.1" and line["requestId"] and line["userAgent"] and line["time"]
    assert not any(line["operation"].startswith(("List", "Get")) for line in lines)
    text = json.dumps(lines)
    assert not any(secret in text for secret in (key.secret, session_key.secret, session_key.token))


def test_hearth_audit_finds_who_did_what_and_when(hearth, make_key):
    began = int(time.time()) - 1
    key = make_key(allow("s3:*"), name="watched")
    with refused("AccessDeniedException"):
        key.client().terminate_microvm(microvmIdentifier="microvm-none")
    key.client("s3").create_bucket(Bucket="watched")
    key.client("s3").delete_bucket(Bucket="watched")
    operations = lambda *filters: [line["operation"] for line in hearth.json("audit", *filters)["items"]]
    mine = ("--from", str(began), "--who", "user/watched")
    assert operations(*mine) == ["TerminateMicrovm", "CreateBucket", "DeleteBucket"]
    assert operations("--from", str(began), "--who", key.id) == operations(*mine)
    assert operations(*mine, "--outcome", "failed") == ["TerminateMicrovm"]
    assert operations(*mine, "--what", "arn:aws:s3:::watched", "--outcome", "succeeded") == ["CreateBucket", "DeleteBucket"]
    assert operations(*mine, "--what", "DeleteBucket") == ["DeleteBucket"]
    assert operations(*mine, "--to", str(began)) == []
    assert operations(*mine, "--account", OTHER) == []
    assert "s3:CreateBucket" in hearth.cli("audit", *mine).stdout
    hearth.kill()
    hearth.start()
    assert operations(*mine) == ["TerminateMicrovm", "CreateBucket", "DeleteBucket"]


def test_the_audit_log_is_for_administrators_in_pages(hearth, make_key):
    path = "/hearth/v1/audit"
    raw = Raw(hearth.settings)
    told = make_key(allow("*"))
    answer = raw("GET", path, key=told.id, secret=told.secret)
    assert (answer.status, answer.kind) == (403, "AccessDeniedException")
    first = raw("GET", f"{path}?maxResults=1").json
    second = raw("GET", f"{path}?maxResults=1&nextToken={first['nextToken']}").json
    assert [len(page["items"]) for page in (first, second)] == [1, 1]
    assert first["items"][0]["time"] <= second["items"][0]["time"]
    assert first["items"] != second["items"]
    token = first["nextToken"]
    for query in (f"who=x&nextToken={token}", f"nextToken={token[:-2]}", "outcome=MAYBE", "maxResults=1001"):
        assert raw("GET", f"{path}?{query}").status == 400, query
    raw.close()
