"""What the tests of hostile guests need: guests that attack, somebody who watches what leaves them, names that lie."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = ROOT / "tests/images/hostile"
BASE = pathlib.Path(os.environ.get("HEARTH_DATA", "/var/lib/hearth")) / "base"
MODULE = ROOT / "target/hostile-module"
MARK = b"hearth-hostile"
EVIL_MAC = "02:66:66:66:66:66"
# The port of a connection that is allowed, sent after an attack: what has not arrived by then never will.
LAST = 4999


def build(hearth, name, directory):
    """The image of the attacks, with the module for the guest's kernel."""
    made = subprocess.run([PROJECT / "module/build", MODULE, BASE], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    project = directory / "hostile"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("module", "__pycache__"))
    shutil.copy(MODULE / "hostile.ko", project)
    hearth.cli("image", "build", str(project), "--name", name)
    return name


def do(vm, code, timeout=120):
    """The value of an expression in the guest, or what a program printed there."""
    status, _, body = vm.request("POST", "/run", body=code.encode(), timeout=timeout)
    assert status == 200, (status, body)
    answer = json.loads(body)
    assert "error" not in answer, answer["error"]
    return answer["value"]


def addresses():
    """IPv4 addresses of the host."""
    links = json.loads(subprocess.run(["ip", "-json", "-4", "address"], check=True, capture_output=True).stdout)
    return sorted({one["local"] for link in links for one in link["addr_info"]})


def processor_seconds(pid):
    """Of all its threads, those that have ended included."""
    try:
        # clock_getcpuclockid(3), which Python has for threads alone.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0


def neighbours(hearth):
    """(namespace, address, MAC address) of every neighbour that the host and the guests' namespaces know; "" is the host."""
    prefix = hearth.configuration["network"]["prefix"]
    found = []
    for name in ["", *hearth.namespaces()]:
        enter = ["nsenter", f"--net=/run/{prefix}/netns/{name}"] if name else []
        done = subprocess.run([*enter, "ip", "-json", "neighbour"], capture_output=True, text=True)
        # A waiting namespace may have gone meanwhile.
        found += [(name, entry["dst"], entry.get("lladdr")) for entry in json.loads(done.stdout or "[]")]
    return found


class Watch:
    """What arrives at the machine on the Internet, up to the SYN to the port LAST."""

    CODE = """
import json, socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(("eth0", 0))
raw.settimeout(60)
print("listening")
seen = []
while True:
    data, origin = raw.recvfrom(4096)
    if origin[2] == socket.PACKET_OUTGOING:
        continue
    seen.append(data.hex())
    if data[12:14] == b"\\x08\\0" and data[23] == 6 and data[36:38] == int(sys.argv[1]).to_bytes(2, "big"):
        break
print(json.dumps(seen))
"""

    def __init__(self, outside):
        self.process = outside.python(self.CODE, str(LAST))
        assert self.process.stdout.readline() == "listening\n"

    def end(self):
        """The frames; the last one is the one that was waited for."""
        line = self.process.stdout.readline()
        self.process.wait()
        assert line, "the connection that is allowed did not arrive"
        return [bytes.fromhex(one) for one in json.loads(line)]


class LyingNames:
    """A name server for which `a-b-c-d.rebind.example` is the address a.b.c.d."""

    def __init__(self):
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, peer = self.server.recvfrom(65536)
            except OSError:
                return
            try:
                answer = self.answer(query)
            except (IndexError, ValueError, OSError):
                answer = query[:2] + b"\x80\1" + bytes(8)  # FORMERR
            self.server.sendto(answer, peer)

    @staticmethod
    def answer(query):
        end = query.index(b"\0", 12) + 5
        label = query[13:13 + query[12]].decode()
        is_a = query[end - 4:end - 2] == b"\0\1"
        head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + query[12:end]
        return head + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(label.replace("-", ".")) if is_a else head

    def close(self):
        self.server.close()


class Sizes:
    """The most bytes that a file in the guests' own directories took on the host's disk, while it is watched: but for what hearth
    puts there, the clone of a scratch disk with which a process waits for its guest, and device states."""

    OF_HEARTH = ("scratch.img", "device-state", "saved-state", "loaded-state")

    def __init__(self, hearth):
        self.directory, self.most, self.ends = hearth.data / "run", 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.ends.wait(0.1):
            self.most = max(self.most, self.now())

    def now(self):
        total = 0
        for path in self.directory.glob("*/*"):
            if path.name in self.OF_HEARTH:
                continue
            with contextlib.suppress(OSError):
                status = path.lstat()
                # Holes take nothing; a file system in memory may take more than was written.
                total = max(total, min(status.st_blocks * 512, status.st_size))
        return total

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def files(hearth):
    """What an attack must not change: the image's files and what they were last written."""
    version = next((hearth.data / "images").glob("*/1.0"))
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in version.iterdir() if path.is_file()}


def memory_of(pid):
    """Resident bytes of a process."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def during(seconds, work):
    """Repeats something for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()
        time.sleep(0.2)
