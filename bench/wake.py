"""What a request pays for a wake: its wait at the gate beside the resume itself, both by the daemon's own clock.

Prints a table and writes bench/results/wake.json.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from daemon import STAGE, bench_daemon  # noqa: E402
from support import WAKES  # noqa: E402

ACCESS = re.compile(r"hearth::access: .*microvm=\"(\S+)\".* path=\"(\S+)\".* held_us=(\d+) latency_us=(\d+)")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=50)
    rounds = options.parse_args().rounds
    with bench_daemon() as hearth:
        hearth.cli("image", "build", str(ROOT / "examples/code-interpreter"), "--name", "wake")
        vm = hearth.run("wake", idlePolicy=WAKES)
        samples = [wake(hearth, vm, number) for number in range(rounds)]
        vm.terminate()
    figures = {name: percentiles([sample[name] for sample in samples]) for name in samples[0]}
    result = {
        "rounds": rounds,
        "load_average": pathlib.Path("/proc/loadavg").read_text().split()[0],
        "date": time.strftime("%Y-%m-%d"),
        "milliseconds": figures,
        "held_over_resume": {at: round(figures["held"][at] / figures["resume"][at], 3) for at in ("p50", "p99")},
    }
    path = ROOT / "bench/results/wake.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    for name, row in figures.items():
        print(f"{name:12}" + "".join(f"  {at} {value:8.1f} ms" for at, value in row.items()))
    print(f"held / resume: {result['held_over_resume']}\nwritten to {path.relative_to(ROOT)}")


def wake(hearth, vm, number):
    """Suspends the MicroVM and asks it something: milliseconds of the resume, of the wait at the gate, and of the answer."""
    vm.suspend()
    # The pool has its next process ready.
    time.sleep(1)
    path = f"/health?{number}"
    begun = len((hearth.data / "hearthd.log").read_text())
    start = time.perf_counter()
    assert vm.request("GET", path)[0] == 200
    client = (time.perf_counter() - start) * 1000
    stages, access = {}, None
    deadline = time.monotonic() + 10
    while access is None and time.monotonic() < deadline:
        for line in (hearth.data / "hearthd.log").read_text()[begun:].splitlines():
            line = re.sub(r"\x1b\[[0-9;]*m", "", line)
            if (stage := STAGE.search(line)) and stage[2] == vm.id:
                stages[stage[4]] = datetime.datetime.fromisoformat(stage[1].replace("Z", "+00:00"))
            access = ACCESS.search(line) or access
    resume = (stages["Running"] - stages["Resuming"]).total_seconds() * 1000
    return {"resume": resume, "held": int(access[3]) / 1000, "answer": int(access[4]) / 1000, "client": client}


def percentiles(values):
    values = sorted(values)
    at = lambda share: round(values[min(len(values) - 1, round(share * (len(values) - 1)))], 1)
    return {"p50": at(0.5), "p99": at(0.99)}


main()
