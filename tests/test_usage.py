"""What MicroVMs use, and what they log, told afterwards."""

import json

import pytest

from support import wait_for

IDLE = dict(maxIdleDurationSeconds=3600, suspendedDurationSeconds=3600, autoResumeEnabled=False)


def usage_of(hearth, microvm=None, image=None):
    items = hearth.json("usage")["items"]
    if microvm:
        (item,) = [item for item in items if item["microvmId"] == microvm]
    else:
        (item,) = [item for item in items if not item["microvmId"] and item["imageArn"] == image]
    return item


def test_111_usage_is_metered_by_microvm_and_image_version_and_survives_a_crash(hearth, image):
    vm = hearth.run(image, idlePolicy=IDLE)
    # More CPU than the quarter of one that belongs to 512 MiB, and more memory than those.
    vm.python("import time\nblob = bytearray(b'x' * (700 << 20))\n")

    def metered():
        vm.python("end = time.time() + 2\nwhile time.time() < end: pass\n")
        item = usage_of(hearth, vm.id)
        above = item["memoryGbSecondsAboveBaseline"] > 0 and item["vcpuSecondsAboveBaseline"] > 1
        return item if above else None

    running = wait_for("use above the baseline", metered, 120)
    assert running["memoryInMib"] == 512 and running["imageArn"] == hearth.arn(image)
    seconds = running["secondsByState"]["RUNNING"]
    assert running["baselineVcpuSeconds"] == pytest.approx(seconds * 0.25)
    assert running["baselineMemoryGbSeconds"] == pytest.approx(seconds * 0.5)
    assert running["proxyReceivedBytes"] > 50 and running["proxySentBytes"] > 50
    assert running["snapshotReadBytes"] > 1 << 20 and running["snapshotWrittenBytes"] == 0

    vm.python("del blob")
    vm.suspend()
    suspended = wait_for(
        "time in suspension",
        lambda: (usage := usage_of(hearth, vm.id))["secondsByState"].get("SUSPENDED", 0) > 1 and usage,
    )
    assert suspended["snapshotWrittenBytes"] > 1 << 12 and suspended["snapshotStoredGbHours"] > 0

    hearth.kill()
    hearth.start()
    after = usage_of(hearth, vm.id)
    for meter in ("vcpuSecondsAboveBaseline", "snapshotReadBytes", "snapshotWrittenBytes", "baselineVcpuSeconds"):
        assert after[meter] >= suspended[meter], meter
    assert after["secondsByState"]["RUNNING"] == pytest.approx(suspended["secondsByState"]["RUNNING"])
    assert after["secondsByState"]["SUSPENDED"] > suspended["secondsByState"]["SUSPENDED"]
    vm.resume()
    assert usage_of(hearth, vm.id)["snapshotReadBytes"] > after["snapshotReadBytes"]
    vm.terminate()

    ended = usage_of(hearth, vm.id)["secondsByState"]
    version = usage_of(hearth, image=hearth.arn(image))
    assert version["imageVersion"] == "1.0" and version["snapshotWrittenBytes"] > 1 << 20
    wait_for(
        "the snapshot's storage", lambda: usage_of(hearth, image=hearth.arn(image))["snapshotStoredGbHours"] > 0, pause=1
    )
    assert usage_of(hearth, vm.id)["secondsByState"] == pytest.approx(ended), "what has ended uses nothing"
    assert vm.id in hearth.cli("usage", "--from", "2026-01-01").stdout
    assert hearth.json("usage", "--to", "2026-01-01")["items"] == []


def test_105_a_role_that_may_not_write_logs_has_none(hearth, image, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}))
    role = hearth.json("roles", "create", "silent", "--policy", str(policy))["roleArn"]
    vm = hearth.run(
        image, executionRoleArn=role, logging={"cloudWatch": {"logGroup": "/silent/runtime", "logStream": "one"}}
    )
    try:
        vm.python("__import__('os').write(1, b'unheard\\n') and None")
        vm.suspend()
        groups = hearth.client("logs").describe_log_groups(logGroupNamePrefix="/silent/")["logGroups"]
        assert groups == []
    finally:
        vm.terminate()
        hearth.cli("roles", "rm", "silent")


def test_a_group_shows_and_keeps_its_retention(hearth):
    logs = hearth.client("logs")
    logs.create_log_group(logGroupName="/kept")
    logs.put_retention_policy(logGroupName="/kept", retentionInDays=7)
    hearth.kill()
    hearth.start()
    logs = hearth.client("logs")
    assert logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"][0]["retentionInDays"] == 7
    logs.delete_retention_policy(logGroupName="/kept")
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"][0]
    logs.delete_log_group(logGroupName="/kept")
