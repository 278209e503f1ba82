"""The gateway with TLS and token check beside nginx with TLS as a plain reverse proxy: same machine, same run, same upstream (a
static responder on loopback), same client (h2load). Rounds alternate, so that a busy moment of the machine meets both; the
median round counts. Writes bench/results/gateway.json and fails below 0.8 of nginx."""

import json
import os
import pathlib
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "4"))
FLOOR = 0.8

NGINX = """
worker_processes auto;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 100000000;
    upstream responder {{ server {responder}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://responder;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


def start_nginx(directory, responder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=one.vm.localhost", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"],
        check=True, capture_output=True,
    )
    os.chmod(directory, 0o755)
    os.chmod(f"{directory}/key.pem", 0o644)
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, responder=responder, port=port))
    process = subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-g", "daemon off;"])
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, f"127.0.0.1:{port}"
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit("nginx does not listen")


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def load(address, token, version, path, clients):
    """One round: requests per second, latencies, bytes per second."""
    log = tempfile.NamedTemporaryFile()
    command = [
        "h2load", "--clients", str(clients), "--duration", str(SECONDS), "--warm-up-time", "1", "--threads", "1",
        "--connect-to", address, "--header", f"X-aws-proxy-auth: {token}", "--log-file", log.name,
        f"https://one.vm.localhost{path}",
    ]
    if version == "1.1":
        command.insert(1, "--h1")
    done = subprocess.run(command, capture_output=True, text=True)
    finished = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s, ([\d.]+)(\w)B/s", done.stdout)
    failed = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    assert finished and failed and failed[2] == failed[3] == "0", done.stdout + done.stderr
    micros = sorted(int(line.split("\t")[2]) for line in open(log.name) if line.split("\t")[1] == "200")
    assert micros, done.stdout
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[finished[3]]
    return {
        "requests_per_second": float(finished[1]),
        "bytes_per_second": float(finished[2]) * unit,
        "p50_ms": micros[len(micros) // 2] / 1000,
        "p99_ms": micros[len(micros) * 99 // 100] / 1000,
    }


def median(rounds):
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def main():
    binary = ROOT / "target/release/examples/bench"
    gateway = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    there = json.loads(gateway.stdout.readline())
    directory = pathlib.Path(tempfile.mkdtemp())
    nginx, nginx_address = start_nginx(directory, there["responder"])
    sides = {"hearth": there["gateway"], "nginx": nginx_address}
    cases = {
        "small, HTTP/1.1": ("1.1", "/", 64), "small, HTTP/2": ("2", "/", 64),
        "1 MiB, HTTP/1.1": ("1.1", "/large", 8), "1 MiB, HTTP/2": ("2", "/large", 8),
        "one at a time, HTTP/1.1": ("1.1", "/", 1),
    }
    results, low = {}, []
    try:
        for name, (version, path, clients) in cases.items():
            rounds = {side: [] for side in sides}
            for number in range(ROUNDS):
                for side in sorted(sides, reverse=number % 2 == 1):
                    rounds[side].append(load(sides[side], there["token"], version, path, clients))
            result = {side: median(rounds[side]) for side in sides}
            result["clients"] = clients
            measure = "bytes_per_second" if path == "/large" else "requests_per_second"
            result["ratio"] = round(result["hearth"][measure] / result["nginx"][measure], 3)
            results[name] = result
            if result["ratio"] < FLOOR:
                low.append(name)
            print(f"{name}: hearth {result['hearth'][measure]:.0f}, nginx {result['nginx'][measure]:.0f} {measure}, "
                  f"ratio {result['ratio']}, p50 {result['hearth']['p50_ms']} / {result['nginx']['p50_ms']} ms, "
                  f"p99 {result['hearth']['p99_ms']} / {result['nginx']['p99_ms']} ms", flush=True)
    finally:
        gateway.stdin.close()
        gateway.wait()
        nginx.terminate()
        nginx.wait()
        shutil.rmtree(directory, ignore_errors=True)
    conditions = {
        "cpus": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()[0], "rounds": ROUNDS,
        "seconds": SECONDS, "nginx": subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip(),
    }
    target = ROOT / "bench/results/gateway.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"conditions": conditions, "results": results}, indent=2) + "\n")
    if low:
        sys.exit(f"below {FLOOR} of nginx: {', '.join(low)}")


if __name__ == "__main__":
    main()
