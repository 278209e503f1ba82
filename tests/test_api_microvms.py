"""Checklist lines 24 to 73, 97 and 105 on real MicroVMs, all of one image that tells what was done to it."""

import io
import json
import os
import pathlib
import random
import re
import time
import uuid
import zipfile

import pytest

import model
from support import WAKES, wait_for

IMAGES = "/2025-09-09/microvm-images"
MICROVMS = "/2025-09-09/microvms"
HOOKS = "/aws/lambda-microvms/runtime/v1/"
NOWHERE = "s3://no-such-bucket/app.zip"
APPLICATION = pathlib.Path(__file__).parent / "apps/contract"
RUN_HOOK_SECONDS = 20
ENVIRONMENT = {"COLOUR": "green", "EMPTY": ""}


def archive(directory):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in directory.iterdir():
            packed.write(path, path.name)
    return buffer.getvalue()


def hooks(run=True, ready_seconds=60):
    chosen = {"port": 9000, "microvmImageHooks": {"ready": "ENABLED", "readyTimeoutInSeconds": ready_seconds}}
    if run:
        chosen["microvmImageHooks"] |= {"validate": "ENABLED", "validateTimeoutInSeconds": 60}
        chosen["microvmHooks"] = {"run": "ENABLED", "runTimeoutInSeconds": RUN_HOOK_SECONDS}
    return chosen


def update(hearth, name, uri, **more):
    return hearth.client().update_microvm_image(
        imageIdentifier=hearth.arn(name), baseImageArn=hearth.base_arn(), buildRoleArn=hearth.role(),
        codeArtifact={"uri": uri}, **{"resources": [{"minimumMemoryInMiB": 512}], **more},
    )


@pytest.fixture(scope="module")
def artifact(hearth):
    return hearth.upload("contract.zip", archive(APPLICATION))


@pytest.fixture(scope="module")
def echo(outside):
    """Address of an echo server on the guests' Internet."""
    code = (
        "import socketserver\n"
        "class Echo(socketserver.BaseRequestHandler):\n"
        "    def handle(self):\n"
        "        while data := self.request.recv(100):\n"
        "            self.request.sendall(data)\n"
        "server = socketserver.ThreadingTCPServer(('', 7007), Echo)\n"
        "print('listening')\n"
        "server.serve_forever()\n"
    )
    with outside.serving(code):
        yield f"{outside.address}:7007"


@pytest.fixture(scope="module")
def contract(hearth, raw, artifact, echo):
    """The image, built with every build hook, and what was seen while it was being built."""
    environment = {**ENVIRONMENT, "OUTSIDE": echo}
    request = dict(hooks=hooks(), environmentVariables=environment, clientToken="contract")
    seen = {"created": hearth.create_image("contract", artifact, **request)}
    target = f"{IMAGES}/{hearth.arn('contract')}"
    seen["deleted while building"] = raw("DELETE", target)
    seen["changed while building"] = raw("PATCH", f"{target}/versions/1.0", {"status": "INACTIVE"})
    seen["replayed"] = hearth.create_image("contract", artifact, **request)
    image = hearth.await_image("contract", seconds=600)
    assert image["state"] == "CREATED", hearth.build_of("contract")
    return seen


@pytest.fixture(scope="module")
def shown(hearth, contract):
    """A MicroVM that only tells; tests may suspend and resume it."""
    vm = hearth.run("contract", idlePolicy=WAKES, runHookPayload="hello")
    yield vm
    vm.terminate()


def facts(vm):
    status, _, body = vm.request()
    assert status == 200, (status, body)
    return json.loads(body)


def run(hearth, raw, **more):
    return raw("POST", MICROVMS, {"imageIdentifier": hearth.arn("contract"), **more})


def test_line_24_an_archive_without_a_dockerfile_fails_with_its_reason(hearth):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("app/Dockerfile", "FROM scratch")
    hearth.create_image("no-root-dockerfile", hearth.upload("no-root.zip", buffer.getvalue()))
    assert hearth.await_image("no-root-dockerfile")["state"] == "CREATE_FAILED"
    assert "ARCHIVE_DOCKERFILE_NOT_FOUND" in hearth.build_of("no-root-dockerfile")["stateReason"]
    hearth.delete_image("no-root-dockerfile")


def test_line_26_a_failing_step_fails_the_build_and_says_so_on_the_build_alone(hearth, raw):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("Dockerfile", 'FROM debian:13\nRUN exit 7\nCMD ["true"]\n')
    hearth.create_image("failing-step", hearth.upload("failing.zip", buffer.getvalue()))
    image = hearth.await_image("failing-step")
    assert (image["state"], image["latestFailedImageVersion"]) == ("CREATE_FAILED", "1.0")
    target = f"{IMAGES}/{hearth.arn('failing-step')}/versions/1.0"
    version = raw("GET", target).json
    assert (version["state"], version["status"], version["stateReason"]) == ("FAILED", "INACTIVE", None)
    build_id = raw("GET", f"{target}/builds").json["items"][0]["buildId"]
    build = raw("GET", f"{target}/builds/{build_id}").json
    assert build["snapshotBuild"] is None
    assert "The container image build failed." in build["stateReason"]
    hearth.delete_image("failing-step")


def test_line_19_a_replayed_creation_starts_no_second_build(hearth, raw, contract):
    assert contract["replayed"]["imageArn"] == contract["created"]["imageArn"]
    versions = raw("GET", f"{IMAGES}/{hearth.arn('contract')}/versions").json["items"]
    assert [version["imageVersion"] for version in versions] == ["1.0"]


def test_line_47_an_image_that_is_being_built_stays(contract):
    refused = contract["deleted while building"]
    assert (refused.status, refused.kind) == (400, "ValidationException")
    assert refused.message == "Cannot delete MicroVM image in its current state: CREATING"
    assert contract["changed while building"].status == 409


def test_line_27_build_output_is_in_the_image_group(hearth, contract):
    text = hearth.log_of("contract")
    assert "the application starts" in text
    assert "STEP" in text or "COPY" in text, text[:2000]
    streams = hearth.client("logs").describe_log_streams(logGroupName="/aws/lambda-microvms/contract")["logStreams"]
    assert any("[0.0]" in stream["logStreamName"] for stream in streams)
    assert any("[1.0]" in stream["logStreamName"] for stream in streams)


def test_line_29_a_build_that_succeeded_has_three_sizes(hearth, contract):
    build = hearth.build_of("contract")
    assert build["buildState"] == "SUCCESSFUL"
    sizes = build["snapshotBuild"]
    assert set(sizes) == {"memorySnapshotSizeInBytes", "codeInstallSizeInBytes", "diskSnapshotSizeInBytes"}
    assert all(size > 0 for size in sizes.values()), sizes


def test_line_30_stages_environment_directory_and_command_arrive(shown):
    told = facts(shown)
    assert told["word"] == "from the first stage"
    assert told["environment"]["GREETING"] == "hello from the Dockerfile"
    assert told["directory"] == "/srv/app"


def test_line_31_ready_is_asked_until_it_answers_200(shown):
    ready = [call for call in facts(shown)["calls"] if call["path"] == HOOKS + "ready"]
    assert len(ready) == 4
    assert all((call["method"], call["body"]) == ("POST", "") for call in ready)


def test_line_34_validation_leaves_nothing_behind(shown):
    told = facts(shown)
    assert not told["validated"]
    assert not any(call["path"] == HOOKS + "validate" for call in told["calls"])


def test_line_35_and_61_microvms_share_what_was_before_the_snapshot_but_no_randomness(hearth, shown):
    other = hearth.run("contract")
    one, two = facts(shown), facts(other)
    assert one["identity"] == two["identity"]
    assert one["random"] != two["random"]
    other.terminate()


def test_line_36_and_37_the_environment_is_the_requests_and_the_platforms(hearth, shown):
    environment = facts(shown)["environment"]
    assert {key: environment[key] for key in ENVIRONMENT} == ENVIRONMENT
    assert environment["AWS_LAMBDA_MICROVM_IMAGE_NAME"] == "contract"
    assert environment["AWS_LAMBDA_MICROVM_IMAGE_ARN"] == hearth.arn("contract")
    assert environment["AWS_LAMBDA_MICROVM_IMAGE_VERSION"] == "1.0"
    assert environment["AWS_REGION"] == hearth.settings["region"]
    assert not [key for key in environment if "SECRET" in key or "ACCESS_KEY" in key or "TOKEN" in key]


def test_line_21_the_smallest_size_has_a_disk_of_8_gb(shown):
    assert 7.5e9 < facts(shown)["disk"] <= 8 << 30


def test_line_101_the_smallest_size_has_four_times_its_memory_one_processor_and_no_swap(shown):
    told = facts(shown)
    assert told["processors"] == 1
    # The kernel keeps some for itself.
    assert 1.9 * (1 << 30) < told["memory"]["MemTotal"] <= 2 << 30
    assert told["memory"]["SwapTotal"] == 0
    assert told["shared memory"] == 64 << 20


def test_line_48_49_and_50_a_minimal_launch_shows_every_default(hearth, raw, contract):
    answer = run(hearth, raw)
    assert answer.status == 200
    vm = answer.json
    prefix = f"arn:aws:lambda:{hearth.settings['region']}:aws:network-connector:aws-network-connector:"
    assert vm["state"] == "PENDING"
    assert vm["maximumDurationInSeconds"] == 28800
    assert vm["ingressNetworkConnectors"] == [prefix + "HTTP_INGRESS"]
    assert vm["egressNetworkConnectors"] == [prefix + "INTERNET_EGRESS"]
    assert vm["startedAt"] <= time.time() + 1
    unset = ("idlePolicy", "executionRoleArn", "stateReason", "terminatedAt", "terminationReasonCode", "kmsKeyIdentifier")
    assert all(vm[member] is None for member in unset)
    got = raw("GET", f"{MICROVMS}/{vm['microvmId']}").json
    members = {"microvmId", "state", "endpoint", "imageArn", "imageVersion", "maximumDurationInSeconds", "startedAt",
               "ingressNetworkConnectors", "egressNetworkConnectors", *unset}
    assert set(vm) == set(got) == members, "no logging, payload or tags"
    identity = re.fullmatch(r"microvm-([0-9a-f-]{36})", vm["microvmId"])[1]
    host = vm["endpoint"].split(":")[0]
    assert "/" not in vm["endpoint"]
    assert uuid.UUID(host.split(".")[0]) != uuid.UUID(identity)
    assert raw("DELETE", f"{MICROVMS}/{vm['microvmId']}").json == {}


def test_line_51_a_bare_name_is_a_malformed_arn(raw):
    answer = raw("POST", MICROVMS, {"imageIdentifier": "contract"})
    assert (answer.status, answer.message) == (400, "Malformed ARN - doesn't start with 'arn:'")


def test_line_52_a_payload_has_at_most_4096_characters(hearth, raw, contract):
    long = raw("POST", MICROVMS, {"imageIdentifier": "bogus", "runHookPayload": "ä" * 4097})
    assert (long.status, long.message) == (
        400,
        "1 validation error detected: Value at 'runHookPayload' failed to satisfy constraint: "
        "Member must have length less than or equal to 4096",
    )
    allowed = raw("POST", MICROVMS, {"imageIdentifier": "bogus", "runHookPayload": "ä" * 4096})
    assert allowed.message == "Malformed ARN - doesn't start with 'arn:'"
    taken = run(hearth, raw, runHookPayload="ä" * 4096)
    assert taken.status == 200
    raw("DELETE", f"{MICROVMS}/{taken.json['microvmId']}")


def test_line_54_an_idle_policy_is_whole_and_waits_a_minute(raw):
    whole = {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 0, "autoResumeEnabled": False}
    for member in whole:
        policy = {key: value for key, value in whole.items() if key != member}
        answer = raw("POST", MICROVMS, {"imageIdentifier": "x", "idlePolicy": policy})
        assert answer.status == 400 and f"Value null at 'idlePolicy.{member}'" in answer.message
    policy = {**whole, "maxIdleDurationSeconds": 59}
    answer = raw("POST", MICROVMS, {"imageIdentifier": "x", "idlePolicy": policy})
    assert "Member must have value greater than or equal to 60" in answer.message
    assert raw("POST", MICROVMS, {"imageIdentifier": "x", "idlePolicy": whole}).message.startswith("Malformed ARN")


def test_line_55_a_life_lasts_1_to_28800_seconds(raw):
    for seconds in (0, 28801):
        answer = raw("POST", MICROVMS, {"imageIdentifier": "x", "maximumDurationInSeconds": seconds})
        assert answer.status == 400 and "'maximumDurationInSeconds'" in answer.message
    for seconds in (1, 28800):
        answer = raw("POST", MICROVMS, {"imageIdentifier": "x", "maximumDurationInSeconds": seconds})
        assert answer.message.startswith("Malformed ARN")


def test_line_56_a_client_token_launches_once(hearth, raw, contract):
    first = run(hearth, raw, clientToken="once-only", runHookPayload="a").json
    again = run(hearth, raw, clientToken="once-only", runHookPayload="a").json
    assert again["microvmId"] == first["microvmId"]
    other = run(hearth, raw, clientToken="once-only", runHookPayload="b")
    assert (other.status, other.kind) == (409, "ConflictException")
    raw("DELETE", f"{MICROVMS}/{first['microvmId']}")
    wait_for("the end", lambda: raw("GET", f"{MICROVMS}/{first['microvmId']}").json["state"] == "TERMINATED")
    assert run(hearth, raw, clientToken="once-only", runHookPayload="a").json["state"] == "TERMINATED"


def test_line_57_and_60_nothing_gets_in_before_the_run_hook_has_answered(hearth, contract):
    vm = hearth.run("contract", ready=False, runHookPayload="sleep 8")
    answers = []
    while vm.state == "PENDING":
        answers.append(vm.request()[::2])
    # The last one may have come when the hook had answered.
    assert answers[0] == (502, b"") and set(answers[:-1]) <= {(502, b"")}
    vm.await_state("RUNNING")
    calls = facts(vm)["calls"]
    after_ready = [call for call in calls if call["path"] != HOOKS + "ready"]
    assert after_ready[0]["path"] == HOOKS + "run" and after_ready[0]["type"] == "application/json"
    assert json.loads(after_ready[0]["body"]) == {"microvmId": vm.id, "runHookPayload": "sleep 8"}
    before_run = calls[: calls.index(after_ready[0])]
    assert all(call["path"] == HOOKS + "ready" for call in before_run)
    vm.terminate()


def terminated(hearth, **more):
    """A MicroVM that ends by itself, and every state it was seen in."""
    vm = hearth.run("contract", ready=False, **more)
    states = []

    def over():
        states.append(vm.state)
        return states[-1] == "TERMINATED"

    wait_for("the end", over)
    return vm, states


def test_line_58_a_run_hook_that_refuses_ends_the_microvm(hearth, contract):
    vm, states = terminated(hearth, runHookPayload="status 400")
    assert "RUNNING" not in states
    assert "Run lifecycle hook returned HTTP status 400" in vm.object["stateReason"]


def test_line_59_a_run_hook_that_takes_too_long_ends_the_microvm(hearth, contract):
    vm, states = terminated(hearth, runHookPayload=f"sleep {2 * RUN_HOOK_SECONDS}")
    assert "RUNNING" not in states
    assert "timed out" in vm.object["stateReason"]


def test_line_62_connections_to_the_outside_do_not_survive_a_snapshot(hearth, contract, shown):
    assert "connected: ['loopback', 'outside']" in hearth.log_of("contract")
    other = hearth.run("contract")
    for vm in (shown, other):
        status, _, body = vm.request("POST", "/connections", body=b"")
        assert (status, json.loads(body)) == (200, {"loopback": True, "outside": False})
    other.terminate()


def test_line_65_what_is_so_already_is_no_error(raw, shown):
    target = f"{MICROVMS}/{shown.id}"
    assert (raw("POST", f"{target}/resume").json, shown.state) == ({}, "RUNNING")
    shown.suspend()
    answer = raw("POST", f"{target}/suspend")
    assert (answer.status, answer.json, shown.state) == (200, {}, "SUSPENDED")
    shown.resume()


def test_line_66_and_72_a_terminated_microvm_stays_readable_and_cannot_change(hearth, raw, contract):
    vm = hearth.run("contract").terminate()
    target = f"{MICROVMS}/{vm.id}"
    text = f"The MicroVM {vm.id} has been terminated and its state cannot be changed."
    for change in ("suspend", "resume"):
        answer = raw("POST", f"{target}/{change}")
        assert (answer.status, answer.kind, answer.message) == (400, "ValidationException", text)
    mint = raw("POST", f"{target}/auth-token", {"expirationInMinutes": 5, "allowedPorts": [{"port": 80}]})
    assert (mint.status, mint.message) == (400, text)
    again = raw("DELETE", target)
    assert (again.status, again.json) == (200, {})
    before = raw("GET", target).json
    assert (before["state"], before["stateReason"]) == ("TERMINATED", "Success.")
    assert before["terminatedAt"] >= before["startedAt"]
    hearth.kill()
    hearth.start()
    raw.close()
    assert raw("GET", target).json == before
    listed = raw("GET", f"{MICROVMS}?imageIdentifier={hearth.arn('contract')}").json["items"]
    assert vm.id in [item["microvmId"] for item in listed]


def test_line_70_an_application_that_exits_ends_its_microvm(hearth, contract):
    vm = hearth.run("contract")
    try:
        vm.request("POST", "/exit", body=b"3")
    except OSError:
        pass
    wait_for("the end", lambda: vm.state == "TERMINATED")
    assert vm.object["stateReason"] == "Container Stopped with Exit Code: 3"


def test_line_71_the_longest_life_counts_suspended_time(hearth, contract):
    vm = hearth.run("contract", maximumDurationInSeconds=60)
    vm.suspend()
    wait_for("the end", lambda: vm.state == "TERMINATED", 180)
    told = vm.object
    lived = (told["terminatedAt"] - told["startedAt"]).total_seconds()
    assert 59.5 <= lived < 90
    assert told["stateReason"] == "Success."


def test_line_73_listed_microvms_have_five_members_and_can_be_filtered(hearth, raw, shown):
    items = raw("GET", f"{MICROVMS}?imageIdentifier={hearth.arn('contract')}&imageVersion=1.0").json["items"]
    assert shown.id in [item["microvmId"] for item in items]
    assert all(set(item) == {"microvmId", "state", "imageArn", "imageVersion", "startedAt"} for item in items)
    assert all(item["imageArn"] == hearth.arn("contract") for item in items)
    started = [item["startedAt"] for item in items]
    assert started == sorted(started, reverse=True)
    for query in (f"imageIdentifier={hearth.arn('none')}", f"imageIdentifier={hearth.arn('contract')}&imageVersion=9.0"):
        assert raw("GET", f"{MICROVMS}?{query}").json == {"items": [], "nextToken": None}
    assert raw("GET", f"{MICROVMS}?imageIdentifier=contract").status == 400
    walked, token = [], ""
    while token is not None:
        page = raw("GET", f"{MICROVMS}?imageIdentifier={hearth.arn('contract')}&imageVersion=1.0&maxResults=2{token}").json
        walked += page["items"]
        token = page["nextToken"] and f"&nextToken={page['nextToken']}"
    assert [item["microvmId"] for item in walked] == [item["microvmId"] for item in items]


def test_line_97_shell_tokens_need_shell_ingress_without_all_ingress(hearth, raw, shown):
    prefix = f"arn:aws:lambda:{hearth.settings['region']}:aws:network-connector:aws-network-connector:"
    mint = lambda vm: raw("POST", f"{MICROVMS}/{vm}/shell-auth-token", {"expirationInMinutes": 5})
    refused = mint(shown.id)
    text = "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM."
    assert (refused.status, refused.message) == (400, text)
    for names, expected in [
        (["HTTP_INGRESS", "SHELL_INGRESS"], None),
        (["SHELL_INGRESS"], None),
        (
            ["ALL_INGRESS", "SHELL_INGRESS"],
            "ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or "
            "SHELL_INGRESS instead",
        ),
    ]:
        vm = run(hearth, raw, ingressNetworkConnectors=[prefix + name for name in names]).json
        assert vm["ingressNetworkConnectors"] == [prefix + name for name in names]
        answer = mint(vm["microvmId"])
        if expected is None:
            assert answer.status == 200 and list(answer.json["authToken"]) == ["X-aws-proxy-auth"]
        else:
            assert (answer.status, answer.message) == (400, expected)
        raw("DELETE", f"{MICROVMS}/{vm['microvmId']}")
    late = raw("POST", f"{MICROVMS}/{shown.id}/auth-token", {"expirationInMinutes": 61, "allowedPorts": [{"port": 1}]})
    assert (late.status, late.message) == (400, "ExpirationMinutes 61 exceeded max allowed of 60.")
    reversed_range = [{"range": {"startPort": 9, "endPort": 8}}]
    wrong = raw("POST", f"{MICROVMS}/{shown.id}/auth-token", {"expirationInMinutes": 5, "allowedPorts": reversed_range})
    assert wrong.status == 400


def test_unusable_connectors_are_refused(hearth, raw, contract):
    prefix = f"arn:aws:lambda:{hearth.settings['region']}:aws:network-connector:aws-network-connector:"
    unknown = run(hearth, raw, egressNetworkConnectors=[prefix + "NO_EGRESS"])
    assert (unknown.status, unknown.message) == (400, f"Unrecognized managed network connector ARN: {prefix}NO_EGRESS")
    bare = run(hearth, raw, ingressNetworkConnectors=["HTTP_INGRESS"])
    assert (bare.status, bare.message) == (400, "Malformed network connector ARN")
    assert run(hearth, raw, egressNetworkConnectors=[prefix + "INTERNET_EGRESS"] * 11).status == 400


def test_line_105_runtime_output_is_logged_when_logging_and_role_are_given(hearth, contract):
    names = dict(logGroup="/tests/runtime", logStream="one")
    cases = {
        "both": dict(logging={"cloudWatch": names}, executionRoleArn=hearth.role()),
        "no-role": dict(logging={"cloudWatch": {**names, "logStream": "two"}}),
        "no-logging": dict(executionRoleArn=hearth.role()),
        "disabled": dict(logging={"disabled": {}}, executionRoleArn=hearth.role()),
    }
    for word, how in cases.items():
        vm = hearth.run("contract", **how)
        assert vm.request("POST", "/say", body=f"said by {word}".encode())[0] == 200
        vm.terminate()
    logs = hearth.client("logs")
    messages = lambda group: [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]
    wait_for("the line", lambda: "said by both" in messages("/tests/runtime"))
    streams = logs.describe_log_streams(logGroupName="/tests/runtime")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["one"]
    everything = messages("/tests/runtime") + messages("/aws/lambda-microvms/contract")
    assert not [line for line in everything if line.startswith("said by") and line != "said by both"]
    assert messages("/tests/runtime") == ["run with ''", "said by both"], "and nothing of its image's build"


def test_line_105_a_build_logs_what_its_application_says_once(hearth, contract):
    events = hearth.client("logs").filter_log_events(logGroupName="/aws/lambda-microvms/contract")["events"]
    built = [event["message"] for event in events if "[1.0]" in event["logStreamName"]]
    assert built == ["the application starts", "connected: ['loopback', 'outside']", "validated"]


def test_an_application_whose_run_hook_refuses_has_its_say_in_the_log(hearth, contract):
    names = dict(logGroup="/tests/refused", logStream="one")
    terminated(hearth, runHookPayload="status 500", logging={"cloudWatch": names}, executionRoleArn=hearth.role())
    logs = hearth.client("logs")
    wait_for("the line", lambda: [
        event["message"] for event in logs.filter_log_events(logGroupName="/tests/refused")["events"]
    ] == ["run with 'status 500'"])


# From one observation of a MicroVM to a later one (spec section 15).
LATER = {
    "PENDING": {"PENDING", "RUNNING", "SUSPENDING", "SUSPENDED", "TERMINATING", "TERMINATED"},
    "RUNNING": {"RUNNING", "SUSPENDING", "SUSPENDED", "TERMINATING", "TERMINATED"},
    "SUSPENDING": {"RUNNING", "SUSPENDING", "SUSPENDED", "TERMINATING", "TERMINATED"},
    "SUSPENDED": {"RUNNING", "SUSPENDED", "TERMINATING", "TERMINATED"},
    "TERMINATING": {"TERMINATING", "TERMINATED"},
    "TERMINATED": {"TERMINATED"},
}


def test_any_sequence_of_requests_leaves_a_microvm_in_documented_states(hearth, raw, contract):
    seed = int(os.environ.get("HEARTH_SEED", str(random.randrange(1 << 32))))
    dice = random.Random(seed)
    target = f"{MICROVMS}/{run(hearth, raw).json['microvmId']}"
    mint = {"expirationInMinutes": 5, "allowedPorts": [{"port": 8080}]}
    steps = [("SuspendMicrovm", "POST", "/suspend", None), ("ResumeMicrovm", "POST", "/resume", None),
             ("CreateMicrovmAuthToken", "POST", "/auth-token", mint),
             ("CreateMicrovmShellAuthToken", "POST", "/shell-auth-token", {"expirationInMinutes": 5})]
    last = "PENDING"
    for number in range(15):
        if number == 12:
            steps.append(("TerminateMicrovm", "DELETE", "", None))
        operation, method, rest, body = steps[-1] if number == 12 else dice.choice(steps)
        answer = raw(method, target + rest, body)
        where = f"seed {seed}, step {number}: {operation} {answer}"
        assert not model.check("lambda-microvms", operation, answer.status, answer.headers, answer.body), where
        assert answer.status in (200, 400, 409), where
        state = raw("GET", target).json["state"]
        assert state in LATER[last], (where, last, state)
        last = state
    wait_for("the end", lambda: raw("GET", target).json["state"] == "TERMINATED")


def test_line_63_memory_beyond_the_quota_is_refused_until_something_ends(hearth, raw, contract, shown):
    settings = hearth.data / "hearthd.toml"
    before = settings.read_text()
    for vm in hearth.json("ps"):
        if vm["microvmId"] != shown.id:
            hearth.client().terminate_microvm(microvmIdentifier=vm["microvmId"])
    wait_for("one MicroVM left", lambda: len(hearth.json("ps")) == 1)
    hearth.stop()
    settings.write_text("quotas.memory_mib = 1024\n" + before)
    try:
        hearth.start()
        raw.close()
        second = run(hearth, raw)
        assert second.status == 200, second
        third = run(hearth, raw)
        assert (third.status, third.kind) == (402, "ServiceQuotaExceededException")
        assert third.json == {
            "message": "The base maximum allocated memory limit has been reached for this account.",
            "resourceId": None, "resourceType": None, "serviceCode": None, "quotaCode": None,
        }
        target = f"{MICROVMS}/{second.json['microvmId']}"
        raw("DELETE", target)
        wait_for("the end", lambda: raw("GET", target).json["state"] == "TERMINATED")
        freed = run(hearth, raw)
        assert freed.status == 200
        raw("DELETE", f"{MICROVMS}/{freed.json['microvmId']}")
    finally:
        hearth.stop()
        settings.write_text(before)
        hearth.start()
        raw.close()


def settled(hearth, name, seconds=600):
    return hearth.await_image(name, seconds)


def test_line_38_39_41_42_43_53_a_second_version_without_hooks(hearth, raw, contract, artifact):
    target = f"{IMAGES}/{hearth.arn('contract')}"
    started = update(hearth, "contract", artifact, environmentVariables={"READY": "200"})
    assert (started["state"], started["imageVersion"], started["latestActiveImageVersion"]) == ("UPDATING", "2.0", "1.0")
    for version in ("1.0", "2.0"):
        refused = raw("PATCH", f"{target}/versions/{version}", {"status": "INACTIVE"})
        assert (refused.status, refused.kind) == (409, "ConflictException")
        assert refused.message == "MicroVM Image is already in state: UPDATING"
    assert raw("DELETE", f"{target}/versions/1.0").message == "MicroVM Image is already in state: UPDATING"
    assert raw("DELETE", target).message == "Cannot delete MicroVM image in its current state: UPDATING"
    meanwhile = run(hearth, raw)
    assert (meanwhile.status, meanwhile.json["imageVersion"]) == (200, "1.0"), "the former version runs on"
    raw("DELETE", f"{MICROVMS}/{meanwhile.json['microvmId']}")
    image = settled(hearth, "contract")
    assert (image["state"], image["latestActiveImageVersion"]) == ("UPDATED", "2.0")
    version = raw("GET", f"{target}/versions/2.0").json
    assert version["hooks"] is None, "what is not sent again is gone"
    assert version["environmentVariables"] == {"READY": "200"}
    # Line 53: version 2.0 has no run hook.
    refused = run(hearth, raw, runHookPayload="x")
    text = "The run hook must be enabled in the MicroVM image to pass the run hook payload."
    assert (refused.status, refused.message) == (400, text)
    # Line 42.
    changed = raw("PATCH", f"{target}/versions/2.0", {"status": "INACTIVE"}).json
    assert (changed["state"], changed["status"]) == ("SUCCESSFUL", "INACTIVE")
    arn = hearth.arn("contract")
    pinned = run(hearth, raw, imageVersion="2.0")
    text = f"No active version found for MicroVM image {arn} and version 2.0"
    assert (pinned.status, pinned.kind, pinned.message) == (404, "ResourceNotFoundException", text)
    unpinned = run(hearth, raw)
    assert unpinned.json["imageVersion"] == "1.0"
    raw("DELETE", f"{MICROVMS}/{unpinned.json['microvmId']}")
    assert raw("GET", target).json["latestActiveImageVersion"] == "1.0"
    # Line 43.
    raw("PATCH", f"{target}/versions/1.0", {"status": "INACTIVE"})
    none = run(hearth, raw)
    assert (none.status, none.message) == (404, f"No active version found for MicroVM image {arn}")
    for version in ("1.0", "2.0"):
        assert raw("PATCH", f"{target}/versions/{version}", {"status": "ACTIVE"}).status == 200


def test_line_44_after_a_failed_update_the_former_version_still_runs(hearth, raw, contract):
    update(hearth, "contract", NOWHERE)
    image = settled(hearth, "contract")
    assert image["state"] == "UPDATE_FAILED"
    assert image["latestActiveImageVersion"] != image["latestFailedImageVersion"]
    vm = run(hearth, raw)
    assert (vm.status, vm.json["imageVersion"]) == (200, image["latestActiveImageVersion"])
    raw("DELETE", f"{MICROVMS}/{vm.json['microvmId']}")


@pytest.mark.parametrize(
    "answer, seconds, reason",
    [
        ("500", 60, "Ready hook check failed: the application returned a server error (HTTP 5xx) response"),
        ("404", 60, "Ready hook check failed: the application returned a client error (HTTP 4xx) response"),
        ("hang", 3, "Ready hook invocation timed out after PT3S"),
    ],
)
def test_line_32_and_33_a_ready_hook_that_does_not_answer_well_fails_the_build(
    hearth, contract, artifact, answer, seconds, reason
):
    before = set((hearth.data / "images").glob("*/*"))
    started = update(
        hearth, "contract", artifact, hooks=hooks(run=False, ready_seconds=seconds), environmentVariables={"READY": answer}
    )
    assert settled(hearth, "contract")["state"] == "UPDATE_FAILED"
    build = hearth.build_of("contract", started["imageVersion"])
    assert build["stateReason"] == reason
    assert set((hearth.data / "images").glob("*/*")) == before, "nothing stays behind"
    assert set(build["snapshotBuild"]) == {"codeInstallSizeInBytes"}, "the container was built, its snapshot was not taken"


def test_line_45_a_version_in_use_can_go_and_its_microvms_stay(hearth, raw, contract, shown):
    assert shown.object["imageVersion"] == "1.0"
    target = f"{IMAGES}/{hearth.arn('contract')}"
    answer = raw("DELETE", f"{target}/versions/1.0")
    assert (answer.status, answer.json["state"]) == (200, "DELETING")
    gone = raw("GET", f"{target}/versions/1.0")
    assert gone.message == f"MicroVMImage not found for MicroVMImage: {hearth.arn('contract')}, Version: 1.0"
    shown.suspend()
    shown.resume()
    assert facts(shown)["identity"]


def test_line_46_an_image_in_use_stays_and_is_gone_after_its_microvms(hearth, raw, contract, shown):
    target = f"{IMAGES}/{hearth.arn('contract')}"
    for prepare in (shown.resume, shown.suspend):
        prepare()
        refused = raw("DELETE", target)
        assert (refused.status, refused.message) == (400, "Cannot delete microvm image with running microvms.")
    shown.terminate()
    gone = wait_for("deletion", lambda: (answer := raw("DELETE", target)).status == 200 and answer)
    assert gone.json == {"imageIdentifier": hearth.arn("contract"), "state": "DELETING"}
    wait_for("the image's end", lambda: raw("GET", target).status == 404)
    assert raw("DELETE", target).status == 404
