"""The idle policy (lines 74 to 80 of the acceptance checklist), the clock after a minute's sleep (line 69), and what outlives
a token (lines 84 and 93). Nothing here can be hurried: the shortest policy and the shortest token live a minute. So everything
happens at once, is written down by one observer, and each test looks at what was seen of its own MicroVM."""

import concurrent.futures
import json
import socket
import ssl
import threading
import time

import pytest
import websockets.sync.client

# The service's own limit is 60; nothing may happen before it, and what should happen must within this time.
IDLE, PATIENCE = 60, 240


def policy(suspended=3600, resume=False):
    return dict(maxIdleDurationSeconds=IDLE, suspendedDurationSeconds=suspended, autoResumeEnabled=resume)


class Observed:
    """One MicroVM, when it was first seen in each state, and when it was last seen RUNNING, in seconds after the last activity."""

    def __init__(self, vm):
        self.vm, self.states, self.began, self.running = vm, {}, time.monotonic(), 0

    def active(self):
        self.began = time.monotonic()

    def look(self):
        before = time.monotonic() - self.began
        state = self.vm.state
        self.states.setdefault(state, time.monotonic() - self.began)
        if state == "RUNNING":
            self.running = before
        return state


def open_stream(vm, token):
    context = ssl.create_default_context(cafile=vm.hearth.settings["ca"])
    host, port = vm.hearth.settings["gateway"].split(":")
    raw = socket.create_connection((host, int(port)), timeout=120)
    stream = context.wrap_socket(raw, server_hostname=vm.endpoint.partition(":")[0])
    stream.sendall(f"GET /events?1 HTTP/1.1\r\nHost: {vm.endpoint}\r\nX-aws-proxy-auth: {token}\r\n\r\n".encode())
    return stream


def websocket(vm):
    context = ssl.create_default_context(cafile=vm.hearth.settings["ca"])
    host, port = vm.hearth.settings["gateway"].split(":")
    raw = socket.create_connection((host, int(port)), timeout=120)
    # This client reads and writes from two threads, for which Python's TLS 1.3 is not safe.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return websockets.sync.client.connect(
        f"wss://{vm.endpoint}/", sock=raw, ssl=context, proxy=None, open_timeout=120, ping_interval=None,
        additional_headers={"X-aws-proxy-auth": vm.token(8081), "X-aws-proxy-port": "8081"},
    )


@pytest.fixture(scope="module")
def seen(hearth, protocols):
    """Everything that happens in a bit more than the minute, by name."""
    policies = dict(
        quiet=policy(), polled=policy(), streaming=policy(), busy=policy(), talking=policy(), silent=policy(),
        ended=policy(suspended=0), expiring=policy(suspended=30), unbound=None, asleep=None,
    )
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        def run(name):
            more = dict(idlePolicy=policies[name]) if policies[name] else {}
            return name, Observed(hearth.run(protocols, **more))

        observed = dict(pool.map(run, policies))
    asleep = observed.pop("asleep").vm
    asleep.suspend()
    slept = time.monotonic()
    for vm in observed.values():
        assert vm.vm.request("GET", "/")[0] == 200
        vm.active()
    observed["busy"].vm.request("GET", "/burn")
    observed["busy"].active()
    silent, talking = websocket(observed["silent"].vm), websocket(observed["talking"].vm)
    observed["silent"].active()
    token = observed["streaming"].vm.token(8080, minutes=1)
    minted = time.monotonic()
    stream = open_stream(observed["streaming"].vm, token)
    stop, late, answers = threading.Event(), [], []

    def keep_active():
        while not stop.wait(10):
            talking.send("still here")
            talking.recv(timeout=120)

    def poll():
        while not stop.wait(20):
            answers.append(observed["polled"].vm.request("GET", "/")[0])

    def read_stream():
        while (data := stream.recv(1 << 16)) and not stop.is_set():
            # The gateway checks by its own clock, which is this machine's.
            late.append(time.monotonic() - minted)

    threads = [threading.Thread(target=work) for work in (keep_active, poll, read_stream)]
    for thread in threads:
        thread.start()
    done = dict(quiet="SUSPENDED", busy="SUSPENDED", silent="SUSPENDED", ended="TERMINATED", expiring="TERMINATED")
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        states = {name: vm.look() for name, vm in observed.items()}
        passed = time.monotonic() - began > IDLE + 30
        if passed and all(states[name] == state for name, state in done.items()):
            break
        time.sleep(0.5)
    observed["token"] = observed["streaming"].vm.request(token=token)[::2]
    observed["answers"] = set(answers)
    observed["late"] = [moment for moment in late if moment > 61]
    stop.set()
    for thread in threads:
        thread.join()
    stream.close()
    talking.close()
    silent.close()
    observed["slept"] = time.monotonic() - slept
    asleep.resume()
    before = time.time()
    told = json.loads(asleep.request(path="/clock")[2])
    observed["clock"] = before, told, time.time()
    asleep.terminate()
    yield observed
    for vm in observed.values():
        if isinstance(vm, Observed):
            vm.vm.terminate()


def test_line_69_the_clock_is_right_after_a_minute_asleep(seen):
    before, told, after = seen["clock"]
    assert seen["slept"] >= 60 and before - 1 <= told <= after + 1, (seen["slept"], seen["clock"])


def test_line_74_without_traffic_it_is_suspended_after_the_idle_time_and_not_before(seen):
    assert "SUSPENDED" in seen["quiet"].states, seen["quiet"].states
    assert IDLE - 1 <= seen["quiet"].states["SUSPENDED"] < 2 * IDLE


def test_line_74_traffic_keeps_it_running(seen):
    assert set(seen["polled"].states) == set(seen["streaming"].states) == {"RUNNING"}
    assert seen["answers"] == {200}


def test_line_75_work_inside_does_not_keep_it_running(seen):
    assert "SUSPENDED" in seen["busy"].states, seen["busy"].states


def test_line_76_frames_keep_it_running_and_a_silent_websocket_does_not(seen):
    assert set(seen["talking"].states) == {"RUNNING"}
    assert seen["silent"].states["SUSPENDED"] >= IDLE - 1


def test_line_79_a_window_of_zero_terminates_and_one_of_thirty_does_after_it(seen):
    assert "TERMINATED" in seen["ended"].states and "SUSPENDED" not in seen["ended"].states
    expiring = seen["expiring"]
    assert "SUSPENDED" in expiring.states, expiring.states
    assert 29 <= expiring.states["TERMINATED"] - expiring.running < 90, expiring.states


def test_line_80_without_a_policy_nothing_happens(seen):
    assert set(seen["unbound"].states) == {"RUNNING"}


def test_line_84_an_expired_token_is_refused(seen):
    assert seen["token"] == (403, b"Token authentication failed")


def test_line_93_a_stream_outlives_its_token(seen):
    assert seen["late"], "nothing came after the token had expired"
