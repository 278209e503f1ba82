"""Checklist lines 17 to 26, 38, 40, 41, 44 to 47 and 106 as far as they need no MicroVM: images whose artifact is missing
fail at once and have every state, version, build and tag there is."""

import json
import subprocess

import pytest

from support import wait_for

IMAGES = "/2025-09-09/microvm-images"
NOWHERE = "s3://no-such-bucket/app.zip"
SPECIFICATION = [
    "baseImageArn", "baseImageVersion", "buildRoleArn", "codeArtifact", "description", "logging", "egressNetworkConnectors",
    "cpuConfigurations", "resources", "additionalOsCapabilities", "hooks", "environmentVariables", "kmsKeyIdentifier",
]
IMAGE = ["imageArn", "name", "state", "createdAt", "latestActiveImageVersion", "latestFailedImageVersion", "id"]


def body(hearth, **more):
    return {"baseImageArn": hearth.base_arn(), "buildRoleArn": hearth.role(), "codeArtifact": {"uri": NOWHERE}, **more}


def made(hearth, raw, name, **more):
    answer = raw("POST", IMAGES, body(hearth, name=name, **more))
    assert answer.status == 201, answer
    return answer.json


@pytest.fixture
def failed(hearth, raw):
    """An image that failed."""
    made(hearth, raw, "failed", tags={"team": "a"})
    hearth.await_image("failed")
    yield "failed"
    if hearth.image_exists("failed"):
        hearth.await_image("failed")
        hearth.delete_image("failed")


def test_line_17_a_created_image_shows_its_defaults_and_nulls(hearth, raw):
    image = made(hearth, raw, "fresh")
    assert list(sorted(image)) == sorted(
        [*IMAGE, *SPECIFICATION, "updatedAt", "tags", "imageVersion", "buildPhaseOverrides", "roleConfiguration"]
    )
    assert (image["state"], image["imageVersion"]) == ("CREATING", "1.0")
    assert image["latestActiveImageVersion"] is None and image["tags"] is None
    assert image["resources"] == [{"minimumMemoryInMiB": 2048}]
    region = hearth.settings["region"]
    managed = f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:INTERNET_EGRESS"
    assert image["egressNetworkConnectors"] == [managed]
    assert image["baseImageVersion"] == "1.0"
    for member in ("cpuConfigurations", "hooks", "logging", "environmentVariables", "additionalOsCapabilities", "description"):
        assert image[member] is None
    settled = hearth.await_image("fresh")
    assert settled["state"] == "CREATE_FAILED" and settled["tags"] == {}
    got = raw("GET", f"{IMAGES}/{hearth.arn('fresh')}").json
    assert sorted(got) == sorted([*IMAGE, "updatedAt", "tags"])
    listed = raw("GET", f"{IMAGES}?nameFilter=fres").json["items"]
    assert [sorted(item) for item in listed] == [sorted(IMAGE)]
    version = raw("GET", f"{IMAGES}/{hearth.arn('fresh')}/versions/1.0").json
    assert sorted(version) == sorted(
        [*SPECIFICATION, "imageArn", "imageVersion", "state", "status", "createdAt", "updatedAt", "stateReason", "tags",
         "versionStateTimeBucket"]
    )
    assert version["versionStateTimeBucket"].startswith("FAILED#")
    hearth.delete_image("fresh")


def test_line_18_a_name_is_taken_also_while_its_image_is_being_deleted(hearth, raw, failed):
    text = "A MicroVM image with the name 'failed' already exists in this account"
    again = raw("POST", IMAGES, body(hearth, name="failed"))
    assert (again.status, again.kind, again.message) == (400, "ValidationException", text)
    # So many files that their removal takes longer than the next requests.
    target = f"{IMAGES}/{hearth.arn(failed)}"
    crowd = hearth.data / "images" / raw("GET", target).json["id"] / "crowd"
    crowd.mkdir()
    for number in range(60_000):
        (crowd / str(number)).touch()
    deleted = raw("DELETE", target)
    assert (deleted.status, deleted.json) == (200, {"imageIdentifier": hearth.arn(failed), "state": "DELETING"})
    assert raw("GET", target).json["state"] == "DELETING"
    again = raw("POST", IMAGES, body(hearth, name="failed"))
    assert (again.status, again.message) == (400, text)
    twice = raw("DELETE", target)
    assert twice.message == "Cannot delete MicroVM image in its current state: DELETING"
    wait_for("the image's end", lambda: not hearth.image_exists(failed))


def test_a_deletion_that_fails_is_shown_and_can_be_asked_for_again(hearth, raw, failed):
    identity = raw("GET", f"{IMAGES}/{hearth.arn(failed)}").json["id"]
    stubborn = hearth.data / "images" / identity / "mounted"
    stubborn.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", stubborn], check=True)
    try:
        raw("DELETE", f"{IMAGES}/{hearth.arn(failed)}")
        assert hearth.await_image(failed)["state"] == "DELETE_FAILED"
        assert raw("POST", IMAGES, body(hearth, name=failed)).status == 400
        assert raw("PUT", f"{IMAGES}/{hearth.arn(failed)}", body(hearth)).status == 409
    finally:
        mounts = [line.split()[1] for line in open("/proc/mounts") if identity in line]
        subprocess.run(["umount", *mounts], check=True)
    hearth.delete_image(failed)


def test_line_19_a_client_token_replays_its_own_request_and_refuses_another(hearth, raw):
    request = body(hearth, name="tokened", clientToken="t-1", environmentVariables={"A": "1"})
    first, again = (raw("POST", IMAGES, request) for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    other = raw("POST", IMAGES, {**request, "environmentVariables": {"A": "2"}})
    assert (other.status, other.kind) == (409, "ConflictException")
    assert set(other.json) == {"message", "resourceId", "resourceType"}
    assert raw("POST", IMAGES, {**request, "name": "tokened-2"}).status == 409
    hearth.await_image("tokened")
    update = body(hearth, clientToken="u-1")
    first, again = (raw("PUT", f"{IMAGES}/{hearth.arn('tokened')}", update) for _ in range(2))
    assert (first.status, first.json["imageVersion"], again.json["imageVersion"]) == (200, "2.0", "2.0")
    assert raw("PUT", f"{IMAGES}/{hearth.arn('tokened')}", {**update, "description": "x"}).status == 409
    hearth.await_image("tokened")
    hearth.kill()
    hearth.start()
    raw.close()
    assert raw("PUT", f"{IMAGES}/{hearth.arn('tokened')}", update).json["imageVersion"] == "2.0"
    versions = raw("GET", f"{IMAGES}/{hearth.arn('tokened')}/versions").json["items"]
    assert [version["imageVersion"] for version in versions] == ["2.0", "1.0"]
    hearth.delete_image("tokened")
    reborn = raw("POST", IMAGES, request)
    assert reborn.status == 201 and reborn.json["id"] != first.json["id"], "a token is gone with its image"
    hearth.await_image("tokened")
    hearth.delete_image("tokened")


def test_line_20_other_memory_sizes_are_refused(hearth, raw):
    answer = raw("POST", IMAGES, body(hearth, name="sized", resources=[{"minimumMemoryInMiB": 3000}]))
    assert (answer.status, answer.message) == (
        400,
        f"The requested memory size of 3000 MiB is not supported by base MicroVM image {hearth.base_arn()}. "
        "Supported memory sizes in MiB are: [512, 1024, 2048, 4096, 8192].",
    )


def test_line_21_every_size_is_accepted(hearth, raw):
    for size in (512, 1024, 2048, 4096, 8192):
        image = made(hearth, raw, f"size-{size}", resources=[{"minimumMemoryInMiB": size}])
        assert image["resources"] == [{"minimumMemoryInMiB": size}]
        hearth.await_image(f"size-{size}")
        hearth.delete_image(f"size-{size}")


def test_line_22_runtime_hooks_need_ready(hearth, raw):
    for hook in ("run", "resume", "suspend", "terminate"):
        hooks = {"port": 9000, "microvmHooks": {hook: "ENABLED"}}
        answer = raw("POST", IMAGES, body(hearth, name="hooked", hooks=hooks))
        assert answer.status == 400
        assert answer.message.startswith(
            "The ready (/ready) MicroVM image hook must be enabled when any MicroVM lifecycle hook "
            "(run, resume, suspend, or terminate) is enabled."
        )
    hooks = {"port": 9000, "microvmHooks": {"run": "ENABLED"}, "microvmImageHooks": {"ready": "ENABLED"}}
    echoed = made(hearth, raw, "hooked", hooks=hooks)["hooks"]
    assert echoed["microvmImageHooks"]["readyTimeoutInSeconds"] == 60
    assert echoed["microvmHooks"]["runTimeoutInSeconds"] == 1
    hearth.await_image("hooked")
    hearth.delete_image("hooked")


def test_line_23_artifacts_are_in_s3(hearth, raw):
    for uri in ("https://bucket/app.zip", "s3://bucket", "s3://bucket/", "bucket/app.zip", "S3://bucket/key"):
        answer = raw("POST", IMAGES, body(hearth, name="elsewhere", codeArtifact={"uri": uri}))
        assert (answer.status, answer.message) == (
            400,
            "CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>",
        )


def test_line_25_missing_artifacts_fail_with_different_reasons(hearth, raw):
    hearth.upload("something", b"x")
    reasons = {}
    for name, uri in [("no-key", "s3://test-artifacts/none.zip"), ("no-bucket", "s3://none-such/x.zip")]:
        made(hearth, raw, name, codeArtifact={"uri": uri})
        hearth.await_image(name)
        build = hearth.build_of(name)
        assert build["buildState"] == "FAILED"
        reasons[name] = build["stateReason"].split(":")[0]
        hearth.delete_image(name)
    assert reasons == {"no-key": "S3_NO_SUCH_KEY", "no-bucket": "S3_NO_SUCH_BUCKET"}


def test_line_28_a_version_has_a_build_for_each_generation(hearth, raw, failed):
    target = f"{IMAGES}/{hearth.arn(failed)}/versions/1.0/builds"
    builds = raw("GET", target).json["items"]
    assert [(b["architecture"], b["chipset"], b["chipsetGeneration"]) for b in builds] == [("X86_64", "INTEL", "1")]
    for query, count in [
        ("architecture=X86_64", 1), ("architecture=ARM_64", 0), ("chipset=INTEL", 1), ("chipset=GRAVITON", 0),
        ("chipsetGeneration=1", 1), ("chipsetGeneration=4", 0),
    ]:
        assert len(raw("GET", f"{target}?{query}").json["items"]) == count, query
    assert raw("GET", f"{target}?chipset=AMD").status == 400
    build = raw("GET", f"{target}/{builds[0]['buildId']}").json
    assert {**builds[0], "snapshotBuild": None} == build
    missing = raw("GET", f"{target}/none")
    assert (missing.status, missing.kind) == (404, "ResourceNotFoundException")


def test_several_generations_and_base_versions_come_from_the_settings(hearth, raw):
    settings = hearth.data / "hearthd.toml"
    before = settings.read_text()
    more = (
        'chipset_generations = ["4", "3"]\n'
        'base_versions = [{ version = "2", status = "EXPIRING" }, { version = "1", status = "DEPRECATED" }, '
        '{ version = "0", status = "RECALLED" }]\n'
    )
    hearth.stop()
    settings.write_text(more + before)
    try:
        hearth.start()
        raw.close()
        versions = raw("GET", f"/2025-09-09/managed-microvm-images/{hearth.base_arn()}/versions").json["items"]
        assert [(version["imageVersion"], version["status"]) for version in versions] == [
            ("2", "EXPIRING"), ("1", "DEPRECATED"), ("0", "RECALLED")
        ]
        assert made(hearth, raw, "generations")["baseImageVersion"] == "1.0", "the newest that builds"
        hearth.await_image("generations")
        target = f"{IMAGES}/{hearth.arn('generations')}/versions/1.0/builds"
        builds = raw("GET", target).json["items"]
        assert [build["chipsetGeneration"] for build in builds] == ["4", "3"]
        assert {build["buildState"] for build in builds} == {"FAILED"}
        first = raw("GET", f"{target}?maxResults=1").json
        second = raw("GET", f"{target}?maxResults=1&nextToken={first['nextToken']}").json
        assert first["items"] + second["items"] == builds and second["nextToken"] is None
        only = raw("GET", f"{target}?chipsetGeneration=3").json["items"]
        assert [build["buildId"] for build in only] == [builds[1]["buildId"]]
        for version in ("2", "0"):
            answer = raw("POST", IMAGES, body(hearth, name="late", baseImageVersion=version))
            assert answer.status == 400 and f"version {version} is available" in answer.message
        hearth.delete_image("generations")
    finally:
        hearth.stop()
        settings.write_text(before)
        hearth.start()
        raw.close()


def test_line_36_the_region_variable_is_reserved(hearth, raw):
    answer = raw("POST", IMAGES, body(hearth, name="reserved", environmentVariables={"AWS_REGION": "x"}))
    assert answer.status == 400 and "AWS_REGION" in answer.message


def test_line_38_an_update_replaces_everything(hearth, raw, failed):
    target = f"{IMAGES}/{hearth.arn(failed)}"
    rich = body(hearth, description="d", environmentVariables={"A": "1"}, resources=[{"minimumMemoryInMiB": 512}])
    answer = raw("PUT", target, rich)
    assert answer.status == 200
    assert sorted(answer.json) == sorted(
        [*IMAGE, *SPECIFICATION, "updatedAt", "imageVersion", "buildPhaseOverrides", "roleConfiguration"]
    )
    assert (answer.json["state"], answer.json["imageVersion"]) == ("UPDATING", "2.0")
    assert hearth.await_image(failed)["state"] == "UPDATE_FAILED"
    bare = raw("PUT", target, body(hearth)).json
    assert bare["description"] is None and bare["environmentVariables"] is None
    assert bare["resources"] == [{"minimumMemoryInMiB": 2048}]
    settled = hearth.await_image(failed)
    assert settled["latestFailedImageVersion"] == "3.0"
    assert settled["tags"] == {"team": "a"}, "an update changes neither name nor tags"


def test_line_40_an_update_needs_its_role(hearth, raw, failed):
    request = {key: value for key, value in body(hearth).items() if key != "buildRoleArn"}
    answer = raw("PUT", f"{IMAGES}/{hearth.arn(failed)}", request)
    assert (answer.status, answer.message) == (
        400,
        "1 validation error detected: Value null at 'buildRoleArn' failed to satisfy constraint: Member must not be null",
    )


def test_line_45_versions_can_be_deleted_but_not_the_last(hearth, raw, failed):
    target = f"{IMAGES}/{hearth.arn(failed)}"
    last = raw("DELETE", f"{target}/versions/1.0")
    assert (last.status, last.message) == (400, "This is the last version. Please delete the entire image")
    raw("PUT", target, body(hearth))
    hearth.await_image(failed)
    answer = raw("DELETE", f"{target}/versions/1.0")
    assert answer.json == {"imageIdentifier": hearth.arn(failed), "imageVersion": "1.0", "state": "DELETING"}
    gone = raw("GET", f"{target}/versions/1.0")
    assert gone.status == 404
    assert raw("DELETE", f"{target}/versions/2.0").status == 400
    raw("PUT", target, body(hearth))
    hearth.await_image(failed)
    versions = raw("GET", f"{target}/versions").json["items"]
    assert [version["imageVersion"] for version in versions] == ["3.0", "2.0"], "numbers are never used again"
    latest_failed = lambda: raw("GET", target).json["latestFailedImageVersion"]
    assert latest_failed() == "3.0"
    assert raw("DELETE", f"{target}/versions/3.0").status == 200
    assert latest_failed() == "2.0"


def test_line_46_a_deleted_image_is_gone(hearth, raw, failed):
    hearth.delete_image(failed)
    for method, rest in [("GET", ""), ("DELETE", ""), ("GET", "/versions")]:
        assert raw(method, f"{IMAGES}/{hearth.arn(failed)}{rest}").status == 404
    assert raw("GET", f"{IMAGES}?nameFilter=failed").json == {"items": [], "nextToken": None}


def test_line_106_tags_merge_and_go_and_microvms_have_none(hearth, raw, failed):
    target = f"/2017-03-31/tags/{hearth.arn(failed)}"
    assert raw("GET", target).json == {"Tags": {"team": "a"}}
    for _ in range(2):
        answer = raw("POST", target, {"Tags": {"stage": "test", "team": "b"}})
        assert (answer.status, answer.body) == (204, b"")
    assert raw("GET", target).json == {"Tags": {"team": "b", "stage": "test"}}
    assert raw("GET", f"{IMAGES}/{hearth.arn(failed)}").json["tags"] == {"team": "b", "stage": "test"}
    for _ in range(2):
        answer = raw("DELETE", f"{target}?tagKeys=team&tagKeys=stage&tagKeys=never")
        assert (answer.status, answer.body) == (204, b"")
    assert raw("GET", target).json == {"Tags": {}}
    assert raw("DELETE", target).status == 400, "no keys named"
    microvm = hearth.arn("x").replace("microvm-image:x", "microvm:microvm-1")
    assert raw("GET", f"/2017-03-31/tags/{microvm}").status == 400
    assert raw("POST", "/2017-03-31/tags/microvm-1", {"Tags": {}}).status == 400
    missing = raw("POST", f"/2017-03-31/tags/{hearth.arn('none')}", {"Tags": {"a": "b"}})
    assert (missing.status, missing.message) == (404, f"MicroVMImage not found for MicroVMImageID: {hearth.arn('none')}")


def test_images_are_newest_first_and_filtered_by_a_part_of_their_name(hearth, raw):
    for name in ("one-alpha", "two-alpha", "three-beta"):
        made(hearth, raw, name)
    named = lambda query: [item["name"] for item in raw("GET", f"{IMAGES}?{query}").json["items"]]
    assert named("nameFilter=alpha") == ["two-alpha", "one-alpha"]
    assert named("nameFilter=e-b") == ["three-beta"]
    assert named("nameFilter=ALPHA") == []
    for name in ("one-alpha", "two-alpha", "three-beta"):
        hearth.await_image(name)
        hearth.delete_image(name)


def test_a_failed_version_cannot_be_made_active(hearth, raw, failed):
    target = f"{IMAGES}/{hearth.arn(failed)}/versions/1.0"
    assert raw("PATCH", target, {"status": "ACTIVE"}).status == 400
    assert raw("PATCH", target, {"status": "BROKEN"}).status == 400
    assert raw("PATCH", target, {}).status == 400
    run = raw("POST", "/2025-09-09/microvms", {"imageIdentifier": hearth.arn(failed)})
    assert (run.status, run.message) == (404, f"No active version found for MicroVM image {hearth.arn(failed)}")
    run = raw("POST", "/2025-09-09/microvms", {"imageIdentifier": hearth.arn(failed), "imageVersion": "1.0"})
    assert run.message == f"No active version found for MicroVM image {hearth.arn(failed)} and version 1.0"


def test_secrets_of_a_request_are_never_told_again_in_errors(hearth, raw):
    secret = "s3cr3t" * 1000
    answer = raw("POST", IMAGES, body(hearth, name="secretive", environmentVariables={"KEY": secret}))
    assert answer.status == 400 and "s3cr3t" not in answer.body.decode()
    assert json.loads(answer.body)["message"].startswith("1 validation error detected: Value at 'environmentVariables'")
