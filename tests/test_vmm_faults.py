"""A VMM that is missing, wrong or dies, and a disk that is full: a clear line, a documented state, nothing lost."""

import contextlib
import os
import shutil
import signal
import subprocess

import botocore.exceptions
import pytest

from support import WAKES, MicroVm, wait_for
from test_jail import in_jail, of_one_image
from test_lost_nothing import REFUSED_ONCE


@contextlib.contextmanager
def settings(hearth, key, value):
    """The daemon is down and has this setting; afterwards it runs as before."""
    file = hearth.data / "hearthd.toml"
    before = file.read_text()
    lines = [line for line in before.splitlines() if not line.startswith(f"{key} =")]
    hearth.stop()
    file.write_text("\n".join([f'{key} = "{value}"', *lines]))
    try:
        yield
    finally:
        file.write_text(before)
        hearth.start()


@pytest.mark.parametrize("program, cause", [
    ("no-such-vmm", "No such file or directory"),
    ("not-executable", "Permission denied"),
    ("wrong", "it does not tell its version"),
])
def test_a_vmm_that_is_missing_or_wrong_is_named_when_the_daemon_starts(hearth, tmp_path, program, cause):
    (tmp_path / "not-executable").write_text("text")
    (tmp_path / "wrong").write_text("#!/bin/sh\necho something else\n")
    (tmp_path / "wrong").chmod(0o755)
    with settings(hearth, hearth.driver, tmp_path / program):
        started = hearth.cli("up", check=False)
        assert started.returncode != 0
        words = started.stderr.strip().splitlines()[-1]
        assert f"cannot start {tmp_path / program}: " in words and words.count(cause) == 1 and "name its path" in words


@pytest.mark.parametrize("device, cause", [
    ("-m 600 /dev/kvm c 10 232", "/dev/kvm cannot be opened: Permission denied"),
    ("-m 666 /dev/kvm c 1 3", "KVM creates no VM: Inappropriate ioctl"),
])
def test_a_kvm_without_permission_or_virtualization_is_named(hearth, tmp_path, device, cause):
    # Devices of its own, the program among them: nobody may look into the checkout.
    script = f"""
mount -t tmpfs tmpfs /dev && cp {hearth.binary.with_name('hearthd')} /dev && mknod {device} &&
exec setpriv --reuid=65534 --regid=65534 --clear-groups /dev/hearthd probe-kvm"""
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout.startswith(cause), (done.stdout, done.stderr)


def test_a_process_that_dies_while_it_waits_is_replaced(hearth, image):
    first = hearth.run(image)
    first.terminate()
    wait_for("a process started ahead", lambda: hearth.processes())
    killed = set(hearth.processes())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for("its end", lambda: not killed & set(hearth.processes()))
    second = hearth.run(image)
    assert second.python("6 * 7") == "42"
    second.terminate()


def with_guest(hearth):
    """VMMs that have a guest: those that wait have no disk yet."""
    found = []
    for pid in hearth.processes():
        with contextlib.suppress(OSError):
            if in_jail(pid, "/disks/1").stat().st_size:
                found.append(pid)
    return found


def test_a_vmm_that_dies_ends_its_microvm_with_a_reason_and_a_suspended_one_keeps_its_state(hearth, image, microvm):
    microvm.python("kept = 42")
    microvm.suspend()
    other = hearth.run(image)
    for pid in with_guest(hearth):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the end", lambda: other.state == "TERMINATED")
    assert other.object["stateReason"] == "The MicroVM ended unexpectedly."
    microvm.resume()
    assert microvm.python("kept") == "42"


def test_a_vmm_that_hangs_keeps_no_microvm_waiting_for_ever(hearth, image, microvm):
    def waiting():
        """Those that were started ahead and have been put where a resume takes them from."""
        _, pids = of_one_image(hearth) or ((), ())
        return pids if all(in_jail(pid, "/own/scratch.img").exists() for pid in pids) else ()

    microvm.python("kept = 42")
    hanging = wait_for("the VMM started ahead", waiting)
    microvm.suspend()
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    hearth.client().resume_microvm(microvmIdentifier=microvm.id)
    wait_for("the end of the resume", lambda: hearth.logged("a resume failed", microvm.id, "waiting for a VMM's answer"), 90)
    microvm.resume()
    assert microvm.python("kept") == "42"


def test_a_builder_whose_vmm_dies_fails_its_build_at_once(hearth):
    dockerfile = "FROM debian:13\nRUN echo so far so good && sleep 3600\nCMD [\"true\"]\n"
    hearth.create_image("orphan", hearth.upload("orphan.zip", hearth.archive(Dockerfile=dockerfile)))
    # Not the step's own words, which are logged before it runs.
    wait_for("the step", lambda: "so far so good" in hearth.log_of("orphan").splitlines(), 300)
    for pid in hearth.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert hearth.await_image("orphan")["state"] == "CREATE_FAILED"
    assert "the guest has ended" in hearth.build_of("orphan")["stateReason"]
    assert hearth.logged("a guest has ended")
    hearth.delete_image("orphan")


@contextlib.contextmanager
def disk_of(hearth, directory, megabytes, tmp_path, elsewhere=()):
    """A directory of the daemon's, on a disk of its own; what is `elsewhere` in it stays where it is."""
    file, mount = tmp_path / "disk", tmp_path / "mount"
    with open(file, "wb") as disk:
        disk.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", file], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", file, mount], check=True)
    try:
        hearth.stop()
        for path in directory.iterdir():
            if path.name not in elsewhere:
                subprocess.run(["cp", "-a", "--sparse=always", path, mount], check=True)
        for name in elsewhere:
            (mount / name).mkdir()
            subprocess.run(["mount", "--bind", directory / name, mount / name], check=True)
        subprocess.run(["mount", "--rbind", mount, directory], check=True)
        try:
            hearth.start()
            yield directory
        finally:
            hearth.stop()
            subprocess.run(["umount", "--recursive", directory], check=True)
    finally:
        subprocess.run(["umount", "--recursive", mount], check=True)
        hearth.start()


def fill(directory):
    """Leaves not a block."""
    free = shutil.disk_usage(directory).free
    filler = directory / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - (1 << 20), 1))
    with contextlib.suppress(OSError), open(filler, "ab") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return filler


def test_a_suspend_that_finds_the_disk_full_lets_the_microvm_go_on(hearth, image, tmp_path):
    def kept(vm):
        return vm.python("__import__('hashlib').sha256(kept).hexdigest()")

    with disk_of(hearth, hearth.data / "microvms", 512, tmp_path) as directory:
        both = hearth.run(image), hearth.run(image)
        for vm in both:
            vm.python("kept = __import__('os').urandom(4 << 20)")
        expected = {vm.id: kept(vm) for vm in both}
        both[1].python(REFUSED_ONCE)
        filler = fill(directory)
        for vm in both:
            # Not on the disk yet when the suspend syncs it, and there is no room for it.
            vm.python("open('/root/late', 'wb').write(__import__('os').urandom(4 << 20))")
            hearth.client().suspend_microvm(microvmIdentifier=vm.id)
            wait_for("the end of the suspend", lambda vm=vm: hearth.logged(vm.id, "full=true"))
            vm.await_state("RUNNING")
            assert kept(vm) == expected[vm.id]
            assert [path.name for path in (directory / vm.id).iterdir() if path.name.startswith("suspended")] == []
        filler.unlink()
        for vm in both:
            vm.suspend()
        hearth.kill()
        hearth.start()
        for vm in both:
            vm.resume()
            assert kept(vm) == expected[vm.id]
            vm.terminate()


def test_a_full_disk_of_the_daemon_itself_costs_neither_state_nor_an_answer(hearth, image, tmp_path):
    def settled(call):
        """What must be written down is done, or refused as the service's own failure."""
        with contextlib.suppress(hearth.client(attempts=1).exceptions.InternalServerException):
            call(hearth.client(attempts=1))

    with disk_of(hearth, hearth.data, 512, tmp_path, elsewhere=("images", "objects", "builder")) as data:
        awake, asleep = hearth.run(image, idlePolicy=WAKES), hearth.run(image, idlePolicy=WAKES)
        for vm in awake, asleep:
            vm.python("kept = 42")
        asleep.suspend()
        filler = fill(data)
        # Nor is there room in the last block of the log.
        with contextlib.suppress(OSError), open(data / "hearthd.log", "ab", buffering=0) as log:
            while True:
                log.write(b"\n")
        logged = (data / "hearthd.log").stat().st_size
        assert awake.state == "RUNNING" and awake.python("kept") == "42"
        assert (data / "hearthd.log").stat().st_size == logged
        settled(lambda client: client.run_microvm(imageIdentifier=hearth.arn(image)))
        settled(lambda client: client.suspend_microvm(microvmIdentifier=awake.id))
        settled(lambda client: client.resume_microvm(microvmIdentifier=asleep.id))
        hearth.kill()
        filler.unlink()
        hearth.start()
        for vm in awake, asleep:
            assert vm.python("kept") == "42"
            assert vm.suspend().resume().python("kept") == "42"
        for vm in hearth.client().list_microvms()["items"]:
            MicroVm(hearth, hearth.client().get_microvm(microvmIdentifier=vm["microvmId"])).terminate()


@pytest.mark.parametrize("late", [False, True], ids=["before-it-begins", "while-its-guest-runs"])
def test_a_build_that_finds_the_disk_full_fails_with_its_reason_and_the_version_before_serves(hearth, image, tmp_path, late):
    with disk_of(hearth, hearth.data / "images", 2048, tmp_path) as directory:
        filler = None if late else fill(directory)
        arn = hearth.arn(image)
        client = hearth.client()
        built_from = client.get_microvm_image_version(imageIdentifier=arn, imageVersion="1.0")
        request = {key: built_from[key] for key in ("codeArtifact", "baseImageArn", "buildRoleArn", "hooks", "resources")}
        client.update_microvm_image(imageIdentifier=arn, **request)
        if late:
            # QEMU's guest writes this file itself; Firecracker's is written when the guest stands still.
            wait_for("the guest's memory", lambda: list(directory.glob("*/*.making/memory")), 120)
            filler = fill(directory)
        updated = hearth.await_image(image)
        failed = updated["latestFailedImageVersion"]
        assert updated["state"] == "UPDATE_FAILED"
        reason = hearth.build_of(image, failed)["stateReason"]
        assert reason.startswith("INTERNAL_PLATFORM_ERROR: ") and "No space left on device" in reason
        filler.unlink()
        vm = hearth.run(image)
        assert vm.object["imageVersion"] == "1.0" and vm.python("6 * 7") == "42"
        vm.terminate()
        client.delete_microvm_image_version(imageIdentifier=arn, imageVersion=failed)
        with pytest.raises(botocore.exceptions.ClientError):
            client.get_microvm_image_version(imageIdentifier=arn, imageVersion=failed)
