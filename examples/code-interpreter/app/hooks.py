"""The six lifecycle hooks of a MicroVM."""

import datetime
import random
import threading

PREFIX = "/aws/lambda-microvms/runtime/v1/"


class Events:
    """The hooks called so far, with the time of each and the payload that `/run` brought."""

    def __init__(self):
        self._lock = threading.Lock()
        self._events = []
        self._payload = None

    def add(self, hook, payload=None):
        """Notes one call of a hook."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        with self._lock:
            self._events.append({"hook": hook, "time": now})
            if payload is not None:
                self._payload = payload
        print(f"hook {hook}")

    def seen(self):
        """Everything noted, oldest first."""
        with self._lock:
            return {"events": list(self._events), "payload": self._payload}


def routes(events, warm, warm_up):
    """What port 9000 answers. `warm` is set once the interpreter can serve at full speed."""

    def ready(request):
        if not warm.is_set():
            return 503, {"status": "starting"}
        events.add("ready")
        return 200, {}

    def validate(request):
        # Runs in a throwaway copy: the pages touched here are the ones a launch reads first.
        warm_up()
        events.add("validate")
        return 200, {}

    def run(request):
        body = request.json() if request.body else {}
        # Every MicroVM starts from the same memory; without this they would share one sequence.
        random.seed()
        events.add("run", body.get("runHookPayload"))
        return 200, {}

    def note(hook):
        def handler(request):
            events.add(hook)
            return 200, {}

        return handler

    handlers = {"ready": ready, "validate": validate, "run": run}
    for hook in ("resume", "suspend", "terminate"):
        handlers[hook] = note(hook)
    return {("POST", PREFIX + hook): handler for hook, handler in handlers.items()}
