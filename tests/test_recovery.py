"""`kill -9` of the daemon at any moment: no finished work is lost, half-done work is finished or undone, and what belongs
to nobody is swept."""

import json
import socket
import threading
import time

import pytest

from support import WAKES, wait_for
from test_jail import in_jail

# Makes a hook of the interpreter take long, so that the daemon can be killed in the middle of it.
SLOW_HOOKS = """
import hooks, time
fast = hooks.Events.add
def slow(self, hook, payload=None):
    time.sleep(SECONDS)
    fast(self, hook, payload)
hooks.Events.add = slow
"""


@pytest.fixture
def stateful(hearth, image):
    """Starts MicroVMs that remember their names; ends them all."""
    made = []

    def start(name):
        vm = hearth.run(image, idlePolicy=WAKES)
        vm.python(f"state = {name!r}")
        made.append(vm)
        return vm

    yield start
    for vm in made:
        vm.terminate()
    assert_nothing_is_left(hearth)


def assert_nothing_is_left(hearth):
    """Every process, directory and namespace belongs to a MicroVM, to a process started ahead, or to a ready slot."""
    pool = 4 + 1

    def settled():
        guests = hearth.guests()
        groups = {path.rsplit("/", 1)[1] for path in hearth.control_groups()}
        return (len(hearth.processes()) == len(guests) <= pool and groups <= set(guests)
                and len(hearth.namespaces()) <= pool + 2 and not list((hearth.data / "microvms").glob("*")))

    wait_for("nothing without a guest, and no guest without a use", settled)


def restart(hearth):
    hearth.kill()
    hearth.start()


def in_background(call):
    thread = threading.Thread(target=lambda: swallow(call))
    thread.start()
    return thread


def swallow(call):
    try:
        call()
    except Exception as error:  # the daemon dies under the call
        print(error)


def test_running_and_suspended_microvms_survive(hearth, stateful):
    running, suspended = stateful("running"), stateful("suspended")
    suspended.suspend()
    processes = set(hearth.processes())
    hearth.kill()
    assert running.endpoint and set(hearth.processes()) <= processes
    hearth.start()
    assert running.state == "RUNNING" and suspended.state == "SUSPENDED"
    assert running.python("state") == "'running'"
    assert suspended.python("state") == "'suspended'"


def test_a_kill_in_a_suspend_hook_undoes_the_suspend(hearth, stateful):
    vm = stateful("hook")
    vm.python(SLOW_HOOKS.replace("SECONDS", "3"))
    asked = in_background(lambda: hearth.client().suspend_microvm(microvmIdentifier=vm.id))
    wait_for("the suspend", lambda: vm.state == "SUSPENDING")
    restart(hearth)
    asked.join()
    vm.await_state("RUNNING", "SUSPENDED")
    assert vm.python("state") == "'hook'"


def test_a_kill_while_a_suspend_is_written_loses_nothing(hearth, stateful):
    vm = stateful("written")
    vm.python("data = bytearray(__import__('os').urandom(64 << 20)); import zlib; check = zlib.crc32(data)")
    directory = hearth.data / "microvms" / vm.id
    asked = in_background(lambda: hearth.client().suspend_microvm(microvmIdentifier=vm.id))
    wait_for("the writing", lambda: list(directory.glob("suspended-*")), pause=0.001)
    restart(hearth)
    asked.join()
    vm.await_state("RUNNING", "SUSPENDED")
    assert vm.python("(state, zlib.crc32(data) == check)") == "('written', True)"
    vm.suspend()
    assert vm.python("(state, zlib.crc32(data) == check)") == "('written', True)"


def test_a_kill_in_a_resume_finishes_or_undoes_it(hearth, stateful):
    vm = stateful("resumed")
    vm.python(SLOW_HOOKS.replace("SECONDS", "2"))
    # At once, while the process gets its state, and in the middle of the hook.
    for pause in (0, 0.1, 1):
        vm.suspend()
        asked = in_background(lambda: hearth.client().resume_microvm(microvmIdentifier=vm.id))
        time.sleep(pause)
        restart(hearth)
        asked.join()
        vm.await_state("RUNNING", "SUSPENDED")
        assert vm.python("state") == "'resumed'"


def stop_the_guest(pid):
    """What the daemon does before it writes a guest out."""
    with socket.socket(socket.AF_UNIX) as control:
        if in_jail(pid, "/own/api.sock").exists():
            control.connect(f"/proc/{pid}/root/own/api.sock")
            body = b'{"state": "Paused"}'
            control.sendall(b"PATCH /vm HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert b" 204 " in control.recv(1 << 16)
        else:
            control.connect(f"/proc/{pid}/root/own/qmp.sock")
            lines = control.makefile("rw")
            lines.readline()
            for command in ("qmp_capabilities", "stop", "query-status"):
                lines.write(json.dumps({"execute": command, "id": command}) + "\n")
                lines.flush()
                answer = next(said for said in map(json.loads, lines) if "event" not in said)
            assert answer["return"]["running"] is False


def test_a_kill_while_a_refused_resume_is_suspended_again_loses_nothing(hearth, stateful):
    vm = stateful("refused")
    # The application moves on, in memory and on its disk, before it answers the hook.
    vm.python("""
import hooks, os, time
fast = hooks.Events.add
woken = 0
def slow(self, hook, payload=None):
    global woken
    if hook == "resume":
        woken += 1
        with open("/root/woken", "a") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
        time.sleep(5)
    fast(self, hook, payload)
hooks.Events.add = slow
""")
    vm.suspend()
    scratch = hearth.data / "microvms" / vm.id / "scratch.img"
    written = scratch.stat().st_mtime_ns
    asked = in_background(lambda: hearth.client().resume_microvm(microvmIdentifier=vm.id))
    wait_for("the guest's writing", lambda: scratch.stat().st_mtime_ns > written, pause=0.01)
    pid, = [pid for pid in hearth.processes() if in_jail(pid, "/disks/1").stat().st_size]
    hearth.kill()
    asked.join()
    stop_the_guest(pid)
    hearth.start()
    vm.await_state("RUNNING", "SUSPENDED")
    # Called once by the former daemon and once by this one; memory and disk agree.
    assert vm.python("(state, woken, open('/root/woken').read())") == "('refused', 2, 'xx')"
    assert vm.suspend().resume().python("(woken, open('/root/woken').read())") == "(3, 'xxx')"


def test_a_kill_in_a_launch_is_launched_again(hearth, image):
    for pause in (0, 0.3):
        vm = hearth.run(image, ready=False, idlePolicy=WAKES, runHookPayload="kept")
        time.sleep(pause)
        restart(hearth)
        vm.await_state("RUNNING")
        assert vm.python("6 * 7") == "42"
        assert b'"payload": "kept"' in vm.request("GET", "/events")[2]
        vm.terminate()
    assert_nothing_is_left(hearth)


def test_a_kill_in_a_build_starts_it_again(hearth):
    name = "killed-build"
    dockerfile = 'FROM debian:13\nRUN echo built > /built\nCMD ["sleep", "infinity"]\n'
    hearth.create_image(name, hearth.upload("killed-build.zip", hearth.archive(Dockerfile=dockerfile)))
    arn = hearth.arn(name)

    def state():
        return hearth.client().get_microvm_image_version(imageIdentifier=arn, imageVersion="1.0")["state"]

    wait_for("the build", lambda: state() == "IN_PROGRESS" and list((hearth.data / "images").glob("*/1.0.making")))
    restart(hearth)
    wait_for("the application's boot", lambda: list((hearth.data / "images").glob("*/1.0.making/memory")), 300)
    restart(hearth)
    assert hearth.await_image(name)["state"] == "CREATED"
    vm = hearth.run(name)
    vm.terminate()
    hearth.delete_image(name)
    assert_nothing_is_left(hearth)


def test_a_request_while_a_suspend_is_written_lets_the_microvm_go_on(hearth, stateful):
    vm = stateful("goes on")
    vm.python("data = bytearray(__import__('os').urandom(64 << 20))")
    directory = hearth.data / "microvms" / vm.id
    asked = in_background(lambda: hearth.client().suspend_microvm(microvmIdentifier=vm.id))
    wait_for("the writing", lambda: list(directory.glob("suspended-*")), pause=0.001)
    assert vm.python("(state, len(data))") == f"('goes on', {64 << 20})"
    asked.join()
    assert vm.state == "RUNNING"
