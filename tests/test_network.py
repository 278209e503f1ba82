"""What guests reach and what they do not: names and the Internet, but not the host, private ranges or each other."""

import socket

import pytest

ECHO = """
import socket, sys, threading
server = socket.create_server((sys.argv[1], 8000))
print("listening")
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""

REACH = """
import socket
def reach(address, port, seconds=2):
    try:
        socket.create_connection((address, port), timeout=seconds).close()
        return 'open'
    except OSError:
        return 'closed'
"""


@pytest.fixture
def echo(outside):
    """Address of an echo server on the Internet, port 8000."""
    with outside.serving(ECHO, outside.address):
        yield outside.address


def test_outbound_connections_work_and_are_dead_after_each_resume(microvm, echo):
    microvm.python(REACH + f"\nconnection = socket.create_connection(('{echo}', 8000), timeout=30)")
    assert microvm.python("connection.sendall(b'hello'), connection.recv(5)") == "(None, b'hello')"
    for wake in (microvm.resume, lambda: None):
        microvm.suspend()
        wake()
        microvm.python(
            "try:\n"
            "    connection.sendall(b'again')\n"
            "    outcome = connection.recv(5)\n"
            "except OSError as error:\n"
            "    outcome = 'dead'\n"
        )
        assert microvm.python("outcome") in ("'dead'", "b''")
        microvm.python(f"connection = socket.create_connection(('{echo}', 8000), timeout=30)")
        assert microvm.python("connection.sendall(b'fresh'), connection.recv(5)") == "(None, b'fresh')"


def test_nothing_is_reachable_on_the_host_in_private_ranges_or_in_other_microvms(hearth, image, microvm, outside):
    other = hearth.run(image)
    try:
        microvm.python(REACH)
        listen = hearth.configuration["listen"].split(":")
        closed = [
            ("127.0.0.1", int(listen[1])),  # the daemon, seen from the host
            (outside.host, int(listen[1])),  # an address of the host
            ("192.168.1.1", 80),
            ("10.0.0.1", 80),
            ("172.16.0.1", 80),
            ("169.254.1.1", 80),
        ]
        # Every address that another MicroVM, its namespace or its link could have.
        own = hearth.configuration["network"]["range"].split("/")[0].rsplit(".", 1)[0]
        closed += [(f"{own}.{last}", port) for last in range(12) for port in (8080, 9000)]
        # A server on every address of the host must stay unseen, too.
        with socket.create_server(("0.0.0.0", 0)) as server:
            closed += [(outside.host, server.getsockname()[1])]
            outcome = microvm.python(f"[(a, p) for a, p in {closed!r} if reach(a, p, 0.5) == 'open']")
        assert outcome == "[]"
        # They have the same addresses: what one sees there is itself.
        other.python("marker = 'other'")
        assert "NameError" in microvm.python(
            "import urllib.request\n"
            "urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=5).read()\n"
            "marker"
        )
    finally:
        other.terminate()


def test_outbound_udp_is_dropped_and_names_still_resolve(microvm, outside):
    sink = outside.python(
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.bind((sys.argv[1], 5353)); s.settimeout(30)\n"
        "print('listening')\n"
        "print(s.recv(100).decode())\n",
        outside.address,
    )
    assert sink.stdout.readline() == "listening\n"
    microvm.python(
        "import socket\n"
        "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for _ in range(3): udp.sendto(b'from the guest', ('{outside.address}', 5353))\n"
    )
    # What has not arrived before the host's never will.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"from the host", (outside.address, 5353))
    assert sink.stdout.readline() == "from the host\n"
    sink.wait()
    # A name without an answer is refused by a resolver, not by silence: the guest's resolver is there.
    assert "gaierror" in microvm.python("import socket; socket.getaddrinfo('no-such-host.invalid', 80)")
