"""What `/proc` says of a live VMM: it may see, do and use what its guest needs, and nothing else."""

import os
import pathlib
import re
import signal
import stat
import subprocess

import pytest

from support import cpu_groups, groups, stands_back, wait_for


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


def limit(pid, name):
    lines = pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line[26:].split()[:2] for line in lines if line.startswith(name))


def vmm_of(hearth, pids_before):
    """The VMM that was not there before."""
    return wait_for("the VMM", lambda: set(hearth.processes()) - pids_before).pop()


def in_jail(pid, path="/"):
    return pathlib.Path(f"/proc/{pid}/root{path}")


# linux/capability.h; without it nobody can be told to be ended less readily than before.
CAP_SYS_RESOURCE = 1 << 24

# By driver: what its jail's root, devices, own directory and network hold beside what every jail holds.
ROOT = {"firecracker": {"firecracker"}, "qemu": {"etc", "firmware", "lib", "lib64", "modules", "proc", "usr"}}
DEVICES = {"firecracker": {"urandom", "kvm", "tun"}, "qemu": {"urandom", "kvm"}}
OWN = {
    "firecracker": {"api.sock", "loaded-state", "saved-state"},
    "qemu": {"qmp.sock", "device-state"},
}
INTERFACES = {"firecracker": {"lo", "tap0", "uplink"}, "qemu": {"lo"}}


def memory_is_writable(hearth):
    """QEMU before 9 opens a memory file for writing although it never writes it; the file itself is root's."""
    if hearth.driver != "qemu":
        return False
    told = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"version (\d+)", told)[1]) < 9


def filters(pid):
    """System call filters of a process: three are ours, the others its own."""
    return int(status(pid)["Seccomp_filters"][0])


def all_stand(hearth):
    """Whether every VMM is past its start, which ends with its own filter; Firecracker's main thread gets it with its guest."""
    least = 4 if hearth.driver == "qemu" else 3
    try:
        return all(filters(pid) >= least for pid in hearth.processes())
    except OSError:
        return False


def of_one_image(hearth):
    """Pids of VMMs by whether their guest runs: a waiting one has no disk yet. Those alone that have the memory of an image
    whose guest runs; `None` while one of all is just being started."""
    try:
        running = [pid for pid in hearth.processes() if in_jail(pid, "/disks/1").stat().st_size]
        memory = [in_jail(pid, "/memory").stat().st_ino for pid in running]
        waiting = [
            pid for pid in hearth.processes()
            if pid not in running and in_jail(pid, "/memory").stat().st_ino in memory
        ]
    except OSError:
        return None
    return (running, waiting) if waiting else None


@pytest.fixture
def vmm(hearth, microvm):
    """Pid of a VMM whose guest runs: nobody else's. The one that is started ahead for the next launch, which waits for this
    one's first answer, stands, too."""
    assert microvm.request("GET", "/health")[0] == 200
    running, _ = wait_for("the VMM started ahead", lambda: of_one_image(hearth))
    wait_for("every VMM under our filters and its own", lambda: all_stand(hearth))
    assert len(running) == 1
    return running[0]


def test_a_vmm_is_a_user_of_its_own_without_any_privilege(hearth, vmm):
    first = hearth.configuration["first_user_id"]
    seen = set()
    for pid in hearth.processes():
        now = status(pid)
        user, = set(now["Uid"])
        group, = set(now["Gid"])
        assert first < int(user) <= first + 65536 and user == group
        assert now["Groups"] == ["2000000"], "the group that may read images"
        assert user not in seen, "two VMMs are the same user"
        seen.add(user)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(now[name][0], 16) == 0, name
        assert now["NoNewPrivs"] == ["1"]
        assert now["Seccomp"] == ["2"] and filters(pid) >= 3, "ours"
    assert filters(vmm) >= 4, "ours and its own"
    assert vmm in hearth.processes()


def test_a_vmm_shares_no_namespace_with_the_host_or_another_vmm(hearth, vmm):
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    everybody = [os.getpid(), hearth.pid, *hearth.processes()]
    for name in names:
        links = [os.readlink(f"/proc/{pid}/ns/{name}") for pid in everybody]
        own = links[2:]
        assert len(set(own)) == len(own) and not set(own) & set(links[:2]), name
    assert status(vmm)["NSpid"] == [str(vmm), "1"], "the first process of its own PID namespace"
    assert status(vmm)["PPid"] == [str(hearth.pid)]
    devices = pathlib.Path(f"/proc/{vmm}/net/dev").read_text().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in devices} == INTERFACES[hearth.driver]


def test_a_vmms_root_holds_only_what_it_needs_and_is_read_only(hearth, vmm):
    top = sorted(path.name for path in in_jail(vmm).iterdir())
    assert set(top) <= {"dev", "disks", "memory", "own"} | ROOT[hearth.driver], top
    entries = [line.split() for line in pathlib.Path(f"/proc/{vmm}/mountinfo").read_text().splitlines()]
    mounts = {entry[4]: set(entry[5].split(",")) for entry in entries}
    own = [path for path, options in mounts.items() if "rw" in options]
    writable = {"/own", "/disks/1"} | ({"/memory"} if memory_is_writable(hearth) else set())
    assert set(own) <= writable, "what it may write"
    assert all("nosuid" in options for options in mounts.values())
    assert all("nodev" in options for path, options in mounts.items() if path != "/")
    shells = ["/bin/sh", "/usr/bin/sh", "/bin/busybox", "/usr/bin/python3", "/usr/sbin/init", "/etc/passwd", "/etc/shadow"]
    assert not any(in_jail(vmm, path).exists() for path in shells)
    assert not in_jail(vmm, "/proc/self").exists() and not in_jail(vmm, "/sys").exists()
    nodes = [path for path in in_jail(vmm, "/dev").rglob("*") if stat.S_ISCHR(path.lstat().st_mode)]
    assert {path.name for path in nodes} <= DEVICES[hearth.driver]
    user = int(status(vmm)["Uid"][0])
    files = [path for path in in_jail(vmm, "/own").iterdir()]
    assert {path.name for path in files} <= OWN[hearth.driver], files
    directory = in_jail(vmm, "/own").stat()
    assert (directory.st_uid, directory.st_mode & 0o777) == (0, 0o750), "it makes no file there"
    assert in_jail(vmm, "/disks/1").stat().st_uid == user
    memory = in_jail(vmm, "/memory").stat()
    assert memory.st_uid == 0 and memory.st_mode & 0o007 == 0


def test_a_resumed_vmm_keeps_no_clone_that_was_made_for_a_launch(hearth, microvm, vmm):
    microvm.suspend()
    wait_for("a clone made ahead", lambda: list((hearth.data / "run").glob("*/scratch.img")))
    microvm.resume()
    assert microvm.request("GET", "/health")[0] == 200
    (resumed,), _ = wait_for("the VMM started ahead", lambda: of_one_image(hearth))
    assert {path.name for path in in_jail(resumed, "/own").iterdir()} <= OWN[hearth.driver]


def test_a_vmm_has_no_open_file_but_its_own(vmm):
    links = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{vmm}/fd").iterdir()]
    own = ("/memory", "/disks/", "/own/", "/dev/urandom", "/dev/kvm", "/dev/net/tun", "pipe:", "socket:", "anon_inode:", "/memfd:")
    # `/dev/null` of the host, seen from here and through the jail's file system.
    foreign = [link for link in links if link not in ("/dev/null", "/null") and not link.startswith(own)]
    assert foreign == []


def test_a_vmm_is_limited(hearth, vmm, microvm):
    assert limit(vmm, "Max core file size") == ["1", "1"]  # 0 says nothing to a handler that cores are piped to
    assert limit(vmm, "Max open files") == ["1024", "1024"]
    assert limit(vmm, "Max processes") == ["101", "101"]
    assert limit(vmm, "Max file size") == [str(8 << 30)] * 2
    found = groups(vmm)
    # Whoever stands back has no weight.
    wait_for("credit of processor time", lambda: not stands_back(vmm))
    guest_bytes = 2 << 30
    expected = {
        "cpu.max": "100000 100000", "cpu.weight": "25", "cpu.cfs_quota_us": "100000", "cpu.shares": "256",
        "memory.max": str(guest_bytes + guest_bytes // 64 + (384 << 20)), "pids.max": "101",
        "io.weight": "default 25", "blkio.bfq.weight": "25",
    }
    expected["memory.limit_in_bytes"] = expected["memory.max"]
    seen = {}
    for directory, _ in found:
        if directory.parent.name == hearth.configuration["network"]["prefix"]:
            seen |= {name: (directory / name).read_text().strip() for name in expected if (directory / name).exists()}
    assert {name: expected[name] for name in seen} == seen
    sets = ({"cpu.max", "cpu.weight", "memory.max", "pids.max"},
            {"cpu.cfs_quota_us", "cpu.shares", "memory.limit_in_bytes", "pids.max"})
    assert any(wanted <= set(seen) for wanted in sets), seen


def test_a_guest_that_computes_without_an_end_stands_back_behind_others_until_it_rests(hearth, microvm, vmm):
    weight = lambda: [(group / name).read_text() for group in cpu_groups(vmm) for name in ("cpu.weight", "cpu.shares")
                      if (group / name).exists()]
    wait_for("rest", lambda: not stands_back(vmm))
    rested = weight()
    compute = "import subprocess; endless = subprocess.Popen(['python3', '-c', 'while True: pass'])"
    assert microvm.python(compute) == ""
    wait_for("an end of its credit", lambda: stands_back(vmm))
    assert microvm.python("6 * 7") == "42"
    # The daemon that lets it stand back need not be the one that has it come forward.
    hearth.kill()
    hearth.start()
    assert microvm.python("endless.kill()") == ""
    wait_for("rest", lambda: not stands_back(vmm))
    assert rested and weight() == rested


def test_nothing_of_a_vmm_is_left_when_it_is_killed_with_the_daemon(hearth, microvm, vmm):
    guest = next(name for name in hearth.guests() for path in hearth.control_groups()
                 if path.endswith(name) and str(vmm) in pathlib.Path(path, "cgroup.procs").read_text().split())
    hearth.kill()
    os.kill(vmm, signal.SIGKILL)
    hearth.start()
    wait_for("the end", lambda: microvm.object["state"] == "TERMINATED")
    assert guest not in hearth.guests()
    assert not [path for path in hearth.control_groups() if path.endswith(guest)]
    assert "vmm" not in pathlib.Path("/proc/self/mounts").read_text()


def test_when_memory_runs_out_the_kernel_ends_what_nobody_would_miss(hearth, vmm):
    readily = {pid: int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in [hearth.pid, *hearth.processes()]}
    may_protect_itself = int(status(hearth.pid)["CapEff"][0], 16) & CAP_SYS_RESOURCE
    assert readily.pop(hearth.pid) == (-900 if may_protect_itself else 0)
    assert readily.pop(vmm) == 0, "it has a state of its own"
    assert readily and set(readily.values()) == {500}, "started ahead"


def test_a_microvm_that_ended_because_memory_ran_out_is_named_in_the_log(hearth, microvm, vmm):
    limits = [directory / name for directory, _ in groups(vmm) for name in ("memory.max", "memory.limit_in_bytes")]
    limit, = [path for path in limits if path.exists()]
    usage = limit.with_name({"memory.max": "memory.current"}.get(limit.name, "memory.usage_in_bytes"))
    limit.write_text(str(int(usage.read_text()) + (32 << 20)))
    status, _, _ = microvm.request("POST", "/run", body=b"kept = bytearray(b'1' * (256 << 20))")
    assert status == 502
    microvm.await_state("TERMINATED")
    assert microvm.object["stateReason"] == "The MicroVM ended unexpectedly."
    told, = hearth.logged(microvm.id, "a MicroVM's process has ended")
    assert "memory ran out and the kernel ended the process" in told
