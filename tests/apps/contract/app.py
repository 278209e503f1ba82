"""Shows a test what the platform did to it: hooks called, environment, files, what was computed before the snapshot.

READY says how `/ready` answers: `third` (503 three times, then 200), a status, or `hang`. A run hook payload `status N`
answers N, `sleep S` answers after S seconds. OUTSIDE is an echo server that is connected to before the snapshot.
"""

import http.server
import json
import os
import pathlib
import socket
import threading
import time
import uuid

PREFIX = "/aws/lambda-microvms/runtime/v1/"
IDENTITY = str(uuid.uuid4())
VALIDATED = pathlib.Path("/root/validated")
READY = os.environ.get("READY", "third")
calls = []
connections = {}


def connect():
    """Connections from before the snapshot: one within the guest, one to the outside."""
    server = socket.create_server(("127.0.0.1", 0))
    connections["loopback"] = socket.create_connection(server.getsockname(), timeout=5)
    peer, _ = server.accept()
    threading.Thread(target=echo, args=[peer], daemon=True).start()
    if "OUTSIDE" in os.environ:
        host, _, port = os.environ["OUTSIDE"].partition(":")
        connections["outside"] = socket.create_connection((host, int(port)), timeout=30)


def echo(peer):
    while data := peer.recv(100):
        peer.sendall(data)


def lives(connection):
    try:
        connection.settimeout(5)
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except OSError:
        return False


def facts():
    memory = [line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines()]
    return {
        "identity": IDENTITY,
        "calls": calls,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "word": pathlib.Path("word").read_text().strip(),
        "validated": VALIDATED.exists(),
        "random": os.urandom(16).hex(),
        "disk": size("/"),
        "processors": os.cpu_count(),
        "memory": {name: int(value.split()[0]) << 10 for name, value in memory if name in ("MemTotal", "SwapTotal")},
        "shared memory": size("/dev/shm"),
    }


def size(path):
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def ready():
    if READY == "hang":
        time.sleep(3600)
    if READY == "third":
        return 200 if sum(call["path"] == PREFIX + "ready" for call in calls) > 3 else 503
    return int(READY)


def run(body):
    payload = json.loads(body).get("runHookPayload") or ""
    print(f"run with {payload!r}", flush=True)
    word, _, value = payload.partition(" ")
    if word == "sleep":
        time.sleep(float(value))
    return int(value) if word == "status" else 200


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        calls.append({"method": "POST", "path": self.path, "body": body, "type": self.headers.get("Content-Type")})
        if self.path == PREFIX + "ready":
            self.answer(ready())
        elif self.path == PREFIX + "validate":
            VALIDATED.write_text("by the throwaway clone")
            print("validated", flush=True)
            self.answer(200)
        elif self.path == PREFIX + "run":
            self.answer(run(body))
        elif self.path.startswith(PREFIX):
            self.answer(200)
        elif self.path == "/say":
            print(body, flush=True)
            self.answer(200)
        elif self.path == "/connections":
            self.answer(200, json.dumps({name: lives(made) for name, made in connections.items()}).encode())
        elif self.path == "/exit":
            os._exit(int(body))

    def do_GET(self):
        calls.append({"method": "GET", "path": self.path, "body": "", "type": None})
        self.answer(200, json.dumps(facts()).encode())

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


print("the application starts", flush=True)
connect()
print(f"connected: {sorted(name for name, made in connections.items() if lives(made))}", flush=True)
hooks = http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler)
threading.Thread(target=hooks.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
