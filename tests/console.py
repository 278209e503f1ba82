"""What the tests of shells, commands and files speak: WebSockets and plain HTTP with a shell token."""

import contextlib
import json
import socket
import ssl
import urllib.parse

from websockets.sync.client import connect

STDIN, STDOUT, STDERR = 0, 1, 2


def ingress(hearth, *names):
    region = hearth.settings["region"]
    return [f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:{name}" for name in names]


def shell_token(vm, minutes=30):
    answer = vm.hearth.client().create_microvm_shell_auth_token(microvmIdentifier=vm.id, expirationInMinutes=minutes)
    return answer["authToken"]["X-aws-proxy-auth"]


def websocket(vm, path, token=None, **more):
    """A WebSocket to the endpoint, authenticated by header."""
    host, _, _ = vm.endpoint.partition(":")
    gateway = vm.hearth.settings["gateway"].split(":")
    raw = socket.create_connection((gateway[0], int(gateway[1])), timeout=120)
    context = ssl.create_default_context(cafile=vm.hearth.settings["ca"])
    # This client reads and writes from two threads. Python's TLS 1.3 is not safe for that: a ticket that is read while the
    # request is written can swallow the request.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    headers = {"X-aws-proxy-auth": token if token is not None else shell_token(vm)}
    arguments = dict(additional_headers=headers, compression=None, max_size=None, open_timeout=120, ping_timeout=None)
    return connect(f"wss://{vm.endpoint}{path}", sock=raw, ssl=context, server_hostname=host, **{**arguments, **more})


class Screen:
    """A shell, as a person sees it."""

    def __init__(self, ws):
        self.ws, self.data = ws, b""
        self.first = ws.recv(timeout=120)

    def say(self, text):
        self.ws.send(text.encode())

    def until(self, end, seconds=120):
        """Reads until `end` is seen; what came before it."""
        while end.encode() not in self.data:
            self.data += self.ws.recv(timeout=seconds)
        before, _, self.data = self.data.partition(end.encode())
        return before.decode(errors="replace")


@contextlib.contextmanager
def shell(vm, path="/shell", **more):
    with websocket(vm, path, **more) as ws:
        yield Screen(ws)


class Command:
    """A command that runs through `/hearth/v1/exec`."""

    def __init__(self, vm, argv, **more):
        self.ws = websocket(vm, "/hearth/v1/exec")
        self.ws.send(json.dumps({"argv": argv, **more}))
        self.first = json.loads(self.ws.recv(timeout=120))

    def write(self, data):
        self.ws.send(bytes([STDIN]) + data)

    def control(self, **message):
        self.ws.send(json.dumps(message))

    def finish(self):
        """Standard output, standard error, and the last message."""
        streams = {STDOUT: bytearray(), STDERR: bytearray()}
        while True:
            message = self.ws.recv(timeout=300)
            if isinstance(message, str):
                self.ws.close()
                return bytes(streams[STDOUT]), bytes(streams[STDERR]), json.loads(message)
            streams[message[0]] += message[1:]

    def vanish(self):
        """The end of the connection without a word of WebSocket or TLS."""
        self.ws.socket.shutdown(socket.SHUT_RDWR)


def files(vm, method, path, body=None, token=None, **options):
    """A request to `/hearth/v1/files`: (status, headers in lower case, body)."""
    query = urllib.parse.urlencode({"path": path, **options})
    status, headers, content = vm.request(
        method, f"/hearth/v1/files?{query}", body=body, token=token or shell_token(vm), timeout=300
    )
    return status, {name.lower(): value for name, value in headers.items()}, content


def in_guest(vm, script):
    """What a shell script prints in the application's container."""
    out, err, last = Command(vm, ["sh", "-c", script]).finish()
    assert last["code"] == 0, (out, err, last)
    return out.decode()
