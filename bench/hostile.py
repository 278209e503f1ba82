"""What a request to a MicroVM costs while the one beside it attacks: p50 with and without each attack, in turns.

Prints a table and writes bench/results/hostile.json. Absolute times belong to the machine; the ratios are the result.
"""

import argparse
import json
import pathlib
import platform
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import hostile  # noqa: E402
from daemon import bench_daemon  # noqa: E402
from hostile import WAKES, do  # noqa: E402

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

    def p50(self, count):
        return statistics.median(self.ask() for _ in range(count)) * 1000


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=300, help="in each measurement")
    options.add_argument("--rounds", type=int, default=3, help="of each attack, with and without in turns")
    options.add_argument("--attack", action="append", choices=ATTACKS, help="only this one; nothing is written then")
    options = options.parse_args()
    with bench_daemon() as hearth, tempfile.TemporaryDirectory() as directory:
        image = hostile.build(hearth, "hostile", pathlib.Path(directory))
        client = Client(hearth.run(image, idlePolicy=WAKES))
        client.p50(options.requests)
        results = {name: measure(hearth, image, client, name, options) for name in options.attack or ATTACKS}
    if not options.attack:
        result = {"machine": machine(), "requests": options.requests, "rounds": options.rounds, "p50_milliseconds": results}
        path = ROOT / "bench/results/hostile.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"\nwritten to {path.relative_to(ROOT)}")


def measure(hearth, image, client, name, options):
    """Medians over the rounds: alone beside an idle MicroVM, and beside one that attacks."""
    quiet, attacked = [], []
    for _ in range(options.rounds):
        attacker = hearth.run(image, idlePolicy=WAKES)
        time.sleep(3)
        quiet.append(client.p50(options.requests))
        do(attacker, f"detach(lambda: {ATTACKS[name]}, delay=0.2)")
        time.sleep(1)
        attacked.append(client.p50(options.requests))
        attacker.terminate()
    ratio = statistics.median(b / a for a, b in zip(quiet, attacked))
    found = {"quiet": round(statistics.median(quiet), 2), "attacked": round(statistics.median(attacked), 2), "ratio": round(ratio, 2)}
    print(f"{name:28}{found['quiet']:10.2f}{found['attacked']:10.2f}{found['ratio']:8.2f}", flush=True)
    return found


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
