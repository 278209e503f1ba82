"""Shells at the endpoint (spec section 21)."""

import json
import uuid

import botocore.exceptions
import pytest
import websockets.exceptions

from console import in_guest, ingress, shell, shell_token, websocket
from support import WAKES, wait_for



@pytest.fixture(scope="module")
def vm(hearth, image):
    """A running MicroVM that takes HTTP and shells, and wakes on requests."""
    connectors = ingress(hearth, "HTTP_INGRESS", "SHELL_INGRESS")
    vm = hearth.run(image, idlePolicy=WAKES, ingressNetworkConnectors=connectors)
    yield vm
    vm.terminate()


def message_of(call):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        call()
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    return error["Message"]


def test_line_97_a_shell_token_needs_shell_ingress(hearth, image, vm, microvm):
    assert message_of(lambda: shell_token(microvm)) == (
        "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM."
    )
    assert shell_token(vm).count(".") == 4
    mixed = ingress(hearth, "ALL_INGRESS", "SHELL_INGRESS")
    # Such a MicroVM launches; only its shell is refused (spec section 14).
    combined = hearth.run(image, ingressNetworkConnectors=mixed)
    assert message_of(lambda: shell_token(combined)) == (
        "ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or SHELL_INGRESS instead"
    )
    combined.terminate()


@pytest.mark.parametrize("path", ["/", "/shell", "/ws/shell?x=1"])
def test_line_98_a_shell_on_any_path_resizes_and_ends_with_a_close(vm, path):
    with shell(vm, path) as screen:
        first = json.loads(screen.first)
        assert first["type"] == "session_init" and str(uuid.UUID(first["session_id"])) == first["session_id"]
        screen.until("λ $ ")
        screen.say("stty size; echo $TERM $(id -u) $(tty)\n")
        screen.until("0 0\r\n")
        assert screen.until("\r\n").startswith("xterm 0 /dev/pts/")
        screen.ws.send(json.dumps({"type": "resize", "cols": 120, "rows": 40}))
        screen.say("stty size\n")
        screen.until("40 120\r\n")
        screen.say("exit 3\n")
        with pytest.raises(websockets.exceptions.ConnectionClosedOK) as closed:
            while True:
                screen.ws.recv(timeout=120)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "shell exited")


def test_line_99_text_that_is_no_resize_is_typed(vm):
    with shell(vm) as screen:
        screen.until("λ $ ")
        # The terminal echoes what is typed once the shell has handed it over to a command.
        screen.say("echo rea''dy; cat\n")
        screen.until("ready\r\n")
        for text in ['{"type":"unknown","cols":1}', "plain"]:
            screen.ws.send(text + "\n")
            screen.until(f"{text}\r\n{text}\r\n")


def test_line_100_a_shell_token_is_for_shells_only_and_no_other_token_opens_one(vm):
    assert vm.request("GET", "/health", token=shell_token(vm))[::2] == (502, b"")
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websocket(vm, "/shell", token=vm.token(8080))
    # The application itself has answered, which knows no such path.
    assert refused.value.response.status_code == 404


def test_keys_signals_and_every_byte_pass_through_a_shell(vm):
    with shell(vm) as screen:
        screen.until("λ $ ")
        screen.say("sh -c 'echo u\"\"p; exec sleep 1000'\n")
        screen.until("up\r\n")
        screen.say("\x03")
        screen.until("^C")
        screen.say("stty raw -echo; echo ra''w; head -c 256 | od -An -v -tx1 | tr -d ' \\n'; stty sane; echo; echo en''d\n")
        screen.until("raw\n")
        screen.ws.send(bytes(range(256)))
        assert screen.until("end\r\n").strip() == bytes(range(256)).hex()


def test_several_shells_are_apart_and_pings_are_answered(vm):
    with shell(vm) as one, shell(vm) as other:
        assert json.loads(one.first)["session_id"] != json.loads(other.first)["session_id"]
        one.say("x=one; tty\n")
        other.say("echo [$x]; tty\n")
        other.until("[]\r\n")
        assert one.ws.ping().wait(60)


def test_a_browser_opens_a_shell_by_subprotocols(vm):
    protocols = ["lambda-microvms", f"lambda-microvms.authentication.{shell_token(vm)}"]
    with shell(vm, "/", token="", additional_headers={}, subprotocols=protocols) as screen:
        assert screen.ws.subprotocol == "lambda-microvms"
        screen.until("λ $ ")


def test_only_shell_ingress_takes_shells_but_no_requests(hearth, image):
    vm = hearth.run(image, ingressNetworkConnectors=ingress(hearth, "SHELL_INGRESS"))
    try:
        with shell(vm) as screen:
            screen.until("λ $ ")
        assert vm.request("GET", "/health")[0] == 403
    finally:
        vm.terminate()


def test_a_suspend_cuts_shells_with_their_jobs_and_a_new_one_wakes_the_microvm(vm):
    with shell(vm) as one, shell(vm) as other:
        for screen in (one, other):
            screen.say("sleep 271828 &\necho rea''dy\n")
            screen.until("ready\r\n")
        vm.suspend()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            while True:
                one.ws.recv(timeout=120)
    assert vm.state == "SUSPENDED"
    with shell(vm) as screen:
        screen.until("λ $ ")
    assert vm.state == "RUNNING"
    wait_for("the end of their jobs", lambda: in_guest(vm, "grep -lsz 27182[8] /proc/[0-9]*/cmdline || true") == "")


def test_a_shell_token_of_another_microvm_and_a_refused_request_wake_nothing(hearth, image, vm, microvm):
    vm.suspend()
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websocket(vm, "/", token=microvm.token(8080))
    assert refused.value.response.status_code == 403
    assert vm.request("GET", "/health", token=shell_token(vm))[0] == 502
    assert vm.state == "SUSPENDED"
    vm.resume()


def test_hearth_shell_is_a_terminal(hearth, vm):
    """The command line in a terminal of its own: size, keys, exit."""
    import fcntl, os, pty, struct, subprocess, termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [hearth.binary, "shell", vm.id], env=hearth.environment, stdin=slave, stdout=slave, stderr=slave
    )
    seen = b""

    def until(end):
        nonlocal seen
        while end not in seen:
            seen += os.read(master, 65536)
        seen = seen.partition(end)[2]

    until("λ $ ".encode())
    os.write(master, b"stty size\n")
    until(b"33 99\r\n")
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
    process.send_signal(28)
    os.write(master, b"sleep 1; stty size\n")
    until(b"44 111\r\n")
    os.write(master, b"exit\n")
    assert process.wait(60) == 0
    # The flags but for the echo of a line that was being typed: as before.
    assert termios.tcgetattr(slave)[:4] == before[:4]
    os.close(master), os.close(slave)
