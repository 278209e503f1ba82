"""`aws logs tail --follow` of the AWS CLI, version 2 (version 1 has no such command), on build and runtime logs."""

import contextlib
import subprocess
import threading
import time

from support import wait_for
from test_api_clients import environment

NOWHERE = "s3://no-such-bucket/app.zip"
AWS = "/usr/bin/aws"


@contextlib.contextmanager
def tail(hearth, group, *more):
    """Follows a group; gives the lines that came so far. Debian 12's CLI does not heed AWS_ENDPOINT_URL yet."""
    lines = []
    process = subprocess.Popen(
        [AWS, "--endpoint-url", hearth.settings["endpointUrl"], "logs", "tail", group, "--follow", "--since", "1h", "--format", "short", *more],
        env={**environment(hearth), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    reader = threading.Thread(target=lambda: [lines.append(line) for line in process.stdout], daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait(timeout=30)
        reader.join(timeout=30)


def await_line(lines, text):
    wait_for(f"{text!r} in {lines}", lambda: any(text in line for line in list(lines)), 120, 0.2)


def test_the_cli_has_version_2(hearth):
    assert subprocess.run([AWS, "--version"], capture_output=True, text=True).stdout.startswith("aws-cli/2")


def test_a_build_is_followed_while_it_fails_and_when_it_fails_again(hearth):
    group = "/aws/lambda-microvms/tailed"
    hearth.create_image("tailed", NOWHERE)
    hearth.await_image("tailed")
    with tail(hearth, group) as lines:
        await_line(lines, "S3_NO_SUCH_BUCKET")
        seen = len(lines)
        hearth.client().update_microvm_image(
            imageIdentifier=hearth.arn("tailed"), baseImageArn=hearth.base_arn(), buildRoleArn=hearth.role(),
            codeArtifact={"uri": "s3://test-artifacts-none/x.zip"},
        )
        wait_for("the next build's lines", lambda: len(lines) > seen, 120, 0.2)
        await_line(lines, "test-artifacts-none")
    hearth.await_image("tailed")
    hearth.delete_image("tailed")


def test_events_are_followed_one_by_one_by_stream_and_by_pattern(hearth):
    logs, group = hearth.client("logs"), "/tests/tailed"
    logs.create_log_group(logGroupName=group)
    for stream in ("one", "two"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)

    def put(stream, message):
        event = {"timestamp": int(time.time() * 1000), "message": message}
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    put("one", "first word")
    with tail(hearth, group) as everything, tail(hearth, group, "--log-stream-names", "two") as two, \
            tail(hearth, group, "--filter-pattern", "third") as third:
        await_line(everything, "first word")
        put("two", "second word")
        await_line(everything, "second word")
        await_line(two, "second word")
        put("one", "third word")
        await_line(everything, "third word")
        await_line(third, "third word")
        assert len(everything) == 3, everything
        assert not [line for line in two if "second" not in line] and not [line for line in third if "third" not in line]
    logs.delete_log_group(logGroupName=group)


def test_a_microvms_output_is_followed(hearth, image):
    where = {"logGroup": "/tests/followed", "logStream": "microvm"}
    vm = hearth.run(image, executionRoleArn=hearth.role(), logging={"cloudWatch": where})
    say = lambda word: vm.python(f"__import__('os').write(1, b'{word}\\n') and None")
    try:
        say("before it is followed")
        logs = hearth.client("logs")
        wait_for("the group", lambda: logs.describe_log_groups(logGroupNamePrefix="/tests/followed")["logGroups"], 60)
        with tail(hearth, "/tests/followed") as lines:
            await_line(lines, "before it is followed")
            say("while it is followed")
            await_line(lines, "while it is followed")
    finally:
        vm.terminate()
