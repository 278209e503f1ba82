"""What fails between two steps costs nothing that was finished: a database that takes no more, hooks that refuse, VMMs that
die or do not answer, a daemon that is killed."""

import contextlib
import json
import os
import signal
import sqlite3
import time

from support import WAKES, wait_for
from test_recovery import SLOW_HOOKS, in_background, restart

# Makes the interpreter's resume hook fail the first time.
REFUSED_ONCE = """
import hooks
note = hooks.Events.add
def refuse(self, hook, payload=None):
    if hook == "resume":
        hooks.Events.add = note
        raise RuntimeError("not now")
    note(self, hook, payload)
hooks.Events.add = refuse
"""


def database(hearth):
    return contextlib.closing(sqlite3.connect(hearth.data / "state.db", timeout=30, isolation_level=None))


def record(hearth, vm):
    with database(hearth) as state:
        return json.loads(state.execute("SELECT record FROM microvms WHERE id = ?", [vm.id]).fetchone()[0])


def vmm(hearth, vm):
    return record(hearth, vm)["guest"]["process"]["pid"]


@contextlib.contextmanager
def unwritable(hearth, stage):
    """The database takes no MicroVM in this stage."""
    with database(hearth) as state:
        state.execute(f"""CREATE TRIGGER refused BEFORE INSERT ON microvms WHEN NEW.record LIKE '%"stage":"{stage}"%'
            BEGIN SELECT RAISE(ABORT, 'refused'); END""")
        try:
            yield
        finally:
            state.execute("DROP TRIGGER refused")


def test_a_launch_that_cannot_be_written_down_ends_with_a_reason(hearth, image):
    with unwritable(hearth, "RUNNING"):
        vm = hearth.run(image, ready=False, idlePolicy=WAKES)
        wait_for("its end", lambda: vm.state == "TERMINATED")
    assert vm.object["stateReason"] == "The MicroVM could not be started."
    restart(hearth)
    assert vm.state == "TERMINATED"


def test_the_files_of_an_undone_suspend_are_not_taken_for_the_truth(hearth, image):
    vm = hearth.run(image, idlePolicy=WAKES)
    vm.python(SLOW_HOOKS.replace("SECONDS", "8 if hook == 'resume' else 0"))
    with unwritable(hearth, "SUSPENDED"):
        hearth.client().suspend_microvm(microvmIdentifier=vm.id)
        undone = "could not be written down; the MicroVM goes on"
        wait_for("the undoing", lambda: hearth.logged(vm.id, undone))
        time.sleep(2)
        pid = vmm(hearth, vm)
        hearth.kill()
        os.kill(pid, signal.SIGKILL)
    hearth.start()
    wait_for("its end", lambda: vm.state == "TERMINATED")


def test_a_resume_hook_that_refuses_while_a_suspend_is_undone_costs_nothing(hearth, microvm):
    microvm.python("data = bytearray(__import__('os').urandom(64 << 20)); state = 'kept'")
    microvm.python(REFUSED_ONCE)
    directory = hearth.data / "microvms" / microvm.id
    asked = in_background(lambda: hearth.client().suspend_microvm(microvmIdentifier=microvm.id))
    wait_for("the writing", lambda: list(directory.glob("suspended-*")), pause=0.001)
    microvm.resume()
    asked.join()
    assert microvm.python("(state, len(data))") == f"('kept', {64 << 20})"


def test_a_vmm_that_dies_in_a_resume_costs_only_the_resume(hearth, microvm):
    microvm.python("state = 'kept'")
    microvm.python(SLOW_HOOKS.replace("SECONDS", "4"))
    microvm.suspend()
    asked = in_background(lambda: hearth.client(attempts=1).resume_microvm(microvmIdentifier=microvm.id))
    wait_for("the resume", lambda: record(hearth, microvm)["stage"] == "RESUMING")
    time.sleep(1)
    os.kill(vmm(hearth, microvm), signal.SIGKILL)
    asked.join()
    wait_for("its end", lambda: record(hearth, microvm)["stage"] != "RESUMING")
    assert microvm.state == "SUSPENDED"
    assert microvm.resume().python("state") == "'kept'"


def test_a_vmm_that_does_not_answer_costs_its_own_microvm_only(hearth, image, microvm):
    microvm.python("state = 'kept'")
    wedged = hearth.run(image, idlePolicy=WAKES)
    pid = vmm(hearth, wedged)
    os.kill(pid, signal.SIGSTOP)
    restart(hearth)
    if hearth.driver == "qemu":  # The other is asked nothing when it is found again.
        wait_for("its end", lambda: wedged.state == "TERMINATED")
        assert wedged.object["stateReason"] == "The MicroVM ended with its host."
        assert pid not in hearth.processes()
    assert microvm.python("state") == "'kept'"
    hearth.client().terminate_microvm(microvmIdentifier=wedged.id)


def test_what_a_killed_daemon_left_half_made_is_removed(hearth):
    left = [hearth.data / name / ".tmpLeft" for name in (".", "scratch", "builder")]
    hearth.kill()
    for directory in left:
        directory.mkdir()
        (directory / "disk").write_bytes(b"half")
    hearth.start()
    assert not any(directory.exists() for directory in left)
