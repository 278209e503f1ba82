"""Ports of a MicroVM on this machine: `hearth forward` with clients that nobody here wrote."""

import hashlib
import json
import socket
import subprocess

import pytest

SERVER = """
import hashlib, socket, threading
server = socket.create_server(("127.0.0.1", 7000))
def lines(connection):
    with connection, connection.makefile("rwb") as file:
        for line in file:
            file.write(line.upper())
            file.flush()
def accept():
    while True:
        threading.Thread(target=lines, args=(server.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
bulk = socket.create_server(("127.0.0.1", 7001))
def digest(connection):
    with connection:
        seen = hashlib.sha256()
        while data := connection.recv(65536):
            seen.update(data)
        connection.sendall(seen.hexdigest().encode())
def accept_bulk():
    while True:
        threading.Thread(target=digest, args=(bulk.accept()[0],), daemon=True).start()
threading.Thread(target=accept_bulk, daemon=True).start()
"""


@pytest.fixture
def forward(hearth, microvm):
    """Local ports that lead to 7000 and 7001 of the MicroVM, and to 7999, where nobody listens."""
    microvm.python(SERVER)
    process = subprocess.Popen(
        [hearth.binary, "--json", "forward", microvm.id, "7000:0", "7001:0", "7999:0"],
        env=hearth.environment, stdout=subprocess.PIPE, text=True,
    )
    said = [json.loads(process.stdout.readline()) for _ in range(3)]
    yield {line["port"]: int(line["local"].rpartition(":")[2]) for line in said}
    process.terminate()
    process.wait()


def netcat(port, text):
    done = subprocess.run(
        ["busybox", "nc", "127.0.0.1", str(port)], input=text, capture_output=True, timeout=300, check=True
    )
    return done.stdout


def test_netcat_speaks_with_a_server_in_the_guest_also_after_a_suspend(forward, microvm):
    assert netcat(forward[7000], b"hello\nagain\n") == b"HELLO\nAGAIN\n"
    microvm.suspend()
    assert netcat(forward[7000], b"awake\n") == b"AWAKE\n"
    assert microvm.state == "RUNNING"


def test_every_byte_passes_and_the_end_of_one_direction_leaves_the_other(forward):
    content = bytes(range(256)) * 4096
    with socket.create_connection(("127.0.0.1", forward[7001]), timeout=300) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(1024):
            answer += data
    assert answer.decode() == hashlib.sha256(content).hexdigest()


def test_connections_are_apart_and_a_port_without_a_listener_ends_only_its_own(forward):
    one = socket.create_connection(("127.0.0.1", forward[7000]), timeout=300)
    with socket.create_connection(("127.0.0.1", forward[7999]), timeout=300) as dead:
        assert dead.recv(1) == b""
    other = socket.create_connection(("127.0.0.1", forward[7000]), timeout=300)
    one.sendall(b"one\n"), other.sendall(b"other\n")
    assert (one.recv(64), other.recv(64)) == (b"ONE\n", b"OTHER\n")
    one.close(), other.close()
