"""What an operator may switch on beside the service's own rules: more that counts as busy, ports without a token, limits of
a size (line 94 of the acceptance checklist). The daemon is started anew with these settings, and with its own afterwards."""

import json
import time

import botocore.exceptions
import pytest

from console import Command, ingress, shell
from support import UNLIMITED, MicroVm, wait_for

IDLE = 60
POLICY = dict(maxIdleDurationSeconds=IDLE, suspendedDurationSeconds=3600, autoResumeEnabled=True)

SETTINGS = """
public_ports = ["8080", "9000-9099"]

[busy]
cpu_percent = 15
leases = true
open_streams = true
"""
BURN = "import threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn, daemon=True).start()"
SILENT = """
import http.server, threading, time
class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '1')
        self.end_headers()
        time.sleep(1000000)
server = http.server.ThreadingHTTPServer(('127.0.0.1', 9200), Silent)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""
LEASE = """
import urllib.request
def lease(seconds):
    at = 'http://169.254.169.254/latest/'
    token = urllib.request.Request(at + 'api/token', method='PUT', headers={'X-aws-ec2-metadata-token-ttl-seconds': '60'})
    headers = {'X-aws-ec2-metadata-token': urllib.request.urlopen(token).read().decode()}
    more = {} if seconds is None else {'X-hearth-lease-seconds': str(seconds)}
    method = 'GET' if seconds is None else 'PUT'
    request = urllib.request.Request(at + 'meta-data/hearth/lease', method=method, headers={**headers, **more})
    return urllib.request.urlopen(request).read().decode()
"""


@pytest.fixture(scope="module")
def operated(hearth, image):
    """The daemon with everything of this page switched on."""
    file = hearth.data / "hearthd.toml"
    before = file.read_text()
    # Only the first lines are settings outside a table.
    limited = before.replace("connections_per_vcpu = 0", "connections_per_vcpu = 8")
    assert UNLIMITED in before and limited != before
    hearth.stop()
    file.write_text(SETTINGS.split("[busy]")[0] + limited + "\n[busy]" + SETTINGS.split("[busy]")[1])
    hearth.start()
    yield hearth
    hearth.stop()
    file.write_text(before)
    hearth.start()


def activity(vm):
    return json.loads(vm.hearth.admin(f"/microvms/{vm.id}/activity"))


def test_what_counts_as_busy_keeps_it_running_and_describe_says_why(operated, image):
    shells = ingress(operated, "HTTP_INGRESS", "SHELL_INGRESS")
    run = lambda: operated.run(image, idlePolicy=POLICY, ingressNetworkConnectors=shells)
    quiet, working, leased, shelled, commanded, streaming = run(), run(), run(), run(), run(), run()
    assert leased.python(LEASE + "lease(600)") == "'600'"
    assert 0 < int(leased.python("lease(None)").strip("'")) <= 600
    assert working.python(BURN) == ""
    command = Command(commanded, ["sleep", "1000000"])
    assert command.first == {"type": "started"}
    assert streaming.python(SILENT) == ""
    with shell(shelled) as screen, streaming.connect() as stream:
        request = f"GET / HTTP/1.1\r\nHost: {streaming.endpoint}\r\nX-aws-proxy-auth: {streaming.token(9200)}\r\n"
        stream.sendall(f"{request}X-aws-proxy-port: 9200\r\n\r\n".encode())
        assert stream.recv(12) == b"HTTP/1.1 200"
        screen.until("λ $ ")
        quiet.request("GET", "/health")
        began = time.monotonic()
        wait_for("an idle MicroVM's suspend", lambda: quiet.state == "SUSPENDED", seconds=240, pause=0.5)
        assert time.monotonic() - began >= IDLE - 1
        reasons = {
            working: "its CPU was at", leased: "it holds a lease for", shelled: "1 shell is open",
            commanded: "1 command is attached", streaming: "1 stream is open",
        }
        # Each of them has been without traffic for longer than its policy allows.
        for vm, reason in reasons.items():
            wait_for("its own time", lambda: activity(vm)["quietSeconds"] > IDLE + 10, seconds=120, pause=0.5)
            assert vm.state == "RUNNING", reason

            def tells():
                return any(busy.startswith(reason) for busy in operated.json("describe", vm.id)["activity"]["busy"])

            wait_for(reason, tells)
            assert f"not idle: {reason}" in operated.cli("describe", vm.id).stdout
    # Given back, a lease holds nothing: the MicroVM is as idle as it looks, and the wait has been long enough.
    assert leased.python("lease(0)") == "'0'"
    assert activity(leased)["leaseSeconds"] == 0
    wait_for("nothing that holds it", lambda: activity(leased)["busy"] == [])
    # Nobody is attached any more.
    command.vanish()
    for vm in (shelled, commanded, streaming):
        wait_for("nothing open", lambda: activity(vm)["busy"] == [])
    for vm in (quiet, working, leased, shelled, commanded, streaming):
        vm.terminate()


def test_a_public_port_needs_no_token_and_wakes_the_microvm(operated, image):
    vm = operated.run(image, idlePolicy=POLICY, ingressNetworkConnectors=ingress(operated, "PUBLIC_INGRESS_8080"))
    assert vm.object["ingressNetworkConnectors"][0].endswith(":PUBLIC_INGRESS_8080")
    assert vm.request("GET", "/health", token="")[0] == 200
    assert vm.request("GET", "/health", token="", port=9000)[::2] == (403, b"Request missing authentication")
    # Without HTTP ingress a token opens nothing else.
    assert vm.request("GET", "/health", token=vm.token())[0] == 403
    vm.suspend()
    assert vm.request("GET", "/health", token="")[0] == 200
    assert vm.state == "RUNNING"
    vm.terminate()


def test_ports_are_public_only_where_the_operator_allows_it_and_only_where_asked_for(operated, image):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        operated.run(image, ingressNetworkConnectors=ingress(operated, "PUBLIC_INGRESS_9000_9100"))
    assert "Unrecognized managed network connector ARN" in refused.value.response["Error"]["Message"]
    vm = operated.run(image)
    assert vm.request("GET", "/health", token="")[::2] == (403, b"Request missing authentication")
    vm.terminate()
    made = operated.json("run", image, "--public", "8080")
    described = operated.json("describe", made["microvmId"])
    assert described["state"] == "RUNNING"
    vm = MicroVm(operated, made)
    assert vm.request("GET", "/health", token="")[0] == 200
    assert vm.request("GET", "/health")[0] == 200, "tokens still open what is public"
    vm.terminate()


def test_line_94_one_connection_too_many_is_answered_429(operated, image):
    vm = operated.run(image, idlePolicy=POLICY)
    token = vm.token(8080)
    request = f"GET /health HTTP/1.1\r\nHost: {vm.endpoint}\r\nX-aws-proxy-auth: {token}\r\n\r\n".encode()
    open_connections = []
    for number in range(8):
        open_connections.append(vm.connect())
        open_connections[-1].sendall(request)
        assert open_connections[-1].recv(12) == b"HTTP/1.1 200", f"connection {number} of 8, which the smallest size carries"
    assert vm.request("GET", "/health", token=token)[0] == 429
    open_connections.pop().close()
    wait_for("a free place", lambda: vm.request("GET", "/health", token=token)[0] == 200)
    for connection in open_connections:
        connection.close()
    vm.terminate()
