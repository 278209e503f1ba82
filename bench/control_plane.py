"""What the control plane itself costs: RunMicrovm until its answer (the VMM starts after it), GetMicrovm and ListMicrovms
with 10,000 records, and 200 clients at once. Writes bench/results/control-plane.json.

    target/venv/bin/python bench/control_plane.py

Times are those of one kept-alive connection, from the first byte sent to the last one received: TLS, signature,
constraints, rules, database. Requests are signed before the clock starts.
"""

import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from raw import Raw  # noqa: E402
from support import Hearth, wait_for  # noqa: E402

DATA = pathlib.Path(os.environ.get("HEARTH_BENCH_DATA", "/var/tmp/hearth-bench-control-plane"))
RESULT = ROOT / "bench/results/control-plane.json"
SETTINGS = f"""
listen = "127.0.0.1:9797"
endpoint_listen = "127.0.0.1:9497"
base = "{os.environ.get("HEARTH_DATA", "/var/lib/hearth")}/base"
first_user_id = 9000000

[rates]
RunMicrovm = 0
TerminateMicrovm = 0
GetMicrovm = 0

[network]
prefix = "hbench"
range = "100.126.0.0/16"
"""
MICROVMS = "/2025-09-09/microvms"
RECORDS, CLIENTS, CALLS_EACH, LAUNCHES = 10_000, 200, 20, 30


def timed(raw, method, target, body=b""):
    headers = raw.signed(method, target, body)
    start = time.perf_counter()
    answer = raw.send(method, target, body, headers)
    milliseconds = (time.perf_counter() - start) * 1000
    assert answer.status == 200, answer
    return milliseconds, answer


def summary(times):
    cuts = statistics.quantiles(times, n=100)
    return {"calls": len(times), "p50_ms": round(cuts[49], 2), "p90_ms": round(cuts[89], 2), "p99_ms": round(cuts[98], 2)}


def launches(hearth, raw, image):
    body = json.dumps({"imageIdentifier": hearth.arn(image)}).encode()
    times = []
    for _ in range(LAUNCHES):
        milliseconds, answer = timed(raw, "POST", MICROVMS, body)
        times.append(milliseconds)
        target = f"{MICROVMS}/{answer.json['microvmId']}"
        state = lambda: raw("GET", target).json["state"]
        wait_for("RUNNING", lambda: state() == "RUNNING", 120)
        raw("DELETE", target)
        wait_for("TERMINATED", lambda: state() == "TERMINATED", 120)
        time.sleep(0.5)
    return summary(times)


def fill(hearth):
    """Copies of a terminated MicroVM's record, each with an identity and a start of its own."""
    database = sqlite3.connect(hearth.data / "state.db")
    account, text = database.execute("SELECT account, record FROM microvms LIMIT 1").fetchone()
    record = json.loads(text)
    present = database.execute("SELECT count(*) FROM microvms").fetchone()[0]
    for number in range(RECORDS - present):
        identity, endpoint = f"microvm-{uuid.uuid4()}", str(uuid.uuid4())
        copy = {**record, "id": identity, "endpointId": endpoint, "clientToken": None, "startedAt": record["startedAt"] - number}
        copy["endpoint"] = record["endpoint"].replace(record["endpointId"], endpoint)
        database.execute("INSERT INTO microvms VALUES (?, ?, ?)", (identity, account, json.dumps(copy)))
    database.commit()
    identities = [row[0] for row in database.execute("SELECT id FROM microvms")]
    database.close()
    return identities


def lists(hearth, raw, image):
    """Every page of everything, and of one image."""
    times, seen = [], 0
    for filtered in ("", f"&imageIdentifier={hearth.arn(image)}&imageVersion=1.0"):
        token = ""
        while token is not None:
            milliseconds, answer = timed(raw, "GET", f"{MICROVMS}?maxResults=50{filtered}{token}")
            times.append(milliseconds)
            seen += len(answer.json["items"])
            token = answer.json["nextToken"] and f"&nextToken={answer.json['nextToken']}"
    assert seen == 2 * RECORDS, seen
    return summary(times)


def crowd(hearth, identities):
    """Every client with a connection of its own; errors are whatever is not 200."""
    def client(_):
        raw, errors = Raw(hearth.settings), 0
        for _ in range(CALLS_EACH):
            target = random.choice([f"{MICROVMS}/{random.choice(identities)}", f"{MICROVMS}?maxResults=10"])
            try:
                errors += raw.send("GET", target, b"", raw.signed("GET", target)).status != 200
            except OSError:
                errors += 1
        raw.close()
        return errors

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        errors = sum(threads.map(client, range(CLIENTS)))
    seconds = time.perf_counter() - start
    return {"clients": CLIENTS, "calls": CLIENTS * CALLS_EACH, "errors": errors, "calls_per_second": round(CLIENTS * CALLS_EACH / seconds)}


def main():
    hearth = Hearth(ROOT, DATA)
    hearth.start_afresh(SETTINGS)
    try:
        hearth.cli("image", "build", str(ROOT / "examples/code-interpreter"), "--name", "bench")
        raw = Raw(hearth.settings)
        run = launches(hearth, raw, "bench")
        hearth.stop()
        identities = fill(hearth)
        hearth.start()
        raw.close()
        sample = random.sample(identities, 1000)
        get = summary([timed(raw, "GET", f"{MICROVMS}/{identity}")[0] for identity in sample])
        result = {
            "run_microvm_until_answer": run,
            "get_microvm_10000_records": get,
            "list_microvms_10000_records": lists(hearth, raw, "bench"),
            "parallel_clients": crowd(hearth, identities),
            "conditions": {
                "date": datetime.date.today().isoformat(), "machine": platform.machine(), "cpus": os.cpu_count(),
                "kernel": platform.release(), "load_average_before": START_LOAD,
                "revision": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
            },
            "goals": {"run_p50_ms": 3, "get_and_list_p50_ms": 5, "parallel_errors": 0},
        }
    finally:
        hearth.stop(everything=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


START_LOAD = round(os.getloadavg()[0], 1)
if __name__ == "__main__":
    main()
