"""A code interpreter for one MicroVM: posted Python runs in one long-lived session.

Port 8080 serves the interpreter, port 9000 the lifecycle hooks. Standard library only.
"""

import gc
import http.client
import os
import signal
import sys
import threading

import hooks
import web
from interpreter import Interpreter

PORT = int(os.environ.get("PORT", "8080"))
HOOKS_PORT = int(os.environ.get("HOOKS_PORT", "9000"))


def interpreter_routes(spare, interpreter, events):
    """What port 8080 answers: method and path to a function of the request."""

    def run_in(session):
        def run(request):
            code = request.json()["code"] if request.is_json() else request.text()
            if not isinstance(code, str):
                raise ValueError("code must be a string")
            return 200, session.run(code)

        return run

    return {
        ("POST", "/run"): run_in(interpreter),
        ("POST", "/warm-up"): run_in(spare),
        ("GET", "/health"): lambda request: (200, {"status": "ok", "runs": interpreter.runs}),
        ("GET", "/events"): lambda request: (200, events.seen()),
    }


def warm_up():
    """Serves requests to itself, so that the first one after a restore finds every module
    loaded and every code path walked: output, a value, an error. In a session of its own: without
    hooks a MicroVM may be launched meanwhile, and what its user has said by then must last."""
    for code in ("print('warm')", "6 * 7", "1 / 0", "syntax error"):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        connection.request("POST", "/warm-up", body=code)
        connection.getresponse().read()
        connection.close()


def main():
    # The application is process 1 of its container, and process 1 has no default for SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # The one made last is `__main__` to what runs in it.
    spare, interpreter = Interpreter(), Interpreter()
    events, warm = hooks.Events(), threading.Event()
    # First the port that is asked: without hooks the first one that listens is the sign that a snapshot may be taken.
    web.serve(PORT, interpreter_routes(spare, interpreter, events))
    web.serve(HOOKS_PORT, hooks.routes(events, warm, warm_up))
    warm_up()
    # What lives now lives for good: the collector need not touch those pages again, which keeps
    # what a MicroVM writes, and so what a suspend stores, small.
    gc.collect()
    gc.freeze()
    warm.set()
    print(f"serving Python {sys.version.split()[0]} on port {PORT}, hooks on port {HOOKS_PORT}")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
