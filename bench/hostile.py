"""What a request to a MicroVM costs while the one beside it attacks: p50 with and without each attack, in turns.

Twice: on processors that all share, and with one for the attacker alone. A ratio is the median of those of all turns; between the
quartiles beside it lies the half of them. `cpu` is how much more processor time the same request took: two guests share caches and,
with SMT, the processor's core, and there hearth has no say. `has`, `took` and `node` are what the guest that was asked, the
attacker and the daemon took of one processor while it attacked. `back` are the turns in which the attacker had used up its credit of
processor time, of all; `asked`, those in which the other guest had.

Prints a table and writes bench/results/hostile.json, or where `--result` says. Absolute times belong to the machine; the ratios are
the result.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import statistics
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import hostile  # noqa: E402
from daemon import bench_daemon  # noqa: E402
from hostile import do, processor_seconds  # noqa: E402
from support import WAKES, stands_back  # noqa: E402

# Each goes on until its MicroVM ends. 198.51.100.0/24 is nobody's (RFC 5737).
ATTACKS = {
    "busy-loop": "for_seconds(3600, lambda: sum(range(100000)))",
    "fork-bomb": "fork_bomb(3600)",
    "memory": "for_seconds(3600, take_memory)",
    "disk-writes": "for_seconds(3600, lambda: write_disk('vdb', 7 << 30))",
    "disk-full": "for_seconds(3600, fill_disk)",
    "output-flood": "flood_log(3600)",
    "console-flood": "flood_console(1 << 40)",
    "spoofed-packets": "for_seconds(3600, lambda: send(probe('203.0.113.7', '198.51.100.2', 7) * 100))",
    "connections": "for_seconds(3600, lambda: send(syns('198.51.100.3', range(1, 65536))))",
    "port-scan-of-the-gateway": "for_seconds(3600, lambda: send(syns(GATEWAY, range(1, 65536))))",
    "names": "for_seconds(3600, lambda: send([frame(ip(GUEST, GATEWAY, 17, udp(GUEST, GATEWAY, 53, os.urandom(2) + b'\\1\\0' + bytes(8))))] * 100))",
    "metadata": "for_seconds(3600, token)",
    "arp": "for_seconds(3600, lambda: send([frame(arp(1, EVIL_MAC, GATEWAY, bytes(6), GATEWAY), 0x0806, EVIL_MAC, EVERYBODY)] * 100))",
    "vmm-log": "for_seconds(3600, lambda: load(mode='flood', type=ENTROPY, rounds=1000))",
    "queue-noise": "for_seconds(3600, lambda: load(mode='loop', type=ENTROPY, rounds=1000))",
    "io-ports": "for_seconds(3600, lambda: load(mode='ports'))",
}

PROCESSORS = os.sched_getaffinity(0)


class Client:
    """Requests to a MicroVM over one connection."""

    def __init__(self, vm):
        self.socket = vm.connect()
        self.request = (
            f"GET / HTTP/1.1\r\nHost: {vm.endpoint}\r\nX-aws-proxy-port: 8080\r\nX-aws-proxy-auth: {vm.token(8080)}\r\n\r\n"
        ).encode()

    def ask(self):
        """Seconds until the whole answer."""
        start = time.perf_counter()
        self.socket.sendall(self.request)
        answer = b""
        while b"here" not in answer:
            piece = self.socket.recv(65536)
            assert piece and (not answer or answer.startswith(b"HTTP/1.1 200")), answer
            answer += piece
        return time.perf_counter() - start

    def times(self, count):
        return [self.ask() for _ in range(count)]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=100, help="in each turn")
    options.add_argument("--turns", type=int, default=6, help="of each attack, two at least")
    options.add_argument("--vmm", choices=["auto", "qemu", "firecracker"], default="auto")
    options.add_argument("--attack", action="append", choices=ATTACKS, help="only this one; nothing is written then")
    options.add_argument("--result", type=pathlib.Path, default=ROOT / "bench/results/hostile.json")
    options = options.parse_args()
    if len(PROCESSORS) < 2:
        raise SystemExit("one processor: there is none for the attacker alone. Cure: a machine with two")
    with bench_daemon(f'vmm = "{options.vmm}"') as hearth, tempfile.TemporaryDirectory() as directory:
        image = hostile.build(hearth, "hostile", pathlib.Path(directory))
        client = Client(hearth.run(image, idlePolicy=WAKES))
        time.sleep(3)
        print(" " * 26 + "".join(f"{place:>88}" for place in ("shared", "apart")))
        print(" " * 26 + "".join(f"{what:>8}" for what in ("quiet", "attack", "ratio", "first", "third", "cpu", "has", "took", "node", "back", "asked") * 2))
        asked = busiest(hearth, lambda: client.times(300))
        results = {name: measure(hearth, image, client, asked, name, options) for name in options.attack or ATTACKS}
    if not options.attack:
        result = {"machine": machine(), "requests": options.requests, "turns": options.turns, "p50_milliseconds": results}
        options.result.write_text(json.dumps(result, indent=2) + "\n")
        print(f"\nwritten to {options.result}")


def busiest(hearth, work):
    """The VMM process that runs most meanwhile."""
    before = {pid: processor_seconds(pid) for pid in hearth.processes()}
    work()
    return max(before, key=lambda pid: processor_seconds(pid) - before[pid])


def measure(hearth, image, client, asked, name, options):
    """Compares in short turns, so that a machine that is slower for a while is so for both: on all processors, then with one
    processor for the attacker alone, each while it is stopped and while it attacks."""
    attacker = hearth.run(image, idlePolicy=WAKES)
    do(attacker, f"detach(lambda: {ATTACKS[name]}, delay=0.2)")
    time.sleep(3)
    others = [pid for pid in hearth.processes() if pid != asked]

    def clocks():
        return time.perf_counter(), processor_seconds(asked), sum(map(processor_seconds, others)), processor_seconds(hearth.pid)

    its_own = {max(PROCESSORS)}
    places = {"shared": (PROCESSORS, PROCESSORS), "apart": (PROCESSORS - its_own, its_own)}
    turns = {place: [] for place in places}
    for turn in range(options.turns):
        for place, (ours, theirs) in places.items():
            run_on(ours, asked, hearth.pid, os.getpid())
            run_on(theirs, *others)
            taken = {}
            # Every other turn is the other way round: a machine that becomes slower is no attack.
            for number in (signal.SIGSTOP, signal.SIGCONT)[:: (-1) ** turn]:
                for pid in others:
                    os.kill(pid, number)
                # An attack goes on for ever: the credit of processor time that its guest got by standing still is used up by then.
                time.sleep(1.2)
                client.times(5)
                start = clocks()
                times = client.times(options.requests)
                elapsed, *seconds = (after - before for before, after in zip(start, clocks()))
                back = any(map(stands_back, others)), stands_back(asked)
                shares = (processor / elapsed for processor in seconds)
                taken[number] = Taken(statistics.median(times) * 1000, seconds[0], *shares, *back)
            turns[place].append((taken[signal.SIGSTOP], taken[signal.SIGCONT]))
    # One that waits for the next launch is among them.
    for pid in others:
        os.kill(pid, signal.SIGCONT)
    run_on(PROCESSORS, asked, hearth.pid, os.getpid(), *others)
    attacker.terminate()
    found = {place: compare(pairs) for place, pairs in turns.items()}
    print(f"{name:26}" + "".join(f"{value:8.2f}" for place in found.values() for value in place.values()), flush=True)
    return found


def run_on(processors, *pids):
    """Has all threads of these processes run there, and those that they start."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), processors)


class Taken(typing.NamedTuple):
    """By the requests of one turn: milliseconds each (p50), seconds of processor time of the VMM that was asked together, the shares
    of one processor that it, the attacker and the daemon had, and whether the attacker and the guest that was asked stood back behind
    others."""

    p50: float
    processor: float
    asked: float
    attacker: float
    daemon: float
    attacker_stands_back: bool
    asked_stands_back: bool


def compare(turns):
    """`processor`: how much more processor time the same request takes its VMM, which is how much slower the processor is."""
    ratios = [attacked.p50 / quiet.p50 for quiet, attacked in turns]
    first, ratio, third = statistics.quantiles(ratios, n=4, method="inclusive")
    found = {
        "quiet": statistics.median(quiet.p50 for quiet, _ in turns),
        "attacked": statistics.median(attacked.p50 for _, attacked in turns),
        "ratio": ratio,
        "first_quartile": first,
        "third_quartile": third,
        "processor": statistics.median(attacked.processor / quiet.processor for quiet, attacked in turns),
        **{
            f"{who}_took": statistics.median(getattr(attacked, who) for _, attacked in turns)
            for who in ("asked", "attacker", "daemon")
        },
        "attacker_stands_back": statistics.mean(attacked.attacker_stands_back for _, attacked in turns),
        "asked_stands_back": statistics.mean(attacked.asked_stands_back for _, attacked in turns),
    }
    return {name: round(value, 2) for name, value in found.items()}


def machine():
    model = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(":")[1].strip()
    return {
        "processor": model,
        "cores": len([line for line in open("/proc/cpuinfo") if line.startswith("processor")]),
        "kernel": platform.release(),
        "load_average": pathlib.Path("/proc/loadavg").read_text().split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


main()
