"""The main job against real MicroVMs: state, isolation, suspend and resume, restart of the daemon."""

import json
import os
import pathlib
import re
import time

import pytest

from support import WAKES, refusal, wait_for


def test_two_microvms_share_what_was_computed_before_the_snapshot_and_nothing_after(hearth, image, microvm):
    other = hearth.run(image)
    try:
        microvm.python("answer = 42")
        assert microvm.python("answer") == "42"
        assert "NameError" in other.python("answer")
        entropy = "open('/dev/urandom', 'rb').read(16).hex()"
        assert microvm.python(entropy) != other.python(entropy)
        ready = [json.loads(vm.request("GET", "/events")[2])["events"][0] for vm in (microvm, other)]
        assert ready[0] == ready[1] and ready[0]["hook"] == "ready"
        microvm.python("open('/root/mine', 'w').write('x')")
        assert other.python("__import__('os').path.exists('/root/mine')") == "False"
    finally:
        other.terminate()


def test_the_guest_has_a_kernel_of_its_own(microvm):
    boot = "/proc/sys/kernel/random/boot_id"
    assert microvm.python(f"open('{boot}').read().strip()").strip("'") != pathlib.Path(boot).read_text().strip()


def test_ps_describe_and_the_build_object_name_the_vmm_of_the_metric(hearth, raw, image, microvm):
    labels = re.search(r'hearth_vmm_info\{driver="(.+?)",version="(.+?)",acceleration="(.+?)"', hearth.admin("/metrics"))
    vmm = f"{labels[1]} {labels[2]}, {labels[3]}"
    asked = os.environ.get("HEARTH_TEST_VMM")
    assert not asked or f"{labels[1]}-{labels[3]}".lower() in (asked, f"{asked}-kvm"), vmm
    listed = {vm["microvmId"]: vm["vmm"] for vm in hearth.json("ps")}
    assert listed[microvm.id] == vmm
    line = next(line for line in hearth.cli("ps").stdout.splitlines() if microvm.id in line)
    assert line.endswith(vmm)
    assert hearth.json("describe", microvm.id)["vmm"] == vmm
    build = hearth.build_of(image)["buildId"]
    target = f"/2025-09-09/microvm-images/{hearth.arn(image)}/versions/1.0/builds/{build}"
    assert raw("GET", target).json["snapshotBuild"]["vmm"] == vmm
    assert vmm in hearth.cli("image", "show", image).stdout


def test_memory_files_processes_loopback_and_clock_survive_20_suspends(microvm):
    microvm.python(
        "import socket, subprocess, time\n"
        "memory = 'kept'\n"
        "open('/root/file', 'w').write('kept')\n"
        "process = subprocess.Popen(['sleep', '100000'])\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "peer, _ = server.accept()\n"
    )
    for round in range(20):
        microvm.suspend()
        if round % 2:
            microvm.resume()
        microvm.python(f"client.sendall(b'{round:02}')")
        assert microvm.python("peer.recv(2)") == f"b'{round:02}'"
        assert microvm.python("(memory, open('/root/file').read(), process.poll())") == "('kept', 'kept', None)"
        before = time.time()
        assert before - 1 <= float(microvm.python("time.time()")) <= time.time() + 1


def test_a_suspended_microvm_costs_its_delta(hearth, microvm):
    microvm.python("data = bytearray(__import__('os').urandom(4 << 20))")
    microvm.suspend()
    directory = hearth.data / "microvms" / microvm.id
    files = [path for path in directory.glob("suspended-*/*")]
    delta = next(path for path in files if path.name == "delta")
    assert delta.stat().st_size > 4 << 20
    allocated = sum(path.stat().st_blocks * 512 for path in files)
    assert allocated <= 1.5 * delta.stat().st_size + (1 << 20)
    assert microvm.python("len(data)") == str(4 << 20)


def test_memory_that_is_touched_here_and_there_takes_no_huge_pages_unless_it_asks(microvm):
    assert microvm.python("""
import mmap
def resident(advice):
    sparse = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    sparse.madvise(advice)
    before = int(open("/proc/self/statm").read().split()[1])
    for place in range(0, len(sparse), 2 << 20):
        sparse[place] = 1
    return (int(open("/proc/self/statm").read().split()[1]) - before) * mmap.PAGESIZE
""") == ""
    assert int(microvm.python("resident(mmap.MADV_NORMAL)")) < 4 << 20
    assert int(microvm.python("resident(mmap.MADV_HUGEPAGE)")) > 32 << 20


def test_hooks_are_called_in_their_order_with_the_payload(hearth, image):
    vm = hearth.run(image, runHookPayload="hello", idlePolicy=WAKES)
    try:
        vm.suspend()
        _, _, body = vm.request("GET", "/events")
        seen = json.loads(body)
        assert seen["payload"] == "hello"
        assert [event["hook"] for event in seen["events"]] == ["ready", "run", "suspend", "resume"]
    finally:
        vm.terminate()


def test_an_application_that_exits_ends_its_microvm_with_its_code(hearth, image):
    vm = hearth.run(image)
    vm.request("POST", "/run", body=b"import os; os._exit(3)", headers={"Connection": "close"})
    wait_for("the end", lambda: vm.state == "TERMINATED")
    assert vm.object["stateReason"] == "Container Stopped with Exit Code: 3"


def test_a_launch_with_the_same_client_token_is_the_same_microvm(hearth, image):
    first = hearth.run(image, clientToken="once")
    again = hearth.run(image, clientToken="once")
    assert first.id == again.id
    first.terminate()


def test_after_a_suspend_the_wall_clock_is_right_and_counted_time_is_as_documented(hearth, microvm):
    def clocks():
        asked = time.time()
        wall, counted = map(float, microvm.python("import time\nf'{time.time()} {time.monotonic()}'").strip("'").split())
        assert asked - 1 < wall < time.time() + 1
        return counted

    began, before = time.monotonic(), clocks()
    microvm.suspend()
    time.sleep(10)
    microvm.resume()
    went_on, passed = clocks() - before, time.monotonic() - began
    if hearth.driver == "firecracker":
        assert 10 <= went_on <= passed + 1, "it goes on, as in the cloud"
    else:
        assert went_on <= passed - 9, "it stands still"


def test_what_runs_goes_on_under_a_daemon_with_another_vmm(hearth, image):
    if hearth.driver != "firecracker":
        pytest.skip("this machine has one VMM")
    vm = hearth.run(image)
    vm.python("kept = 42")
    settings = hearth.data / "hearthd.toml"
    own = settings.read_text()
    hearth.stop()
    settings.write_text(own.replace('vmm = "firecracker"', 'vmm = "qemu"\nacceleration = "kvm"'))
    hearth.start()
    try:
        assert hearth.driver == "qemu"
        assert (vm.state, vm.python("kept")) == ("RUNNING", "42")
        # It could not be resumed here, so it is not suspended.
        _, code, message = refusal(hearth.client().suspend_microvm, microvmIdentifier=vm.id)
        assert code == "ConflictException" and "firecracker" in message
        assert vm.python("kept") == "42"
    finally:
        hearth.stop()
        settings.write_text(own)
        hearth.start()
    assert vm.python("kept") == "42"
    vm.suspend()
    vm.resume()
    assert vm.python("kept") == "42"
    vm.terminate()
