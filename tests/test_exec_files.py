"""Commands and files in a MicroVM: the endpoint's own services, and `hearth exec` and `hearth cp`."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

from console import Command, files, in_guest, ingress, shell_token
from support import WAKES, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVERY_BYTE = bytes(range(256))


@pytest.fixture(scope="module")
def vm(hearth, image):
    """A running MicroVM that takes HTTP and shells, and wakes on requests."""
    connectors = ingress(hearth, "HTTP_INGRESS", "SHELL_INGRESS")
    vm = hearth.run(image, idlePolicy=WAKES, ingressNetworkConnectors=connectors)
    yield vm
    vm.terminate()


def hearth_exec(hearth, *arguments, **more):
    return subprocess.run(
        [hearth.binary, "exec", *arguments], env=hearth.environment, capture_output=True, timeout=600, **more
    )


def runs(vm, marker):
    """Whether a process with this in its command line is in the guest; the search itself does not count."""
    hidden = f"[{marker[0]}]{marker[1:]}"
    return in_guest(vm, f"grep -lsz {hidden} /proc/[0-9]*/cmdline || true") != ""


def test_every_byte_passes_both_ways_and_the_end_of_input_ends_the_command(hearth, vm):
    content = EVERY_BYTE * 8192
    done = hearth_exec(hearth, vm.id, "--", "cat", input=content)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout == content


def test_output_error_and_exit_code_come_apart(hearth, vm):
    done = hearth_exec(hearth, vm.id, "--", "sh", "-c", "echo out; echo err >&2; exit 7", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    done = hearth_exec(hearth, vm.id, "--", "no-such-program", input=b"")
    assert done.returncode == 126 and b"no-such-program" in done.stderr and done.stdout == b""


def test_variables_directory_user_and_terminal_are_the_callers(hearth, vm):
    done = hearth_exec(
        hearth, "-e", "A=b c", "-w", "/usr", "-u", "nobody", vm.id, "--",
        "sh", "-c", "echo $A; pwd; id -un; tty; true", stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (0, b"b c\n/usr\nnobody\nnot a tty\n")
    done = hearth_exec(hearth, "-t", "-n", vm.id, "--", "sh", "-c", "tty; exit 4", stdin=subprocess.DEVNULL)
    assert done.returncode == 4 and done.stdout.startswith(b"/dev/pts/")


def test_signals_reach_the_command(hearth, vm):
    command = Command(vm, ["sleep", "1000"])
    command.control(type="signal", signal="TERM")
    assert command.finish()[2] == {"type": "exit", "code": 143, "signal": 15}
    script = "trap 'echo interrupted; exit 3' INT; echo ready; while true; do sleep 0.1; done"
    process = subprocess.Popen(
        [hearth.binary, "exec", vm.id, "--", "sh", "-c", script],
        env=hearth.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b"interrupted\n" and process.wait(60) == 3


def test_a_slow_reader_holds_the_command_back_and_loses_nothing(vm):
    size = 32 << 20
    command = Command(vm, ["sh", "-c", f"head -c {size} /dev/zero; echo marker-done >&2"])
    time.sleep(3)
    assert runs(vm, f"{size}")
    out, err, last = command.finish()
    assert (len(out), err, last["code"]) == (size, b"marker-done\n", 0)


def test_a_client_that_vanishes_leaves_no_process(hearth, vm):
    script = "trap '' HUP; sleep 314159 & sleep 314159; sleep 314159"
    command = Command(vm, ["sh", "-c", script])
    wait_for("the command", lambda: runs(vm, "314159"))
    command.vanish()
    wait_for("its end", lambda: not runs(vm, "314159"))
    process = subprocess.Popen(
        [hearth.binary, "exec", vm.id, "--", "sleep", "161803"], env=hearth.environment, stdin=subprocess.PIPE
    )
    wait_for("the command", lambda: runs(vm, "161803"))
    process.kill()
    process.wait()
    wait_for("its end", lambda: not runs(vm, "161803"))


def test_what_makes_no_sense_is_refused_with_a_reason(vm):
    assert Command(vm, []).first["type"] == "error"
    refused = Command(vm, ["true"], shell=True).first
    assert refused["type"] == "error" and "shell" in refused["message"]
    command = Command(vm, ["cat"])
    command.ws.send(b"\x07no such stream")
    with pytest.raises(Exception) as closed:
        command.ws.recv(timeout=60)
    assert closed.value.rcvd.code == 1008
    # A plain request to a path that is for WebSockets.
    assert vm.request("GET", "/hearth/v1/exec", token=shell_token(vm))[0] == 400


def test_with_a_token_for_ports_the_paths_are_the_applications(vm):
    assert vm.request("GET", "/hearth/v1/files?path=/etc/passwd")[0] == 404


def test_a_command_wakes_a_suspended_microvm_and_a_suspend_cuts_it(vm):
    vm.python("kept = 17")
    running = Command(vm, ["sleep", "141421"])
    assert running.first == {"type": "started"}
    vm.suspend()
    with pytest.raises(Exception):
        running.ws.recv(timeout=120)
    assert in_guest(vm, "echo awake") == "awake\n"
    assert vm.state == "RUNNING" and vm.python("kept") == "17"
    wait_for("the end of the cut command", lambda: not runs(vm, "141421"))


def test_100_mib_go_up_and_down_unchanged(hearth, vm, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    block = os.urandom(1 << 20)
    with source.open("wb") as file:
        for number in range(100):
            file.write(number.to_bytes(4, "big") + block[4:])
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    hearth.cli("cp", str(source), f"{vm.id}:/root/large")
    assert in_guest(vm, "sha256sum /root/large").split()[0] == digest
    hearth.cli("cp", f"{vm.id}:/root/large", str(back))
    assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
    in_guest(vm, "rm /root/large")


def test_trees_keep_names_modes_links_and_owners(hearth, vm, tmp_path):
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "a b" / "ünïcode").mkdir(parents=True)
    (tree / "a b" / "ünïcode" / "every").write_bytes(EVERY_BYTE)
    (tree / "tool").write_text("#!/bin/sh\necho tool\n")
    (tree / "tool").chmod(0o750)
    (tree / "link").symlink_to("tool")
    (tree / "dangling").symlink_to("/no/such/place")
    os.chown(tree / "tool", 1000, 1001)
    hearth.cli("cp", str(tree), f"{vm.id}:/srv/plain")
    hearth.cli("cp", "-a", str(tree), f"{vm.id}:/srv/owned")
    assert in_guest(vm, "stat -c '%a %u %g' /srv/plain/tool /srv/owned/tool") == "750 0 0\n750 1000 1001\n"
    assert in_guest(vm, "/srv/plain/link; readlink /srv/plain/dangling") == "tool\n/no/such/place\n"
    # Into a directory that is there.
    hearth.cli("cp", str(tree / "tool"), f"{vm.id}:/srv/plain/empty")
    assert in_guest(vm, "stat -c %a /srv/plain/empty/tool") == "750\n"
    back = tmp_path / "back"
    hearth.cli("cp", "-a", f"{vm.id}:/srv/owned", str(back))
    names = lambda root: sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert names(back) == names(tree)
    assert (back / "a b" / "ünïcode" / "every").read_bytes() == EVERY_BYTE
    assert os.readlink(back / "dangling") == "/no/such/place"
    status = (back / "tool").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 1000, 1001)
    failed = hearth.cli("cp", f"{vm.id}:/no/such", str(tmp_path), check=False)
    assert failed.returncode == 1 and "/no/such does not exist in the MicroVM" in failed.stderr


def test_files_are_read_written_listed_and_removed(vm):
    body = EVERY_BYTE * 1000
    status, _, described = files(vm, "PUT", "/tmp/new/dir/file", body=body, mode="600", uid=33, gid=34)
    described = json.loads(described)
    assert status == 200 and (described["bytes"], described["mode"]) == (len(body), "0600")
    assert (described["uid"], described["gid"], described["kind"]) == (33, 34, "file")
    status, headers, content = files(vm, "GET", "/tmp/new/dir/file")
    assert status == 200 and content == body
    assert (headers["content-length"], headers["x-hearth-mode"]) == (str(len(body)), "0600")
    status, _, listed = files(vm, "GET", "/tmp/new")
    assert [(entry["name"], entry["kind"]) for entry in json.loads(listed)["entries"]] == [("dir", "directory")]
    assert json.loads(files(vm, "GET", "/tmp/new/dir", format="list")[2])["entries"][0]["name"] == "file"
    assert files(vm, "DELETE", "/tmp/new")[0] == 409
    assert files(vm, "DELETE", "/tmp/new", recursive="true")[0] == 204
    assert files(vm, "GET", "/tmp/new")[0] == 404
    assert b"Linux" in files(vm, "GET", "/proc/version")[2]


def test_links_stay_inside_the_container_and_the_agent_outside(vm):
    in_guest(vm, "mkdir -p /tmp/l; ln -sfn ../../../../../../../etc/hostname /tmp/l/up; ln -sfn /proc/1/root /tmp/l/root")
    for path in ["/tmp/l/up", "/tmp/l/root/etc/hostname", "/../../etc/hostname"]:
        assert files(vm, "GET", path)[2] == b"localhost\n", path
    # Where the agent keeps its disks; the container has no such directories.
    for path in ["/scratch", "/container", "/image", "/tmp/l/root/scratch"]:
        assert files(vm, "GET", path)[0] == 404, path
    in_guest(vm, "ln -sfn /tmp/l/inside /tmp/l/way; touch /tmp/l/inside")
    assert files(vm, "PUT", "/tmp/l/way", body=b"through")[0] == 200
    assert in_guest(vm, "cat /tmp/l/inside") == "through"


def test_what_is_wrong_with_a_file_is_said(vm):
    for method, path, options, status in [
        ("GET", "relative", {}, 400),
        ("GET", "/etc", {"format": "raw"}, 409),
        ("GET", "/dev/zero", {}, 400),
        ("GET", "/etc", {"format": "zip"}, 400),
        ("PUT", "/etc", {}, 409),
        ("PUT", "/tmp/x", {"mode": "9"}, 400),
        ("PUT", "/sys/new", {}, 403),
        ("PUT", "/tmp/not-tar", {"format": "tar"}, 400),
        ("DELETE", "/no/such", {}, 404),
        ("POST", "/tmp", {}, 405),
    ]:
        answer = files(vm, method, path, body=b"x" * 600 if method == "PUT" else None, **options)
        assert answer[0] == status and json.loads(answer[2])["message"], (method, path, answer)


def test_files_wake_a_suspended_microvm(vm):
    vm.suspend()
    assert files(vm, "PUT", "/tmp/awake", body=b"1")[0] == 200
    assert vm.state == "RUNNING"


def test_the_published_description_is_what_the_endpoint_does(vm):
    """Every operation of docs/openapi-endpoint.yaml is called; what comes back must be described there."""
    described = yaml.safe_load((ROOT / "docs/openapi-endpoint.yaml").read_text())
    operations = {
        (method.upper(), path): operation
        for path, item in described["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert set(operations) == {
        ("GET", "/hearth/v1/exec"), ("GET", "/hearth/v1/files"), ("HEAD", "/hearth/v1/files"),
        ("PUT", "/hearth/v1/files"), ("DELETE", "/hearth/v1/files"),
    }

    def described_as(method, status, headers):
        response = operations[method, "/hearth/v1/files"]["responses"][str(status)]
        if "$ref" in response:
            response = described["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        kinds = response.get("content", {})
        assert not kinds or headers["content-type"] in kinds, (method, status, headers)
        for name in response.get("headers", {}):
            assert name.lower() in headers, (method, status, name)

    parameters = {parameter["name"] for parameter in described["components"]["parameters"].values()}
    assert parameters == {"path", "format", "mode", "uid", "gid", "owners", "recursive"}
    archive = files(vm, "GET", "/etc/apt", format="tar")
    for method, path, body, options in [
        ("GET", "/etc/hostname", None, {}), ("GET", "/etc", None, {}), ("GET", "/etc", None, {"format": "stat"}),
        ("GET", "/etc/apt", None, {"format": "tar"}), ("GET", "/no/such", None, {}), ("GET", "x", None, {}),
        ("HEAD", "/etc", None, {}), ("HEAD", "/no/such", None, {}),
        ("PUT", "/tmp/described", b"1", {}), ("PUT", "/tmp/tree", archive[2], {"format": "tar", "owners": "true"}),
        ("PUT", "/etc", b"1", {}), ("DELETE", "/tmp/tree", None, {}), ("DELETE", "/tmp/tree", None, {"recursive": "true"}),
        ("DELETE", "/tmp/tree", None, {}),
    ]:
        status, headers, _ = files(vm, method, path, body=body, **options)
        described_as(method, status, headers)
