"""Network connectors of lambda-core on the wire, without a MicroVM: checklist 107 and 108, and what connectors mean to
the other operations."""

import json
import uuid

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import requests

from private import settings
from support import refusal, wait_for
from test_access import allow, make_role  # noqa: F401 (a fixture)

SETTINGS = """
[network.subnets.subnet-private]
ranges = ["10.77.0.0/16"]

[network.security_groups.sg-web]
allow = [{ to = "10.77.0.0/24", protocol = "tcp", ports = "443" }]
"""
ROLE = "arn:aws:iam::{account}:role/operator"


@pytest.fixture(scope="module")
def configured(hearth):
    with settings(hearth, SETTINGS):
        yield hearth


@pytest.fixture
def core(configured):
    return configured.client("lambda-core")


@pytest.fixture
def connector(hearth, core):
    """A connector that is ACTIVE, gone afterwards."""
    made = create(hearth, core)
    await_state(core, made["Id"], "ACTIVE")
    yield made
    remove(core, made["Id"])


def create(hearth, core, subnets=("subnet-private",), groups=(), protocol="IPv4", **more):
    return core.create_network_connector(
        Name=more.pop("Name", f"net-{uuid.uuid4().hex[:8]}"),
        OperatorRole=more.pop("OperatorRole", ROLE.format(account=hearth.account())),
        Configuration={"VpcEgressConfiguration": {
            "SubnetIds": list(subnets), "SecurityGroupIds": list(groups), "NetworkProtocol": protocol,
            "AssociatedComputeResourceTypes": ["MicroVm"],
        }},
        **more,
    )


def await_state(core, identifier, *states):
    def there():
        now = core.get_network_connector(Identifier=identifier)
        return now if now["State"] in states else None

    return wait_for(f"connector {identifier} in {states}", there)


def exists(core, identifier):
    try:
        core.get_network_connector(Identifier=identifier)
        return True
    except core.exceptions.ResourceNotFoundException:
        return False


def remove(core, identifier):
    if exists(core, identifier):
        core.delete_network_connector(Identifier=identifier)
        wait_for("the connector's end", lambda: not exists(core, identifier))


def raw(hearth, method, path, body=None):
    """A signed request whose body is exactly this."""
    settings = hearth.settings
    data = json.dumps(body) if body is not None else ""
    request = botocore.awsrequest.AWSRequest(method, settings["endpointUrl"] + path, data=data)
    keys = botocore.credentials.Credentials(settings["accessKeyId"], settings["secretAccessKey"])
    botocore.auth.SigV4Auth(keys, "lambda", settings["region"]).add_auth(request)
    return requests.request(
        method, request.url, data=data, headers=dict(request.headers), verify=settings["ca"], timeout=60
    )


def test_checklist_107_what_the_model_calls_optional_is_asked_for_in_the_recorded_order(hearth, core):
    body = {"Name": "order", "Configuration": {"VpcEgressConfiguration": {"SubnetIds": ["subnet-private"]}}}
    vpc = body["Configuration"]["VpcEgressConfiguration"]
    steps = [
        ("ClientToken is a required field", lambda: body.update(ClientToken="t")),
        ("AssociatedComputeResourceTypes is required for VPC_EGRESS connector type",
         lambda: vpc.update(AssociatedComputeResourceTypes=["MicroVm"])),
        ("NetworkProtocol cannot be null or empty for VPC_EGRESS connector", lambda: vpc.update(NetworkProtocol="IPv4")),
        ("NetworkConnectorOperatorRole is required for VPC_EGRESS connector type", lambda: None),
    ]
    for text, mend in steps:
        answer = raw(hearth, "POST", "/2026-04-04/network-connectors", body)
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
        assert answer.json() == {"Type": "User", "message": text}
        mend()


def test_checklist_107_seventeen_subnets_name_the_member(hearth, core):
    status, code, message = refusal(
        lambda: create(hearth, core, subnets=[f"subnet-{number}" for number in range(17)])
    )
    assert (status, code) == (400, "ValidationException")
    assert "'configuration.vpcEgressConfiguration.subnetIds' failed to satisfy constraint: Member must have length " \
        "less than or equal to 16" in message


def test_checklist_108_a_connector_lives_from_pending_to_not_found(hearth, core):
    made = create(hearth, core, Name="life")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert made["State"] == "PENDING" and made["Id"].startswith("nc-")
    assert made["Arn"] == f"arn:aws:lambda:{hearth.settings['region']}:{hearth.account()}:network-connector:{made['Id']}"
    now = await_state(core, made["Arn"], "ACTIVE")
    assert now["StateReason"] == "Initial creation" and now["Version"] == 1
    for identifier in (made["Id"], "life", made["Arn"], made["VersionArn"]):
        assert core.get_network_connector(Identifier=identifier)["Id"] == made["Id"], identifier

    same = core.update_network_connector(Identifier="life", OperatorRole=now["OperatorRole"])
    assert same["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (same["Version"], same["LastUpdateStatusReason"]) == (1, "No configuration changes detected")

    configuration = {"VpcEgressConfiguration": {"SecurityGroupIds": ["sg-web"]}}
    changed = core.update_network_connector(Identifier="life", Configuration=configuration)
    assert (changed["Version"], changed["LastUpdateStatus"], changed["State"]) == (2, "InProgress", "ACTIVE")
    assert changed["Configuration"]["VpcEgressConfiguration"]["SubnetIds"] == ["subnet-private"], "the rest stays"
    wait_for("the change", lambda: core.get_network_connector(Identifier="life")["LastUpdateStatus"] == "Successful")
    versions = core.list_network_connector_versions(Identifier="life")["NetworkConnectorVersions"]
    assert [(version["Version"], version["State"]) for version in versions] == [(2, "ACTIVE"), (1, "ACTIVE")]

    assert refusal(core.delete_network_connector, Identifier=made["Arn"] + ":2")[:2] == (409, "ResourceConflictException")
    assert core.delete_network_connector(Identifier=made["Arn"] + ":1")["State"] == "DELETING"
    assert refusal(core.get_network_connector, Identifier=made["Arn"] + ":1")[0] == 404

    gone = core.delete_network_connector(Identifier=made["Arn"])
    assert (gone["ResponseMetadata"]["HTTPStatusCode"], gone["State"]) == (202, "DELETING")
    wait_for("its end", lambda: not exists(core, made["Arn"]))
    answer = raw(hearth, "GET", f"/2026-04-04/network-connectors/{made['Arn']}")
    assert answer.status_code == 404 and answer.headers["x-amzn-errortype"] == "ResourceNotFoundException"
    assert answer.json()["Message"] == f"Network connector not found for: {made['Arn']}"


def test_an_operator_role_is_exercised_at_once(hearth, core, connector, make_role):  # noqa: F811
    unauthorized = (
        400, "InvalidParameterValueException",
        "Encountered unauthorized operation while calling EC2 due to invalid ConnectorOperatorRole permissions",
    )
    interface = "arn:aws:ec2:*:*:network-interface/*"
    tagged = dict(allow("ec2:CreateTags", resource=interface), Condition={
        "StringEquals": {"ec2:ManagedResourceOperator": "network-connectors.lambda.amazonaws.com"}})
    whole = make_role(allow("ec2:CreateNetworkInterface"), tagged)
    for wanting in (
        make_role(allow("ec2:DescribeSubnets")),
        make_role(allow("ec2:CreateNetworkInterface")),
        make_role(allow("ec2:CreateNetworkInterface", resource=interface), tagged),
        "arn:aws:iam::000000000088:role/of-another-account",
    ):
        # Who may not pass it is told so first.
        foreign = ":000000000088:" in wanting
        got = refusal(lambda: create(hearth, core, Name="barred", OperatorRole=wanting))
        assert got[:2] == (403, "AccessDeniedException") if foreign else got == unauthorized, wanting
        assert not exists(core, "barred")
        if not foreign:
            assert refusal(core.update_network_connector, Identifier=connector["Id"], OperatorRole=wanting) == unauthorized
    assert core.get_network_connector(Identifier=connector["Id"])["Version"] == 1
    changed = core.update_network_connector(Identifier=connector["Id"], OperatorRole=whole)
    assert (changed["Version"], changed["OperatorRole"]) == (2, whole)
    wait_for("the change", lambda: core.get_network_connector(Identifier=connector["Id"])["LastUpdateStatus"] == "Successful")


def test_dual_stack_fails_with_a_reason_for_guests_speak_ipv4(hearth, core):
    made = create(hearth, core, protocol="DualStack")
    now = await_state(core, made["Id"], "FAILED")
    assert now["StateReasonCode"] == "InvalidSubnet" and "IPv6" in now["StateReason"], now
    remove(core, made["Id"])


def test_each_operation_has_its_recorded_members_and_no_nulls(hearth, core, connector):
    path = f"/2026-04-04/network-connectors/{connector['Id']}"
    shown = raw(hearth, "GET", path).json()
    assert set(shown) == {
        "Arn", "Name", "Id", "Configuration", "OperatorRole", "State", "LastModified", "StateReason", "VersionArn",
        "Version", "LatestVersionArn", "LatestVersion",
    }
    assert shown["LastModified"].endswith("Z") and "T" in shown["LastModified"]
    updated = raw(hearth, "PUT", path, {"ClientToken": "x"}).json()
    assert set(updated) == {
        "Arn", "Name", "Id", "Configuration", "OperatorRole", "State", "LastModified", "LastUpdateStatus",
        "LastUpdateStatusReason", "VersionArn", "Version",
    }
    listed = raw(hearth, "GET", "/2026-04-04/network-connectors").json()
    assert set(listed) == {"NetworkConnectors"}
    assert set(listed["NetworkConnectors"][0]) == {
        "Arn", "Name", "Id", "Type", "State", "LastModified", "LatestVersionArn", "LatestVersion",
    }


def test_what_the_operator_did_not_configure_fails_with_its_code(hearth, core):
    for subnets, groups, code in [
        (["subnet-elsewhere"], [], "InvalidSubnet"), (["subnet-private"], ["sg-elsewhere"], "InvalidSecurityGroup"),
    ]:
        made = create(hearth, core, subnets, groups)
        failed = await_state(core, made["Id"], "FAILED")
        assert failed["StateReasonCode"] == code and failed["StateReason"]
        remove(core, made["Id"])


def test_a_change_that_fails_leaves_the_connector_active_on_its_former_version(core, connector):
    configuration = {"VpcEgressConfiguration": {"SubnetIds": ["subnet-elsewhere"]}}
    core.update_network_connector(Identifier=connector["Id"], Configuration=configuration)

    def failed():
        now = core.get_network_connector(Identifier=connector["Id"])
        return now if now["LastUpdateStatus"] == "Failed" else None

    now = wait_for("the failure", failed)
    assert (now["State"], now["LastUpdateStatusReasonCode"]) == ("ACTIVE", "InvalidSubnet")
    assert (now["Version"], now["LatestVersion"]) == (1, 2)


def test_a_token_repeats_its_answer_and_conflicts_with_another_request(hearth, core):
    first = create(hearth, core, Name="token", ClientToken="token-1")
    assert create(hearth, core, Name="token", ClientToken="token-1")["Id"] == first["Id"]
    other = refusal(lambda: create(hearth, core, Name="other", ClientToken="token-1"))
    assert other[:2] == (409, "ResourceConflictException")
    taken = refusal(lambda: create(hearth, core, Name="token"))
    assert taken[:2] == (409, "ResourceConflictException")
    await_state(core, "token", "ACTIVE")
    remove(core, "token")


def test_markers_walk_every_connector_once_and_refuse_tampering(hearth, core):
    made = {create(hearth, core)["Id"] for _ in range(5)}
    seen, marker = [], None
    while True:
        page = core.list_network_connectors(MaxItems=2, **({"Marker": marker} if marker else {}))
        seen += [item["Id"] for item in page["NetworkConnectors"]]
        marker = page.get("NextMarker")
        if not marker:
            break
    assert len(seen) == len(set(seen)) and made <= set(seen)
    assert refusal(core.list_network_connectors, Marker="nonsense")[:2] == (400, "InvalidParameterValueException")
    for identifier in made:
        await_state(core, identifier, "ACTIVE")
        remove(core, identifier)


def test_connectors_have_tags(hearth, core, connector):
    path = f"/2017-03-31/tags/{connector['Arn'].replace(':', '%3A')}"
    assert raw(hearth, "POST", path, {"Tags": {"a": "1", "b": "2"}}).status_code == 204
    assert raw(hearth, "DELETE", path + "?tagKeys=a").status_code == 204
    assert raw(hearth, "GET", path).json() == {"Tags": {"b": "2"}}
    unknown = path.replace(connector["Id"], "nc-none")
    assert raw(hearth, "GET", unknown).status_code == 404


def test_connectors_and_their_tags_survive_the_daemon(hearth, core, connector):
    path = f"/2017-03-31/tags/{connector['Arn']}"
    assert raw(hearth, "POST", path, {"Tags": {"kept": "yes"}}).status_code == 204
    before = raw(hearth, "GET", f"/2026-04-04/network-connectors/{connector['Id']}").json()
    hearth.kill()
    hearth.start()
    after = raw(hearth, "GET", f"/2026-04-04/network-connectors/{connector['Id']}").json()
    assert after == before
    assert raw(hearth, "GET", path).json() == {"Tags": {"kept": "yes"}}


def test_foreign_malformed_and_managed_identifiers_are_refused(hearth, core):
    region = hearth.settings["region"]
    foreign = f"arn:aws:lambda:{region}:999999999999:network-connector:nc-1"
    assert refusal(core.get_network_connector, Identifier=foreign)[0] == 403
    malformed = refusal(core.get_network_connector, Identifier="arn:aws:lambda:x")
    assert malformed == (400, "InvalidParameterValueException", "Malformed network connector ARN")
    managed = f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:INTERNET_EGRESS"
    assert refusal(core.get_network_connector, Identifier=managed)[0] == 404


def test_an_image_names_connectors_that_are_there(hearth, core):
    uri = hearth.upload("connector.zip", b"no zip")
    region = hearth.settings["region"]
    managed = f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:"
    for arn, status, text in [
        ("INTERNET_EGRESS", 400, "Malformed network connector ARN"),
        (managed + "NO_EGRESS", 400, f"Unrecognized managed network connector ARN: {managed}NO_EGRESS"),
        (f"arn:aws:lambda:{region}:{hearth.account()}:network-connector:nc-none", 404, "Network connector not found for:"),
    ]:
        refused = refusal(lambda: hearth.create_image("nowhere", uri, egressNetworkConnectors=[arn]))
        assert refused[0] == status and text in refused[2], refused
    assert not hearth.image_exists("nowhere")
