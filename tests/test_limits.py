"""What a guest's devices may move: its disks and its network, by its size and the operator's settings, on whatever VMM runs."""

import time

import pytest

RATE = 1 << 20
OPERATIONS = 100
# Seven seconds' worth more than the burst of one second's.
AMOUNT = 8 * RATE
REQUESTS = 800
LEAST_SECONDS = 5

LIMITS = ("disk_bytes", "disk_operations", "network_bytes")

DISK = f"""
import mmap, os
def write():
    file = os.open('/root/file', os.O_RDWR | os.O_CREAT, 0o600)
    os.write(file, bytes({AMOUNT}))
    os.fsync(file)
    os.close(file)
def read():
    file = os.open('/root/file', os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    total = 0
    while data := os.read(file, 1 << 20):
        total += len(data)
    os.close(file)
    return total
def requests():
    file, page = os.open('/root/file', os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
    total = sum(os.preadv(file, [page], 4096 * number) for number in range({REQUESTS}))
    os.close(file)
    return total
"""
NETWORK = """
import socket
def dial(wish):
    connection = socket.create_connection((%r, 8001), timeout=120)
    connection.sendall(wish)
    return connection
def receive():
    connection, total = dial(b'r'), 0
    while data := connection.recv(1 << 20):
        total += len(data)
    return total
def send():
    connection = dial(b's')
    connection.sendall(bytes(%d))
    connection.shutdown(socket.SHUT_WR)
    return int(connection.makefile().read())
"""
SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 8001))
print("listening")
while True:
    connection, _ = server.accept()
    if connection.recv(1) == b"r":
        connection.sendall(bytes(int(sys.argv[2])))
    else:
        total = 0
        while data := connection.recv(1 << 20):
            total += len(data)
        connection.sendall(str(total).encode())
    connection.close()
"""


@pytest.fixture
def limit(hearth, image):
    """Starts the daemon anew with these limits for each CPU."""
    file = hearth.data / "hearthd.toml"
    before = file.read_text()

    def restart(*limits):
        lines = "".join(f"{name}_per_second_per_vcpu = {value}\n" for name, value in zip(LIMITS, limits))
        hearth.stop()
        file.write_text(before.replace("[limits]\n", f"[limits]\n{lines}"))
        hearth.start()

    yield restart
    hearth.stop()
    file.write_text(before)
    hearth.start()


@pytest.fixture
def server(outside):
    """Sends and takes what a guest on its Internet wants."""
    with outside.serving(SERVER, outside.address, str(AMOUNT)):
        yield outside.address


def seconds(vm, call, result):
    begun = time.monotonic()
    assert vm.python(call) == str(result)
    return time.monotonic() - begun


def all_seconds(vm):
    return {
        "write": seconds(vm, "write()", ""),
        "read": seconds(vm, "read()", AMOUNT),
        "requests": seconds(vm, "requests()", 4096 * REQUESTS),
        "receive": seconds(vm, "receive()", AMOUNT),
        "send": seconds(vm, "send()", AMOUNT),
    }


def test_a_guest_is_held_to_its_limits_after_a_resume_too_and_without_limits_to_none(hearth, image, limit, server):
    limit(RATE, OPERATIONS, RATE)
    vm = hearth.run(image)
    assert vm.python(DISK + NETWORK % (server, AMOUNT)) == ""
    limited = all_seconds(vm)
    assert min(limited.values()) >= LEAST_SECONDS, limited
    vm.suspend().resume()
    resumed = {"write": seconds(vm, "write()", ""), "send": seconds(vm, "send()", AMOUNT)}
    assert min(resumed.values()) >= LEAST_SECONDS, resumed
    # What it was started with is not for ever: the next process has the settings of its time.
    vm.suspend()
    limit(0, 0, 0)
    vm.resume()
    free = all_seconds(vm)
    # On a busy machine all this takes its time without limits, too.
    assert all(free[name] + 1 < limited[name] for name in limited), (limited, free)
    vm.terminate()


def test_a_limit_that_would_stop_a_guest_is_refused_by_name(hearth, image, limit):
    with pytest.raises(AssertionError) as refused:
        limit(1000, 0, 0)
    assert "limits.disk_bytes_per_second_per_vcpu is 1000; it must be 65536 to" in str(refused.value)
