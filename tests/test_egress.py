"""What a MicroVM with a network connector reaches, and what it learns about itself (checklist 103, 104)."""

import ast
import io
import json
import zipfile

import pytest

import private
from private import GATEWAY, OTHER, SERVER
from support import WAKES
from test_connectors import await_state, create, refusal, remove

SETTINGS = f"""
[network.subnets.subnet-out]
ranges = ["{private.RANGE}"]

[network.security_groups.sg-one]
allow = [{{ to = "{SERVER}/32", protocol = "tcp", ports = "80" }}]

[network.security_groups.sg-name]
allow = [{{ to = "*.allowed.example", protocol = "tcp", ports = "80" }}]

[network.security_groups.sg-nothing]
allow = []
"""

# The standard library is all that the example's image has.
HELPERS = '''
import json, socket, ssl, urllib.error, urllib.request

def reach(address, port, seconds=3):
    try:
        socket.create_connection((address, port), timeout=seconds).close()
        return "open"
    except OSError as error:
        return "refused" if isinstance(error, ConnectionRefusedError) else "closed"

def ask(path, method="GET", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request("http://169.254.169.254" + path, method=method, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

def token():
    return ask("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="600")[1]

def meta(path, known=None):
    return ask("/latest/meta-data/" + path, X_aws_ec2_metadata_token=known or token())

def resolve(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "unknown"
'''


# An S3 and a CloudWatch Logs client, by hand: the standard library and the signature of the documentation.
CLIENT = '''
import datetime, hashlib, hmac

def credentials():
    return json.loads(meta("iam/security-credentials/execution_role")[1])

def call(service, method, path, body=b"", **more):
    keys, region, url = credentials(), meta("placement/region")[1], meta("hearth/endpoint")[1]
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": url.split("//")[1], "x-amz-date": now, "x-amz-content-sha256": digest}
    if keys["Token"]:
        headers["x-amz-security-token"] = keys["Token"]
    headers.update({name.replace("_", "-"): text for name, text in more.items()})
    names = ";".join(sorted(headers))
    canonical = [method, path, ""] + [f"{name}:{headers[name]}" for name in sorted(headers)] + ["", names, digest]
    scope = f"{now[:8]}/{region}/{service}/aws4_request"
    text = "\\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256("\\n".join(canonical).encode()).hexdigest()])
    key = ("AWS4" + keys["SecretAccessKey"]).encode()
    for part in scope.split("/") + [text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, SignedHeaders={names}, "
                                f"Signature={key.hex()}")
    request = urllib.request.Request(url + path, method=method, data=body or None, headers=headers)
    trust = ssl.create_default_context(cadata=meta("hearth/ca")[1])
    try:
        with urllib.request.urlopen(request, timeout=20, context=trust) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
'''


def role_arn(hearth, name):
    return f"arn:aws:iam::{hearth.account()}:role/{name}"


def value(vm, code):
    """The value of an expression in the guest."""
    answer = vm.python(f"__import__('json').dumps({code})")
    try:
        return json.loads(ast.literal_eval(answer))
    except (ValueError, SyntaxError):
        raise AssertionError(answer) from None


@pytest.fixture(scope="module")
def world(hearth, image):
    """The daemon beside a network of our own whose name server it asks."""
    resolvers = f'[network]\nresolvers = ["{SERVER}:53"]\n'
    path = hearth.data / "hearthd.toml"
    plain = path.read_text()
    path.write_text(plain.replace("[network]\n", resolvers))
    try:
        key = hearth.settings
        keys = (f'[roles."{role_arn(hearth, "elsewhere")}"]\naccess_key_id = "{key["accessKeyId"]}"\n'
                f'secret_access_key = "{key["secretAccessKey"]}"\n')
        with private.network(), private.settings(hearth, keys + SETTINGS):
            yield hearth
    finally:
        path.write_text(plain)
        private.restart(hearth)


@pytest.fixture
def core(world):
    return world.client("lambda-core")


@pytest.fixture(scope="module")
def role(hearth, tmp_path_factory):
    """A role that may do what the tests do, and no more."""
    policy = tmp_path_factory.mktemp("policy") / "execution.json"
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::test-artifacts", "arn:aws:s3:::test-artifacts/*"]},
        {"Effect": "Allow", "Action": "logs:*", "Resource": "*"},
    ]}))
    hearth.cli("roles", "create", "execution", "--policy", str(policy))
    yield role_arn(hearth, "execution")
    hearth.cli("roles", "rm", "execution")


@pytest.fixture
def with_role(world, image, role):
    vm = world.run(image, executionRoleArn=role, idlePolicy=WAKES)
    vm.python(HELPERS)
    vm.python(CLIENT)
    yield vm
    vm.terminate()


def test_checklist_103_metadata_tells_a_microvm_its_place_and_needs_a_token(hearth, microvm):
    microvm.python(HELPERS)
    status, body = value(microvm, "ask('/latest/meta-data/')")
    assert status == 401 and body.startswith("No MMDS token provided")
    assert value(microvm, "ask('/latest/meta-data/', X_aws_ec2_metadata_token='forged')")[0] == 401
    assert value(microvm, "ask('/latest/api/token', 'PUT')")[0] == 400
    region = hearth.settings["region"]
    assert value(microvm, "meta('placement/region')") == [200, region]
    assert value(microvm, "meta('placement/availability-zone-id')")[1].endswith("-az1")
    assert value(microvm, "meta('hearth/microvm-id')") == [200, microvm.id]
    assert value(microvm, "meta('')") == [200, "hearth/\nplacement/\ntags/"]
    assert value(microvm, "meta('iam/security-credentials/')")[0] == 404, "no role, no credentials"
    assert value(microvm, "reach('169.254.169.253', 443)") == "refused"
    assert value(microvm, "reach('169.254.169.254', 81)") == "closed"


def test_a_metadata_token_outlives_suspend_and_daemon_but_not_its_microvm(hearth, image, microvm):
    microvm.python(HELPERS)
    microvm.python("kept = token()")
    microvm.suspend()
    microvm.resume()
    assert value(microvm, "meta('hearth/microvm-id', kept)") == [200, microvm.id]
    hearth.kill()
    hearth.start()
    microvm.await_state("RUNNING")
    assert value(microvm, "meta('hearth/microvm-id', kept)") == [200, microvm.id]
    other = hearth.run(image)
    try:
        other.python(HELPERS)
        kept = value(microvm, "kept")
        assert value(other, f"meta('hearth/microvm-id', {kept!r})")[0] == 401
        assert value(other, "meta('hearth/microvm-id')") == [200, other.id]
    finally:
        other.terminate()


def test_checklist_103_credentials_of_the_role_work_against_s3_and_logs_and_are_renewed_after_a_resume(
    world, image, with_role
):
    vm = with_role
    assert value(vm, "meta('')") == [200, "hearth/\niam/\nplacement/\ntags/"]
    assert value(vm, "meta('iam/security-credentials/')") == [200, "execution_role"]
    keys = value(vm, "credentials()")
    assert set(keys) == {"Code", "LastUpdated", "Type", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert (keys["Code"], keys["Type"]) == ("Success", "AWS-HMAC")
    assert value(vm, "ask('/latest/meta-data/iam/security-credentials/execution_role')")[0] == 401

    world.upload("for-the-guest", b"from the host")
    assert value(vm, "call('s3', 'GET', '/test-artifacts/for-the-guest')") == [200, "from the host"]
    assert value(vm, "call('s3', 'PUT', '/test-artifacts/from-the-guest', b'hello')")[0] == 200
    s3 = world.client("s3")
    assert s3.get_object(Bucket="test-artifacts", Key="from-the-guest")["Body"].read() == b"hello"
    status, body = value(vm, "call('logs', 'POST', '/', b'{}', x_amz_target='Logs_20140328.DescribeLogGroups', "
                             "content_type='application/x-amz-json-1.1')")
    assert status == 200 and "logGroups" in json.loads(body)
    # The keys are the role's, whose policy does not speak of MicroVMs.
    assert value(vm, "call('lambda', 'GET', '/2025-09-09/microvms')")[0] == 403

    vm.suspend()
    vm.resume()
    again = value(vm, "credentials()")
    assert again["Expiration"] >= keys["Expiration"] and again["LastUpdated"] > keys["LastUpdated"]
    assert value(vm, "call('s3', 'GET', '/test-artifacts/for-the-guest')")[0] == 200


def test_keys_that_the_settings_name_for_a_role_are_the_guests(world, image):
    vm = world.run(image, executionRoleArn=role_arn(world, "elsewhere"))
    try:
        vm.python(HELPERS + CLIENT)
        assert value(vm, "credentials()")["AccessKeyId"] == world.settings["accessKeyId"]
        assert value(vm, "call('lambda', 'GET', '/2025-09-09/microvms')")[0] == 200
    finally:
        vm.terminate()


def test_checklist_104_udp_to_a_public_resolver_is_dropped(microvm):
    microvm.python(
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        "s.sendto(b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x01', ('8.8.8.8', 53))\n"
        "try:\n    s.recv(512); answered = True\nexcept OSError:\n    answered = False\n"
    )
    assert microvm.python("answered") == "False"


def test_checklist_109_no_ingress_refuses_http_and_unknown_connectors_are_unrecognized(hearth, image):
    managed = f"arn:aws:lambda:{hearth.settings['region']}:aws:network-connector:aws-network-connector:"
    vm = hearth.run(image, ingressNetworkConnectors=[managed + "NO_INGRESS"])
    try:
        assert vm.request()[0] == 403
    finally:
        vm.terminate()
    for arn, text in [
        (managed + "NO_EGRESS", f"Unrecognized managed network connector ARN: {managed}NO_EGRESS"),
        ("INTERNET_EGRESS", "Malformed network connector ARN"),
    ]:
        refused = refusal(lambda: hearth.run(image, egressNetworkConnectors=[arn]))
        assert refused == (400, "ValidationException", text)


def launch(hearth, image, connectors, **more):
    """A MicroVM that goes out by these connectors."""
    vm = hearth.run(image, egressNetworkConnectors=connectors, idlePolicy=WAKES, **more)
    vm.python(HELPERS)
    vm.python(
        "def udp(address, port):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n"
        "    s.sendto(b'ping', (address, port))\n"
        "    try:\n        return s.recv(16).decode()\n    except OSError:\n        return 'closed'\n"
    )
    return vm


def test_a_connector_opens_what_it_names_on_launch_resume_and_restart(world, image, core):
    made = create(world, core, ["subnet-out"], [], Name="everything")
    await_state(core, made["Id"], "ACTIVE")
    vm = launch(world, image, [made["Arn"]])
    try:
        assert vm.object["egressNetworkConnectors"] == [made["Arn"]]

        def check():
            assert value(vm, f"reach('{SERVER}', 80)") == "open"
            assert value(vm, f"udp('{SERVER}', 9000)") == "ping"
            for closed in (GATEWAY, "169.254.1.1", "100.64.0.1"):
                assert value(vm, f"reach('{closed}', 80, 2)") == "closed", closed

        check()
        vm.suspend()
        # The MicroVM keeps what its connector was; the connector itself may go.
        remove(core, made["Id"])
        vm.resume()
        check()
        world.kill()
        world.start()
        vm.await_state("RUNNING")
        check()
    finally:
        vm.terminate()


def test_a_security_group_opens_one_port_and_without_a_connector_private_ranges_are_closed(world, image, core, microvm):
    made = create(world, core, ["subnet-out"], ["sg-one"])
    await_state(core, made["Id"], "ACTIVE")
    vm = launch(world, image, [made["Arn"]])
    try:
        assert value(vm, f"[reach('{SERVER}', 80), reach('{SERVER}', 81), reach('{OTHER}', 80)]") == ["open", "closed", "closed"]
        assert value(vm, f"udp('{SERVER}', 9000)") == "closed"
        microvm.python(HELPERS)
        assert value(microvm, f"reach('{SERVER}', 80)") == "closed"
    finally:
        vm.terminate()
        remove(core, made["Id"])


def test_a_name_opens_its_addresses_and_other_names_are_unknown(world, image, core):
    made = create(world, core, ["subnet-out"], ["sg-name"])
    await_state(core, made["Id"], "ACTIVE")
    vm = launch(world, image, [made["Arn"]])
    try:
        assert value(vm, f"reach('{SERVER}', 80)") == "closed"
        assert value(vm, "resolve('elsewhere.example')") == "unknown"
        assert value(vm, f"reach('{SERVER}', 80)") == "closed"
        assert value(vm, "resolve('api.allowed.example')") == SERVER
        assert value(vm, f"[reach('{SERVER}', 80), reach('{SERVER}', 81)]") == ["open", "closed"]
    finally:
        vm.terminate()
        remove(core, made["Id"])


def test_a_connector_whose_group_allows_nothing_isolates(world, image, core):
    made = create(world, core, ["subnet-out"], ["sg-nothing"])
    await_state(core, made["Id"], "ACTIVE")
    vm = launch(world, image, [made["Arn"]])
    try:
        assert value(vm, f"[reach('{SERVER}', 80), resolve('api.allowed.example')]") == ["closed", "unknown"]
        assert value(vm, "meta('hearth/microvm-id')") == [200, vm.id]
    finally:
        vm.terminate()
        remove(core, made["Id"])


def test_an_images_connector_and_build_role_are_those_of_its_build(world, core, role):
    made = create(world, core, ["subnet-out"], ["sg-one"])
    await_state(core, made["Id"], "ACTIVE")
    reach = f"import socket; socket.create_connection(('{SERVER}', %s), timeout=20); print('RUN reached', %s)"
    application = HELPERS + CLIENT + (
        f"seen = reach('{SERVER}', 80) + ' ' + reach('{SERVER}', 81)\n"
        "print(call('s3', 'PUT', '/test-artifacts/from-the-build', seen.encode()), flush=True)\n"
        "import http.server\n"
        "class Hooks(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\n"
        "http.server.HTTPServer(('', 8080), Hooks).serve_forever()\n"
    )
    # The last line of the Dockerfile's RUN shows that a closed port is closed there, too.
    dockerfile = (
        "FROM python:3.13\n"
        f'RUN python3 -c "{reach % (80, 80)}"\n'
        f'RUN ! python3 -c "{(reach % (81, 81)).replace("20", "3")}"\n'
        "COPY application.py ./\n"
        'CMD ["python3", "application.py"]\n'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("Dockerfile", dockerfile)
        packed.writestr("application.py", application)
    uri = world.upload("build.zip", buffer.getvalue())
    world.create_image(
        "surrounded", uri, egressNetworkConnectors=[made["Arn"]], buildRoleArn=role,
        hooks={"port": 8080, "microvmImageHooks": {"ready": "ENABLED", "readyTimeoutInSeconds": 120}},
    )
    try:
        image = world.await_image("surrounded", 600)
        log = world.log_of("surrounded")
        assert image["state"] == "CREATED", log
        assert "RUN reached 80" in log and "RUN reached 81" not in log
        # Written by the application before it was ready, with the keys of the build role.
        seen = world.client("s3").get_object(Bucket="test-artifacts", Key="from-the-build")["Body"].read()
        assert seen == b"open closed"
    finally:
        world.delete_image("surrounded")
        remove(core, made["Id"])
