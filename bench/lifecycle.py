"""Launch, suspend and resume of the demo image at 512 MiB: hearth beside a bare restore of the same files by the same VMM.

Prints a table and writes bench/results/lifecycle.json. With Firecracker it says, too, what Firecracker's own snapshots cost in the
place of hearth's suspend, and what many idle MicroVMs take of memory. Absolute times belong to the machine; the ratios are the
result.
"""

import argparse
import datetime
import json
import pathlib
import platform
import re
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bare import BareQemu  # noqa: E402
from bare_firecracker import BareFirecracker  # noqa: E402
from daemon import STAGE, bench_daemon  # noqa: E402
from support import KEPT, WAKES, MicroVm  # noqa: E402

# What a guest writes before it is suspended.
WORK = "data = bytearray(__import__('os').urandom(4 << 20))"
IMAGE = "interpreter"
LAUNCH_AT_MOST = 120
# Rounds in which Firecracker makes snapshots of its own: a full one takes minutes in the nested host, always about the same.
FIRECRACKERS_OWN = 3


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20, help="launches and resumes of each kind (at least 20 for a result)")
    options.add_argument("--vmm", choices=["qemu", "firecracker"], default="qemu")
    options.add_argument("--idle", type=int, nargs="*", default=[], help="numbers of idle MicroVMs whose memory is measured")
    options.add_argument("--result", type=pathlib.Path, default=ROOT / "bench/results/lifecycle.json")
    chosen = options.parse_args()
    with bench_daemon(f'vmm = "{chosen.vmm}"') as hearth:
        hearth.build_interpreter(KEPT)
        result = {"machine": machine(hearth), "rounds": chosen.rounds, **measure(hearth, chosen.rounds)}
        if chosen.idle:
            result["idle_memory_mib_of_each"] = {str(count): idle_memory(hearth, count) for count in chosen.idle}
    chosen.result.parent.mkdir(exist_ok=True)
    chosen.result.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    print(f"\nwritten to {chosen.result}")


def measure(hearth, rounds):
    version = next((hearth.data / "images").glob("*/1.0"))
    keeper = hearth.run(IMAGE, idlePolicy=WAKES)
    keeper.python("1")
    if hearth.driver == "firecracker":
        bare = BareFirecracker(version, hearth.data / "bare")
    else:
        bare = BareQemu(waiting_command_line(hearth), version, hearth.data / "bare")
    samples = {name: [] for name in (
        "launch_bare", "launch_hearth", "resume_bare", "resume_hearth", "suspend_call", "suspend_written",
        "suspend_call_4mib", "frozen_4mib",
    )}
    disk, memory, saved_bytes = [], [], {"hearth": []}
    try:
        for number in range(rounds):
            samples["launch_bare"].append(bare.restore(version / "scratch.img"))
            settle(hearth)
            vm, seconds = launch(hearth)
            samples["launch_hearth"].append(seconds)
            settle(hearth)
            memory.append(proportional_set_size(hearth, vm))
            call, written = suspend(hearth, vm)
            samples["suspend_call"].append(call)
            samples["suspend_written"].append(written)
            own = hearth.data / "microvms" / vm.id
            saved = next(own.glob("suspended-*"))
            disk.append(allocated(saved) / (saved / "delta").stat().st_size)
            settle(hearth)
            samples["resume_bare"].append(bare.restore(own / "scratch.img", saved))
            settle(hearth)
            samples["resume_hearth"].append(resume(vm))
            settle(hearth)
            vm.python(WORK)
            samples["suspend_call_4mib"].append(suspend(hearth, vm)[0])
            samples["frozen_4mib"].append(frozen(hearth, vm))
            saved_bytes["hearth"].append(allocated(next(own.glob("suspended-*"))))
            vm.terminate()
            settle(hearth)
            for kind in ("Full", "Diff") if hearth.driver == "firecracker" and number < FIRECRACKERS_OWN else ():
                launched, seconds, written = bare.save(version / "scratch.img", kind, WORK)
                samples.setdefault(f"launch_bare_for_{kind.lower()}", []).append(launched)
                samples.setdefault(f"frozen_4mib_by_{kind.lower()}", []).append(seconds)
                saved_bytes.setdefault(kind.lower(), []).append(written)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    finally:
        bare.close()
    figures = {name: percentiles(values) for name, values in samples.items()}
    return {
        "milliseconds": figures,
        "ratio_p50": {
            kind: round(figures[f"{kind}_hearth"]["p50"] / figures[f"{kind}_bare"]["p50"], 2) for kind in ("launch", "resume")
        },
        "suspended_disk_bytes_per_delta_byte": round(statistics.median(disk), 3),
        "saved_mib_after_4mib": {kind: round(statistics.median(values) / (1 << 20), 1) for kind, values in saved_bytes.items()},
        "idle_memory_mib": round(statistics.median(memory) / (1 << 20), 1),
    }


def waiting_command_line(hearth):
    """The command line of a process that was started ahead and waits for its guest."""
    for pid in hearth.processes():
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        if "defer" in words:
            return words
    raise SystemExit("no process waits: is the pool off?")


def settle(hearth):
    """Waits until the pool is full and the machine has nothing left to do for the last step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        guests = hearth.guests()
        started = [guest for guest in guests if list((hearth.data / "run" / guest).glob("*.sock"))]
        running = [vm for vm in hearth.client().list_microvms()["items"] if vm["state"] not in ("SUSPENDED", "TERMINATED")]
        if len(guests) == len(started) > len(running):
            break
        time.sleep(0.05)
    time.sleep(0.5)


def launch(hearth):
    """RunMicrovm sent → first 200 through HTTPS, the token and the connection included."""
    client, arn = hearth.client(), hearth.arn(IMAGE)
    start = time.perf_counter()
    vm = MicroVm(hearth, client.run_microvm(imageIdentifier=arn, idlePolicy=WAKES))
    connection = vm.session()
    while vm.ask(connection, "GET", "/health")[0] != 200:
        time.sleep(0.005)
        if time.perf_counter() - start > LAUNCH_AT_MOST:
            raise SystemExit(f"{vm.id} does not answer: {vm.object}")
    seconds = time.perf_counter() - start
    connection.close()
    return vm, seconds


def suspend(hearth, vm):
    """SuspendMicrovm sent → answered, and → SUSPENDED."""
    start = time.perf_counter()
    hearth.client().suspend_microvm(microvmIdentifier=vm.id)
    call = time.perf_counter() - start
    while vm.state != "SUSPENDED":
        time.sleep(0.002)
    return call, time.perf_counter() - start


def frozen(hearth, vm):
    """How long the guest of the last suspend stood still until all was written, by the daemon's clock."""
    times = {}
    for line in (hearth.data / "hearthd.log").read_text().splitlines():
        if (match := STAGE.match(line)) and match[2] == vm.id:
            times[match[4]] = datetime.datetime.fromisoformat(match[1])
    return (times["Suspended"] - times["Suspending"]).total_seconds()


def idle_memory(hearth, count):
    """Memory of each of so many idle MicroVMs, in MiB."""
    vms = [launch(hearth)[0] for _ in range(count)]
    settle(hearth)
    total = sum(proportional_set_size(hearth, vm) for vm in vms)
    for vm in vms:
        vm.terminate()
    settle(hearth)
    return round(total / count / (1 << 20), 1)


def resume(vm):
    """A request to a suspended MicroVM → its 200."""
    start = time.perf_counter()
    assert vm.request("GET", "/health")[0] == 200
    return time.perf_counter() - start


def allocated(directory):
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def proportional_set_size(hearth, vm):
    """Memory of the MicroVM's VMM process, its share of what is shared included, in bytes."""
    disk = hearth.data / "microvms" / vm.id / "scratch.img"
    for pid in hearth.processes():
        # By the file itself: in its jail it has another path.
        if any(descriptor.exists() and descriptor.samefile(disk) for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir()):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
    raise SystemExit(f"{vm.id} has no process")


def percentiles(seconds):
    values = sorted(value * 1000 for value in seconds)
    at = lambda share: round(values[min(len(values) - 1, round(share * (len(values) - 1)))], 1)
    return {"p50": at(0.5), "p95": at(0.95), "min": round(values[0], 1), "max": round(values[-1], 1)}


def machine(hearth):
    model = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(":")[1].strip()
    manifest = json.loads(next((hearth.data / "images").glob("*/1.0/manifest.json")).read_text())
    vmm = re.search(r'hearth_vmm_info\{(.*)\}', hearth.admin("/metrics"))[1]
    return {
        "processor": model,
        "cores": len([line for line in open("/proc/cpuinfo") if line.startswith("processor")]),
        "kernel": platform.release(),
        "vmm": dict(re.findall(r'(\w+)="([^"]*)"', vmm)),
        "guest_memory_mib": manifest["shape"]["memoryBytes"] >> 20,
        "load_average": pathlib.Path("/proc/loadavg").read_text().split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def show(result):
    print(f"\n{'milliseconds':32}{'p50':>10}{'p95':>10}{'min':>10}{'max':>10}")
    for name, figures in result["milliseconds"].items():
        print(f"{name:32}" + "".join(f"{figures[key]:10.1f}" for key in ("p50", "p95", "min", "max")))
    print(f"\nlaunch: hearth / bare = {result['ratio_p50']['launch']}    resume: hearth / bare = {result['ratio_p50']['resume']}")
    print(f"disk of a suspended MicroVM: {result['suspended_disk_bytes_per_delta_byte']} x its delta")
    print(f"written by a suspend after 4 MiB of work: {result['saved_mib_after_4mib']} MiB")
    print(f"memory of an idle MicroVM: {result['idle_memory_mib']} MiB")
    for count, mib in result.get("idle_memory_mib_of_each", {}).items():
        print(f"memory of each of {count} idle MicroVMs: {mib} MiB")


main()
