"""A gibibyte up and a gibibyte down through a MicroVM of the 512 MiB tier: everything arrives, nobody keeps it."""

import hashlib

import pytest

GIB = 1 << 30
# In the guest: counts and hashes what comes up, and makes what goes down, piece by piece.
APPLICATION = """
import hashlib, http.server, json, threading
class Bulk(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_POST(self):
        left, digest, piece = int(self.headers['Content-Length']), hashlib.sha1(), bytearray(1 << 18)
        while left:
            got = self.rfile.readinto(memoryview(piece)[:min(left, len(piece))])
            if not got: return
            digest.update(memoryview(piece)[:got])
            left -= got
        answer = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def do_GET(self):
        left, piece = int(self.path[1:]), bytes(range(256)) * 1024
        self.send_response(200)
        self.send_header('Content-Length', str(left))
        self.end_headers()
        while left:
            sent = min(left, len(piece))
            self.wfile.write(memoryview(piece)[:sent])
            left -= sent
bulk = http.server.ThreadingHTTPServer(('127.0.0.1', 9300), Bulk)
threading.Thread(target=bulk.serve_forever, daemon=True).start()
def resident():
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])
def available():
    return int(next(line for line in open('/proc/meminfo') if line.startswith('MemAvailable')).split()[1])
"""
PIECE = bytes(range(256)) * 1024
GROWTH_KIB = 128 << 10


def peak_kib(pid):
    """The most memory that a process has ever had."""
    status = open(f"/proc/{pid}/status").read()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


@pytest.fixture(scope="module")
def vm(hearth, image):
    vm = hearth.run(image)
    assert vm.python(APPLICATION) == ""
    yield vm
    vm.terminate()


def head(vm, first, *more):
    lines = [first, f"Host: {vm.endpoint}", f"X-aws-proxy-auth: {vm.token(9300)}", "X-aws-proxy-port: 9300", *more]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def answer(stream):
    """Status and body reader of a response."""
    reader = stream.makefile("rb", buffering=1 << 18)
    status = int(reader.readline().split()[1])
    headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(reader.readline, b"\r\n"))
    return status, int(headers["content-length"]), reader


def test_a_gibibyte_goes_up_and_comes_down_and_neither_daemon_nor_guest_grows(vm):
    before = peak_kib(vm.hearth.pid), int(vm.python("resident()")), int(vm.python("available()"))
    with vm.connect(timeout=300) as stream:
        digest = hashlib.sha1()
        stream.sendall(head(vm, "POST / HTTP/1.1", f"Content-Length: {GIB}"))
        for _ in range(GIB // len(PIECE)):
            stream.sendall(PIECE)
            digest.update(PIECE)
        status, length, reader = answer(stream)
        assert (status, reader.read(length).decode()) == (200, digest.hexdigest())
    with vm.connect(timeout=300) as stream:
        stream.sendall(head(vm, f"GET /{GIB} HTTP/1.1"))
        status, length, reader = answer(stream)
        assert (status, length) == (200, GIB)
        view, left = memoryview(bytearray(len(PIECE))), GIB
        while left:
            got = reader.readinto(view)
            assert got and view[:got] == PIECE[:got], "everything in its place"
            left -= got
    after = peak_kib(vm.hearth.pid), int(vm.python("resident()")), int(vm.python("available()"))
    assert after[0] - before[0] < GROWTH_KIB, ("the daemon", before, after)
    assert after[1] - before[1] < GROWTH_KIB, ("the application", before, after)
    assert before[2] - after[2] < GROWTH_KIB, ("the guest", before, after)
