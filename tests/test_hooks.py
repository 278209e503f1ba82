"""Lifecycle hooks (lines 64, 67, 68 and 70 of the acceptance checklist): when each is called, and what its refusal does."""

import json

import pytest

from support import WAKES, wait_for

# Tells somebody outside of every hook that is called, with what the application itself knows.
TELL = """
import hooks, socket
told = hooks.Events.add
def tell(self, hook, payload=None):
    told(self, hook, payload)
    with socket.create_connection((%r, 8002), timeout=20) as connection:
        connection.sendall(hook.encode())
        connection.recv(1)
hooks.Events.add = tell
"""
REFUSE = """
import hooks
hooks.Events.add = lambda self, hook, payload=None: 1 / 0
"""
LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8002))
print("listening")
while True:
    connection, _ = server.accept()
    print(connection.recv(100).decode())
    connection.sendall(b"x")
    connection.close()
"""


@pytest.fixture
def listener(outside):
    """What hooks told, a line each."""
    with outside.serving(LISTENER, outside.address) as server:
        yield server.stdout


def test_line_64_a_suspend_keeps_files_memory_and_processes_and_the_microvm_its_name(microvm):
    microvm.python(
        "import subprocess\nkept = 'memory'\nopen('/root/kept', 'w').write('file')\nprocess = subprocess.Popen(['sleep', '100000'])"
    )
    before = microvm.object
    microvm.suspend()
    microvm.resume()
    assert microvm.python("(kept, open('/root/kept').read(), process.poll())") == "('memory', 'file', None)"
    after = microvm.object
    for name in ("microvmId", "endpoint", "startedAt", "imageArn", "imageVersion"):
        assert after[name] == before[name]


def test_line_67_hooks_are_called_before_the_freeze_after_the_restore_and_before_the_end(hearth, image, listener, outside):
    vm = hearth.run(image, idlePolicy=WAKES)
    assert vm.python(TELL % outside.address) == ""
    hearth.client().suspend_microvm(microvmIdentifier=vm.id)
    assert listener.readline() == "suspend\n"
    vm.await_state("SUSPENDED")
    # The request that wakes it comes to the application after its hook.
    status, _, body = vm.request("GET", "/events")
    assert status == 200 and [event["hook"] for event in json.loads(body)["events"]] == ["ready", "run", "suspend", "resume"]
    assert listener.readline() == "resume\n"
    vm.terminate()
    assert listener.readline() == "terminate\n"


def test_line_68_a_suspend_hook_that_answers_500_ends_the_microvm(hearth, image):
    vm = hearth.run(image, idlePolicy=WAKES)
    assert vm.python(REFUSE) == ""
    hearth.client(attempts=1).suspend_microvm(microvmIdentifier=vm.id)
    wait_for("the end", lambda: vm.state == "TERMINATED")
    assert vm.object["stateReason"].startswith("Suspend lifecycle hook returned HTTP status 500")


def test_line_70_an_application_that_exits_is_not_asked_to_terminate(hearth, image, listener, outside):
    vm = hearth.run(image, idlePolicy=WAKES)
    assert vm.python(TELL % outside.address) == ""
    vm.request("POST", "/run", body=b"import os; os._exit(3)", headers={"Connection": "close"})
    wait_for("the end", lambda: vm.state == "TERMINATED")
    assert vm.object["stateReason"] == "Container Stopped with Exit Code: 3"
    # The next that is told comes from another MicroVM.
    other = hearth.run(image, idlePolicy=WAKES)
    other.python((TELL % outside.address).replace("hook.encode()", "b'other'"))
    other.terminate()
    assert listener.readline() == "other\n"


def test_a_resume_hook_that_answers_500_fails_the_request_and_the_microvm_sleeps_on(hearth, image):
    vm = hearth.run(image, idlePolicy=WAKES)
    vm.python("import hooks\nwhole = hooks.Events.add\ndef add(self, hook, payload=None):\n    hook == 'resume' and 1 / 0\n    whole(self, hook, payload)\nhooks.Events.add = add")
    vm.suspend()
    assert vm.request("GET", "/health")[0] == 502
    vm.await_state("SUSPENDED")
    vm.terminate()
