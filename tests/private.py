"""A network of the tests' own behind the host, and settings that name it."""

import contextlib
import subprocess
import sys

from support import NUMBER

NAMESPACE = f"htst{NUMBER}out"
LINK = f"htst{NUMBER}o"
# Reached over the host, as a private network of a company would be; two servers in it.
GATEWAY, SERVER, OTHER = (f"10.{130 + NUMBER}.0.{last}" for last in (1, 2, 3))
RANGE = f"10.{130 + NUMBER}.0.0/24"

SERVERS = """
import socket, struct, sys, threading

def tcp(address, port):
    listener = socket.create_server((address, port))
    while True:
        client, _ = listener.accept()
        client.sendall(b"hello")
        client.close()

def udp(address, port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    while True:
        data, peer = server.recvfrom(2048)
        server.sendto(data, peer)

def dns(address, answer):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, peer = server.recvfrom(512)
        end = query.index(b"\\0", 12) + 5
        head = query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + query[12:end]
        is_a = query[end - 4:end - 2] == b"\\0\\1"
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton(answer)
        server.sendto(head + record if is_a else head[:7] + b"\\0" + head[8:], peer)

server, other = sys.argv[1:]
for target, *arguments in [(tcp, server, 80), (tcp, server, 81), (tcp, other, 80), (udp, server, 9000), (dns, server, server)]:
    threading.Thread(target=target, args=arguments, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def network():
    """The network with its servers: TCP on 80 and 81, UDP on 9000, and a name server for which every name is SERVER."""
    remove()
    ip("netns", "add", NAMESPACE)
    ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
    ip("address", "add", f"{GATEWAY}/24", "dev", LINK)
    ip("link", "set", LINK, "up")
    ip("-n", NAMESPACE, "link", "set", "eth0", "up")
    for address in (SERVER, OTHER):
        ip("-n", NAMESPACE, "address", "add", f"{address}/24", "dev", "eth0")
    with open(f"/proc/sys/net/ipv4/conf/{LINK}/forwarding", "w") as setting:
        setting.write("1")
    servers = subprocess.Popen(
        ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", SERVERS, SERVER, OTHER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert servers.stdout.readline() == "ready\n"
        yield
    finally:
        servers.stdin.close()
        servers.wait(timeout=30)
        remove()


def ip(*words, check=True):
    subprocess.run(["ip", *words], check=check, capture_output=not check)


def remove():
    ip("link", "del", LINK, check=False)
    ip("netns", "del", NAMESPACE, check=False)


@contextlib.contextmanager
def settings(hearth, more, first=""):
    """The daemon with more settings, some of them before all sections; MicroVMs go on when it restarts."""
    path = hearth.data / "hearthd.toml"
    before = path.read_text()
    try:
        path.write_text(first + before + more)
        restart(hearth)
        yield
    finally:
        path.write_text(before)
        restart(hearth)


def restart(hearth):
    hearth.stop()
    hearth.start()
