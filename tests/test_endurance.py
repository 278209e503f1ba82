"""Many suspends of one MicroVM, many launches from one snapshot: nothing differs, nothing leaks, no random number twice.

`make test` does a few of each, `make endurance` hundreds.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
from concurrent.futures import ThreadPoolExecutor

from support import wait_for

CYCLES = int(os.environ.get("HEARTH_CYCLES", "12"))
LAUNCHES = int(os.environ.get("HEARTH_LAUNCHES", "24"))
# Guests that compute at a time leave each launch its share of the processors.
AT_A_TIME = min(4, 2 * os.cpu_count())
# Small enough for the smallest size, large enough to lie all over the guest's memory.
BYTES = 24 << 20
WRITES = 2000

# The same program runs in the guest and here.
PROGRAM = f"""
import hashlib, random
chance = random.Random(7)
memory = bytearray(chance.randbytes({BYTES}))
number = 1
def step():
    global number
    for _ in range({WRITES}):
        memory[chance.randrange({BYTES})] = chance.randrange(256)
    for _ in range(1000):
        number = (number * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    half = number ** 0.5
    return hashlib.sha256(memory).hexdigest(), number, half.hex()
"""
FILE_STEP = """
with open('/root/kept', 'ab') as file:
    file.write(str(number).encode())
result = step() + (hashlib.sha256(open('/root/kept', 'rb').read()).hexdigest(),)
"""
# Each in a process of its own, but for the first three, which the snapshot's process asks itself.
DRAWS = """
import os, secrets, subprocess, sys
def program(*words):
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout.strip()
def fresh(code):
    return program(sys.executable, '-c', code)
draws = dict(
    urandom=open('/dev/urandom', 'rb').read(16).hex(),
    secrets=secrets.token_hex(16),
    uuid=open('/proc/sys/kernel/random/uuid').read().strip(),
    uuid4=fresh('import uuid; print(uuid.uuid4())'),
    uuidgen=program('uuidgen'),
    openssl=program('openssl', 'rand', '-hex', '16'),
    ssl=fresh('import ssl; print(ssl.RAND_bytes(16).hex())'),
)
"""


def holdings(hearth):
    """What the daemon and this machine hold for it."""
    descriptors = len(list(pathlib.Path(f"/proc/{hearth.pid}/fd").iterdir()))
    disk = sum(path.lstat().st_blocks * 512 for path in (hearth.data / "microvms").rglob("*"))
    return dict(
        processes=len(hearth.guests()), namespaces=len(hearth.namespaces()), groups=len(hearth.control_groups()),
        directories=len(list((hearth.data / "microvms").iterdir())), descriptors=descriptors, disk=disk,
    )


# One process more may wait for the next launch than did before, with a namespace, control groups and descriptors of its own;
# connections of the tests' own clients come and go. What leaks in each round is soon more than that.
COME_AND_GO = dict(processes=1, namespaces=2, groups=4, directories=0, descriptors=24, disk=0)


def await_nothing_leaked(hearth, before, disk=0):
    def leaked():
        now = holdings(hearth)
        allowed = {what: before[what] + more for what, more in COME_AND_GO.items()}
        allowed["disk"] += disk
        return {what: (now[what], most) for what, most in allowed.items() if now[what] > most}

    with contextlib.suppress(AssertionError):
        wait_for("nothing leaked", lambda: not leaked(), 30)
    assert leaked() == {}


def test_memory_files_and_arithmetic_are_the_same_after_every_suspend(hearth, microvm, tmp_path):
    here = {}
    exec(PROGRAM, here)
    microvm.python(PROGRAM)
    kept = b""
    before = None
    for cycle in range(CYCLES):
        microvm.suspend()
        microvm.resume()
        kept += str(here["number"]).encode()
        expected = here["step"]() + (hashlib.sha256(kept).hexdigest(),)
        assert microvm.python(FILE_STEP + "\nresult") == repr(expected), f"after suspend {cycle + 1}"
        # The first suspends write what was never written before.
        if cycle == 3:
            before = holdings(hearth)
    await_nothing_leaked(hearth, before, disk=8 << 20)


def test_launches_from_one_snapshot_are_alike_and_share_no_random_number(hearth, image):
    warm = hearth.run(image)
    warm.python("1")
    warm.terminate()
    before = holdings(hearth)

    def one(place):
        vm = hearth.run(image)
        try:
            draws = json.loads(vm.python(DRAWS + "\n__import__('json').dumps(draws)").strip("'"))
            seed = random.Random(place).randrange(1 << 30)
            found = vm.python(f"import hashlib, random\nhashlib.sha256(random.Random({seed}).randbytes(1 << 20)).hexdigest()")
            expected = hashlib.sha256(random.Random(seed).randbytes(1 << 20)).hexdigest()
            assert found.strip("'") == expected
            return draws
        finally:
            vm.terminate()

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        draws = list(threads.map(one, range(LAUNCHES)))
    for source in draws[0]:
        values = {draw[source] for draw in draws}
        assert len(values) == LAUNCHES, source
    await_nothing_leaked(hearth, before)
