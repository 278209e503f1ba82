"""`hearth forward` under clients that nobody here wrote: psql and ssh."""

import json
import os
import subprocess
import sys

import pytest

from console import ingress
from support import WAKES

# Answers every query with the query itself, in the one way that psql understands (protocol 3.0, simple queries).
POSTGRES = """
import socket, struct, threading
def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body
def talk(connection):
    while True:
        length, code = struct.unpack("!II", exactly(connection, 8))
        exactly(connection, length - 8)
        if code == 196608:
            break
        connection.sendall(b"N")
    ready = message(b"Z", b"I")
    connection.sendall(message(b"R", struct.pack("!I", 0)) + ready)
    while True:
        kind, length = struct.unpack("!cI", exactly(connection, 5))
        text = exactly(connection, length - 4).rstrip(bytes(1))
        if kind == b"X":
            return
        column = b"query" + bytes(1) + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0)
        row = struct.pack("!HI", 1, len(text)) + text
        done = message(b"C", b"SELECT 1" + bytes(1))
        connection.sendall(message(b"T", struct.pack("!H", 1) + column) + message(b"D", row) + done + ready)
def accept(server):
    while True:
        threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()
threading.Thread(target=accept, args=(socket.create_server(("127.0.0.1", 5432)),), daemon=True).start()
"""
SSH = """
import asyncio, subprocess, sys, threading
sys.path.insert(0, "/opt/ssh")
import asyncssh
class Open(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False
async def command(process):
    done = subprocess.run(process.command, shell=True, input=(await process.stdin.read()).encode(), capture_output=True)
    process.stdout.write(done.stdout.decode())
    process.exit(done.returncode)
async def serve():
    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen("127.0.0.1", 2222, server_factory=Open, server_host_keys=[key], process_factory=command)
    listening.set()
    await asyncio.Future()
listening = threading.Event()
threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
listening.wait(120)
"""


@pytest.fixture(scope="module")
def vm(hearth, image):
    connectors = ingress(hearth, "HTTP_INGRESS", "SHELL_INGRESS")
    vm = hearth.run(image, idlePolicy=WAKES, ingressNetworkConnectors=connectors)
    yield vm
    vm.terminate()


@pytest.fixture(scope="module")
def forward(hearth, vm):
    """Local ports that lead to 5432 and 2222 of the MicroVM."""
    process = subprocess.Popen(
        [hearth.binary, "--json", "forward", vm.id, "5432:0", "2222:0"],
        env=hearth.environment, stdout=subprocess.PIPE, text=True,
    )
    said = [json.loads(process.stdout.readline()) for _ in range(2)]
    yield {line["port"]: line["local"].rpartition(":")[2] for line in said}
    process.terminate()
    process.wait()


def psql(port, query):
    return subprocess.run(
        ["psql", "--no-psqlrc", "-At", f"host=127.0.0.1 port={port} user=anybody dbname=any connect_timeout=120", "-c", query],
        capture_output=True, text=True, timeout=240,
    )


def test_psql_asks_through_a_forwarded_port_also_after_a_suspend(vm, forward):
    assert vm.python(POSTGRES) == ""
    done = psql(forward[5432], "select 'hello'")
    assert done.stdout == "select 'hello'\n", done.stderr
    vm.suspend()
    done = psql(forward[5432], "select 'awake'")
    assert done.stdout == "select 'awake'\n", done.stderr
    assert vm.state == "RUNNING"


def test_ssh_runs_a_command_through_a_forwarded_port(hearth, vm, forward, tmp_path):
    packages = tmp_path / "ssh"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", packages,
         "--only-binary=:all:", "--python-version", "3.13", "--platform", "manylinux2014_x86_64", "asyncssh==2.24.1"],
        check=True,
    )
    hearth.cli("cp", str(packages), f"{vm.id}:/opt/ssh")
    assert vm.python(SSH) == "True", "it does not listen"
    data = os.urandom(100_000).hex()
    done = subprocess.run(
        ["ssh", "-F", "none", "-p", forward[2222], "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
         "-o", "ConnectTimeout=120", "-o", "BatchMode=yes", "anybody@127.0.0.1", "tr a-f A-F; exit 3"],
        input=data, capture_output=True, text=True, timeout=300,
    )
    assert (done.returncode, done.stdout) == (3, data.upper()), done.stderr
