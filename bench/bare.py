"""A bare restore of a hearth snapshot: a VMM, started by a script, with nothing around it.

The yardstick of `make bench` and `make bench-kvm`: the same files, the same VMM, one process after the other, no service.
"""

import array
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

GUEST, GATEWAY, AGENT_PORT = "100.64.0.2", "100.64.0.1", 1
GATEWAY_MAC = "06:00:64:40:00:01"
NAMESPACE, TAP = "hearth-bench", "tap0"
PAGE = 4096


def sh(line, check=True):
    subprocess.run(line.split(), check=check, capture_output=True)


class Bare:
    """Restores by hand, in one network namespace that is made once. `snapshot` is a version's directory."""

    def __init__(self, snapshot, work):
        self.snapshot, self.work = pathlib.Path(snapshot), pathlib.Path(work)
        self.clone = self.work / "scratch.img"
        self.work.mkdir(parents=True, exist_ok=True)
        sh(f"ip netns del {NAMESPACE}", check=False)
        for line in [
            f"ip netns add {NAMESPACE}",
            f"ip -n {NAMESPACE} tuntap add {TAP} mode tap",
            f"ip -n {NAMESPACE} link set {TAP} address {GATEWAY_MAC} up",
            f"ip -n {NAMESPACE} address add {GATEWAY}/30 dev {TAP}",
        ]:
            sh(line)
        # This process lives in the namespace from here on: sockets and taps are opened there.
        descriptor = os.open(f"/run/netns/{NAMESPACE}", os.O_RDONLY)
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.there = descriptor

    def close(self):
        sh(f"ip netns del {NAMESPACE}", check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    def enter(self):
        setns(self.there)

    def leave(self):
        setns(self.home)

    def prepare(self, suspended):
        """What is not a part of the restore's time."""

    def restore(self, scratch, suspended=None, then=lambda: None):
        """Spawn → first 200, in seconds; `suspended` is the directory of a suspended MicroVM's state and delta. `then` runs
        while the guest does."""
        self.prepare(suspended)
        self.enter()
        process = None
        try:
            start = time.perf_counter()
            subprocess.run(["cp", "--sparse=always", scratch, self.clone], check=True)
            process = self.spawn()
            self.load(process, suspended)
            thaw()
            first_answer()
            seconds = time.perf_counter() - start
            then()
            return seconds
        finally:
            if process:
                process.kill()
                process.wait()
            self.leave()
            self.forget()


class BareQemu(Bare):
    """By QEMU, with the command line of a hearth process which waits for a guest of `snapshot`."""

    def __init__(self, command_line, snapshot, work):
        super().__init__(snapshot, work)
        # What hearth's process finds in its jail, by its place on the host; the firmware is where QEMU looks for it anyway.
        firmware = command_line.index("-L")
        self.command_line = [
            word.replace("mem-path=/memory,", f"mem-path={self.snapshot}/memory,").replace("filename=/disks/0", f"filename={self.snapshot}/root.erofs")
            for word in command_line[:firmware] + command_line[firmware + 2:]
        ]

    def forget(self):
        for path in (self.clone, self.work / "qmp.sock"):
            path.unlink(missing_ok=True)

    def spawn(self):
        tap = open_tap(TAP)
        self.state_socket, theirs = socket.socketpair()
        # The scratch disk is there from the start instead of being attached; as there, its flushes stay in the page cache.
        disk = f"driver=file,node-name=file1,locking=off,cache.no-flush=on,discard=unmap,filename={self.clone}"
        arguments = [disk if word.startswith("driver=null-co,node-name=file1,") else word for word in self.command_line]

        def descriptors():
            for number, descriptor in ((13, tap), (14, theirs.fileno())):
                os.dup2(descriptor, number)
            for number in (3, 4):
                os.dup2(number + 10, number, inheritable=True)

        process = subprocess.Popen(
            arguments, cwd=self.work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=descriptors,
        )
        os.close(tap)
        theirs.close()
        return process

    def load(self, process, suspended):
        monitor = Monitor(self.work / "qmp.sock")
        state = pathlib.Path(suspended or self.snapshot) / "device-state"
        if suspended:
            write_delta(process.pid, self.snapshot / "memory", pathlib.Path(suspended) / "delta")
        monitor.command("migrate-incoming", uri="fd:4")
        self.state_socket.sendall(state.read_bytes())
        self.state_socket.close()
        monitor.await_event("RESUME")


class Monitor:
    """QMP."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.001)
        self.file = self.socket.makefile("rw")
        self.events = []
        self.read()
        self.command("qmp_capabilities")

    def read(self):
        return json.loads(self.file.readline())

    def command(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = self.read()
            if "event" in answer:
                self.events.append(answer["event"])
            else:
                assert "return" in answer, answer
                return answer["return"]

    def await_event(self, name):
        while name not in self.events:
            self.events.append(self.read().get("event"))


def write_delta(pid, memory, delta):
    """Writes the pages of a delta file into the private mapping of `memory` in the process."""
    with open(f"/proc/{pid}/maps") as maps:
        line = next(line for line in maps if line.rstrip().endswith(str(memory)))
    apply_delta(delta, f"/proc/{pid}/mem", int(line.split("-")[0], 16))


def apply_delta(delta, memory, base=0):
    """Writes the pages of a delta file into a file in which guest memory begins at `base`."""
    with open(delta, "rb") as source, open(memory, "r+b", buffering=0) as target:
        header = source.read(PAGE)
        runs = struct.unpack_from("<Q", header, 24)[0]
        table = array.array("Q", source.read(runs * 16))
        source.seek(PAGE + -(-runs * 16 // PAGE) * PAGE)
        for index in range(runs):
            first, count = table[2 * index], table[2 * index + 1]
            zero, count = count >> 63, count & ~(1 << 63)
            target.seek(base + first * PAGE)
            target.write(bytes(count * PAGE) if zero else source.read(count * PAGE))


def thaw():
    """Tells the agent the time, as every restore must."""
    body = b"\x03" + varint(time.time_ns()) + os.urandom(32) + b"\x01"
    with socket.create_connection((GUEST, AGENT_PORT), timeout=60) as agent:
        agent.sendall(struct.pack("<I", len(body)) + body)
        assert agent.recv(64)


def first_answer():
    """GET /health of the application."""
    ask("GET", "/health")


def ask(method, path, body=None):
    """One request to the application, through the agent as every request goes."""
    with socket.create_connection((GUEST, AGENT_PORT), timeout=60) as agent:
        forward = b"\x06" + varint(8080)
        agent.sendall(struct.pack("<I", len(forward)) + forward)
        assert agent.recv(5)[4] == 2, "connected"
        connection = http.client.HTTPConnection("guest")
        connection.sock = agent
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, as hearth opens its own.
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH14x", name.encode(), 0x0002 | 0x1000 | 0x4000))
    settle_link(name)
    return tap


def settle_link(name):
    """SIOCETHTOOL with ETHTOOL_GLINK: the kernel finishes bringing the link up instead of doing so in the background."""
    value = ctypes.create_string_buffer(struct.pack("II", 0x0A, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8946, struct.pack("16sP8x", name.encode(), ctypes.addressof(value)))


def setns(descriptor):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")
