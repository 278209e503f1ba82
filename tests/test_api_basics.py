"""Checklist lines 1 to 16 and bad input: what holds for every call of the control plane. No MicroVM is started here."""

import datetime
import json
import uuid

import pytest

from support import wait_for

IMAGES = "/2025-09-09/microvm-images"
NOWHERE = "s3://no-such-bucket/app.zip"


@pytest.fixture(scope="module")
def failed(hearth):
    """The name of an image whose artifact is not there: every operation on images knows it, and no MicroVM was needed."""
    hearth.create_image("basics", NOWHERE)
    hearth.await_image("basics")
    yield "basics"
    hearth.delete_image("basics")


def create_body(hearth, name, **more):
    return {
        "name": name,
        "baseImageArn": hearth.base_arn(),
        "buildRoleArn": hearth.role(),
        "codeArtifact": {"uri": NOWHERE},
        **more,
    }


def test_line_01_any_region_is_accepted_and_a_tampered_signature_is_not(raw):
    for region in ("us-east-1", "eu-central-1", "home"):
        answer = raw("GET", "/2025-09-09/managed-microvm-images", region=region)
        assert answer.status == 200
        assert f":lambda:{region}:aws:" in answer.json["items"][0]["imageArn"]
    headers = raw.signed("GET", IMAGES)
    tampered = headers["Authorization"][:-1] + ("0" if headers["Authorization"][-1] != "0" else "1")
    answer = raw.send("GET", IMAGES, headers={**headers, "Authorization": tampered})
    assert (answer.status, answer.kind) == (403, "InvalidSignatureException")
    other_target = raw.send("GET", "/2025-09-09/microvms", headers=headers)
    assert other_target.status == 403


def test_line_02_raw_and_escaped_colons_name_the_same_image(hearth, raw, failed):
    arn = hearth.arn(failed)
    answers = [raw("GET", f"{IMAGES}/{label}") for label in (arn, arn.replace(":", "%3A"), arn.replace(":", "%3a"))]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert {answer.json["imageArn"] for answer in answers} == {arn}


def test_line_03_all_families_and_the_side_services_are_served_on_one_port(hearth, raw, failed):
    assert raw("GET", "/2025-09-09/microvms").status == 200
    assert raw("GET", f"/2017-03-31/tags/{hearth.arn(failed)}").status == 200
    assert raw("GET", "/2026-04-04/network-connectors").json == {"NetworkConnectors": []}
    target = {"x-amz-target": "Logs_20140328.DescribeLogGroups", "content-type": "application/x-amz-json-1.1"}
    assert "logGroups" in raw("POST", "/", {}, service="logs", headers=target).json
    assert raw("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", service="sts").status == 200


def test_line_04_the_error_type_is_in_the_header_alone(hearth, raw):
    answer = raw("GET", f"{IMAGES}/{hearth.arn('no-such-image')}")
    assert answer.kind == "ResourceNotFoundException"
    assert set(answer.json) == {"message", "resourceId", "resourceType"}
    assert answer.json["resourceId"] is None and answer.json["resourceType"] is None
    assert uuid.UUID(answer.headers["x-amzn-requestid"])
    assert answer.headers["content-type"] == "application/json"


def test_line_05_timestamps_are_numbers(hearth, raw, failed):
    image = raw("GET", f"{IMAGES}/{hearth.arn(failed)}").json
    for member in ("createdAt", "updatedAt"):
        assert isinstance(image[member], (int, float))
        assert abs(datetime.datetime.now().timestamp() - image[member]) < 3600


def test_line_06_all_missing_members_are_named_at_once(raw):
    answer = raw("POST", IMAGES, {"name": "incomplete"})
    assert (answer.status, answer.kind) == (400, "ValidationException")
    assert answer.json == {
        "message": "3 validation errors detected: "
        "Value null at 'baseImageArn' failed to satisfy constraint: Member must not be null; "
        "Value null at 'codeArtifact' failed to satisfy constraint: Member must not be null; "
        "Value null at 'buildRoleArn' failed to satisfy constraint: Member must not be null"
    }


def test_line_07_a_bad_name_is_refused_with_the_pattern(hearth, raw):
    answer = raw("POST", IMAGES, create_body(hearth, "bad name!"))
    assert (answer.status, answer.message) == (
        400,
        "1 validation error detected: Value 'bad name!' at 'name' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+",
    )


def test_line_08_a_name_has_at_most_64_characters(hearth, raw):
    answer = raw("POST", IMAGES, create_body(hearth, "n" * 65))
    assert answer.status == 400 and "length less than or equal to 64" in answer.message
    assert raw("POST", IMAGES, create_body(hearth, "n" * 64)).status == 201
    hearth.await_image("n" * 64)
    hearth.delete_image("n" * 64)


def test_line_09_pages_have_1_to_50_items(raw):
    for target in (IMAGES, "/2025-09-09/microvms", "/2025-09-09/managed-microvm-images"):
        for refused in (0, 51):
            answer = raw("GET", f"{target}?maxResults={refused}")
            assert answer.status == 400 and "'maxResults'" in answer.message
        for taken in (1, 50):
            assert raw("GET", f"{target}?maxResults={taken}").status == 200
        assert raw("GET", f"{target}?maxResults=many").status == 400


def test_line_10_walking_yields_each_item_once_also_across_a_restart(hearth, raw):
    names = {f"walk-{number}" for number in range(4)}
    for name in sorted(names):
        hearth.create_image(name, NOWHERE)
        hearth.await_image(name)
    query, seen, tokens = "nameFilter=walk&maxResults=1", [], []
    page = raw("GET", f"{IMAGES}?{query}").json
    for _ in names:
        seen += [item["name"] for item in page["items"]]
        if page["nextToken"] is None:
            break
        tokens.append(page["nextToken"])
        if len(tokens) == 2:
            hearth.kill()
            hearth.start()
            raw.close()
        page = raw("GET", f"{IMAGES}?{query}&nextToken={page['nextToken']}").json
    assert seen == sorted(names, reverse=True), "newest first, each once"
    assert page["nextToken"] is None
    changed = tokens[0][:-2] + ("A" if tokens[0][-2] != "A" else "B") + tokens[0][-1]
    for wrong in (changed, "x", f"{tokens[0]}="):
        answer = raw("GET", f"{IMAGES}?{query}&nextToken={wrong}")
        assert (answer.status, answer.json) == (400, {"message": None})
    assert raw("GET", f"{IMAGES}?nameFilter=wal&maxResults=1&nextToken={tokens[0]}").status == 400
    assert raw("GET", f"/2025-09-09/microvms?nextToken={tokens[0]}").status == 400
    for name in names:
        hearth.delete_image(name)


def test_line_11_an_unknown_microvm_is_not_found(raw):
    calls = [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/suspend", None),
        ("POST", "/resume", None),
        ("POST", "/auth-token", {"expirationInMinutes": 5, "allowedPorts": [{"port": 80}]}),
        ("POST", "/shell-auth-token", {"expirationInMinutes": 61}),
    ]
    for identifier in ("microvm-none", str(uuid.uuid4())):
        for method, rest, body in calls:
            answer = raw(method, f"/2025-09-09/microvms/{identifier}{rest}", body)
            assert (answer.status, answer.kind) == (404, "ResourceNotFoundException"), rest
            assert answer.message == f"MicroVM not found: {identifier}"


def test_line_12_an_unknown_image_is_named_as_on_its_route(hearth, raw):
    arn = hearth.arn("no-such-image")
    for method, target in [("GET", f"{IMAGES}/{arn}"), ("DELETE", f"{IMAGES}/{arn}"), ("GET", f"/2017-03-31/tags/{arn}")]:
        answer = raw(method, target)
        assert (answer.status, answer.message) == (404, f"MicroVMImage not found for MicroVMImageID: {arn}")
    for method, rest, body in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PATCH", "", {"status": "ACTIVE"}),
        ("GET", "/builds", None),
        ("GET", "/builds/none", None),
    ]:
        answer = raw(method, f"{IMAGES}/{arn}/versions/7.0{rest}", body)
        assert (answer.status, answer.message) == (404, f"MicroVMImage not found for MicroVMImage: {arn}, Version: 7.0")
    answer = raw("PUT", f"{IMAGES}/{arn}", {key: value for key, value in create_body(hearth, "x").items() if key != "name"})
    assert answer.status == 404


def test_line_13_what_is_not_the_callers_is_denied(hearth, raw):
    own = hearth.arn("demo")
    foreign = own.replace(hearth.account(), "999999999999")
    for arn in (foreign, own.replace(":lambda:", ":lambda-x:"), own.replace("microvm-image:", "microvm-image%2F")):
        answer = raw("GET", f"{IMAGES}/{arn}")
        assert (answer.status, answer.kind, set(answer.json)) == (403, "AccessDeniedException", {"Message"}), arn
    answer = raw("POST", "/2025-09-09/microvms", {"imageIdentifier": foreign})
    assert (answer.status, answer.kind) == (403, "AccessDeniedException")
    answer = raw("GET", f"{IMAGES}/demo")
    assert (answer.status, answer.message) == (400, "Invalid ARN format: demo")


def test_line_14_the_managed_image_belongs_to_aws(raw, hearth):
    items = raw("GET", "/2025-09-09/managed-microvm-images").json["items"]
    assert [item["imageArn"] for item in items] == [f"arn:aws:lambda:{hearth.settings['region']}:aws:microvm-image:al2023-1"]
    assert set(items[0]) == {"imageArn", "createdAt", "updatedAt"}


def test_line_15_managed_versions_are_bare_integers_newest_first(hearth, raw):
    target = f"/2025-09-09/managed-microvm-images/{hearth.base_arn()}/versions"
    items = raw("GET", target).json["items"]
    assert [(item["imageVersion"], item["status"]) for item in items] == [("1", "AVAILABLE"), ("0", "AVAILABLE")]
    assert all(item["supportedCpuConfigurations"] == [{"architecture": "X86_64"}] for item in items)
    first = raw("GET", f"{target}?maxResults=1").json
    second = raw("GET", f"{target}?maxResults=1&nextToken={first['nextToken']}").json
    assert first["items"] + second["items"] == items and second["nextToken"] is None


def test_line_16_an_unknown_base_version_makes_no_image(hearth, raw):
    answer = raw("POST", IMAGES, create_body(hearth, "no-base", baseImageVersion="999"))
    text = f"No managed MicroVM Image with arn {hearth.base_arn()} and version 999 is available"
    assert (answer.status, answer.message) == (400, text)
    assert not hearth.image_exists("no-base")


def test_both_spellings_of_a_base_version_are_taken(hearth, raw):
    for given, echoed in [("0", "0.0"), ("1", "1.0"), ("1.0", "1.0"), (None, "1.0")]:
        answer = raw("POST", IMAGES, create_body(hearth, "spelling", baseImageVersion=given))
        assert (answer.status, answer.json["baseImageVersion"]) == (201, echoed)
        hearth.await_image("spelling")
        hearth.delete_image("spelling")


def test_bodies_that_cannot_be_read_are_refused_and_change_nothing(hearth, raw):
    good = json.dumps(create_body(hearth, "unreadable"))
    deep = good[:-1] + ', "deep": ' + "[" * 100_000 + "]" * 100_000 + "}"
    bodies = [
        (b"{", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (good.encode() + b"}", 400),
        (good.encode()[:-1] + b', "name": "again"}', 400),
        (good.encode()[:-1] + b', "description": "\xff"}', 400),
        (good.encode()[:-1] + b', "description": "\\ud800"}', 400),
        (good.encode()[:-1] + b', "description": 7}', 400),
        (good.encode()[:-1] + b', "hooks": []}', 400),
        (good.encode()[:-1] + b', "resources": {}}', 400),
        (good.encode()[:-1] + b', "logging": {"disabled": {}, "cloudWatch": {}}}', 400),
        (good.encode()[:-1] + b', "logging": {}}', 400),
        (deep.encode(), 400),
        (good.encode()[:-1] + b', "description": "' + b"x" * (2 << 20) + b'"}', 413),
    ]
    for body, status in bodies:
        answer = raw("POST", IMAGES, body)
        assert answer.status == status, body[:200]
        assert answer.kind in ("SerializationException", "RequestEntityTooLargeException")
        assert "panick" not in answer.body.decode() and "src/" not in answer.body.decode()
    assert not hearth.image_exists("unreadable")


def test_a_union_of_the_wrong_form_is_a_deserialization_error(raw):
    body = {"expirationInMinutes": 5, "allowedPorts": [{"allPorts": True}]}
    answer = raw("POST", "/2025-09-09/microvms/microvm-x/auth-token", body)
    assert (answer.status, answer.json) == (400, {"Message": "Expected null"})


def test_signatures_of_another_time_key_service_or_region_are_refused(raw):
    now = datetime.datetime.now(datetime.timezone.utc)
    refused = [
        (dict(when=now - datetime.timedelta(minutes=16)), "InvalidSignatureException"),
        (dict(when=now + datetime.timedelta(minutes=16)), "InvalidSignatureException"),
        (dict(secret="x" * 40), "InvalidSignatureException"),
        (dict(key="AKIAIOSFODNN7EXAMPLE"), "UnrecognizedClientException"),
        (dict(service="dynamodb"), "InvalidSignatureException"),
        (dict(region="EU WEST"), "InvalidSignatureException"),
    ]
    for signing, kind in refused:
        answer = raw("GET", IMAGES, **signing)
        assert (answer.status, answer.kind) == (403, kind), signing
    assert raw("GET", IMAGES, when=now - datetime.timedelta(minutes=14)).status == 200
    headers = raw.signed("GET", IMAGES, region="eu-west-1")
    moved = headers["Authorization"].replace("eu-west-1", "eu-west-2")
    assert raw.send("GET", IMAGES, headers={**headers, "Authorization": moved}).status == 403
    assert raw.send("GET", IMAGES).kind == "MissingAuthenticationTokenException"
    for header in ("Bearer x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b/c", "Basic eDp5"):
        assert raw.send("GET", IMAGES, headers={"Authorization": header}).status == 403


def test_a_replayed_creation_makes_one_image_and_answers_the_same(hearth, raw):
    body = json.dumps(create_body(hearth, "replayed", clientToken="replay")).encode()
    headers = raw.signed("POST", IMAGES, body)
    first, again = (raw.send("POST", IMAGES, body, headers) for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    hearth.await_image("replayed")
    versions = hearth.client().list_microvm_image_versions(imageIdentifier=hearth.arn("replayed"))["items"]
    assert len(versions) == 1
    hearth.delete_image("replayed")


def test_what_is_no_operation_is_unknown(raw):
    for method, target in [
        ("GET", "/"),
        ("POST", "/2025-09-09/microvms/"),
        ("POST", "/2025-09-09/microvms/a/b"),
        ("PATCH", "/2025-09-09/microvms/microvm-x"),
        ("GET", "/2015-03-31/functions"),
        ("OPTIONS", IMAGES),
    ]:
        answer = raw(method, target)
        assert (answer.status, answer.kind) == (404, "UnknownOperationException"), target


def test_identifiers_of_every_wrong_shape_are_refused(hearth, raw):
    account = hearth.account()
    wrong = [
        "demo", "arn", "arn:", "arn:aws", "arn:aws:lambda", "arn:aws:lambda:us-east-1", f"arn:aws:lambda:us-east-1:{account}",
        f"arn:aws:lambda:us-east-1:{account}:", f"arn:aws:lambda:us-east-1:{account}:microvm-image",
        f"arn:aws:lambda:us-east-1:{account}:microvm-image:", f"arn:aws:lambda:us-east-1:{account}:function:demo",
        f"arn:aws:lambda:us-east-1:{account}:microvm-image:demo:1.0", f"arn:aws:lambda::{account}:microvm-image:demo",
        "arn:aws:lambda:us-east-1:1:microvm-image:demo", "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1",
        f"arn::lambda:us-east-1:{account}:microvm-image:demo", f"ARN:aws:lambda:us-east-1:{account}:microvm-image:demo",
        f"arn:aws:lambda:us-east-1:{account}:microvm-image:d%20mo", "%00", "%F0%9F%90%88", "..%2F..%2Fetc", "a" * 257,
    ]
    for identifier in wrong:
        answer = raw("GET", f"{IMAGES}/{identifier}")
        assert answer.status in (400, 403), (identifier, answer)
        assert answer.kind in ("ValidationException", "AccessDeniedException")


def test_a_customer_managed_key_is_refused_since_nothing_is_encrypted_with_it(hearth, raw):
    answer = raw("POST", IMAGES, create_body(hearth, "keyed", kmsKeyIdentifier="alias/mine"))
    assert answer.status == 400 and "alias/mine" in answer.message
    assert not hearth.image_exists("keyed")


def test_state_is_as_before_when_the_daemon_is_killed_after_an_answer(hearth, raw, failed):
    tags = f"/2017-03-31/tags/{hearth.arn(failed)}"
    assert raw("POST", tags, {"Tags": {"kept": "yes"}}).status == 204
    before = raw("GET", f"{IMAGES}/{hearth.arn(failed)}").json
    hearth.kill()
    hearth.start()
    raw.close()
    assert raw("GET", f"{IMAGES}/{hearth.arn(failed)}").json == before
    assert wait_for("tags", lambda: raw("GET", tags).json) == {"Tags": {"kept": "yes"}}
