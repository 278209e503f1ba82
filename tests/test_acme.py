"""The endpoints' certificate from a public authority: pebble, the test server of those who run the largest one, looks for
the TXT record at a name server of its own (both are Debian's)."""

import contextlib
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import urllib.request

import pytest

from private import settings
from support import wait_for

# Certificates of the test live this long, and are replaced when a third of it is left.
LIFE = 24
ROOT = pathlib.Path(__file__).resolve().parent.parent


class Authority:
    """pebble and its name server, which can be taken away."""

    def __init__(self, directory, first_port):
        self.directory = directory
        self.listen, self.management, self.dns, self.records = (first_port + number for number in range(4))
        self.domain = f"port{self.records}.example.test"
        self.url = f"https://localhost:{self.listen}/dir"
        self.ca = directory / "ca.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE",
             "-keyout", directory / "key.pem", "-out", self.ca],
            check=True, capture_output=True,
        )
        (directory / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": f"127.0.0.1:{self.listen}", "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.ca), "privateKey": str(directory / "key.pem"), "httpPort": 1, "tlsPort": 1,
            "certificateValidityPeriod": LIFE, "retryAfter": {"authz": 1, "order": 1},
        }}))

    @contextlib.contextmanager
    def running(self):
        # Proofs are wanted every time, at once, and no nonce is refused for the sake of it.
        manners = {"PEBBLE_AUTHZREUSE": "0", "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        command = ["pebble", "-config", self.directory / "pebble.json", "-dnsserver", f"127.0.0.1:{self.dns}"]
        with open(self.directory / "pebble.log", "wb") as log:
            process = subprocess.Popen(command, env={**os.environ, **manners}, stdout=log, stderr=log)
        try:
            self.root = wait_for("pebble", lambda: self.ask(f"https://localhost:{self.management}/roots/0"))
            yield
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def name_server(self):
        command = ["pebble-challtestsrv", "-management", f"127.0.0.1:{self.records}", "-dns01", f"127.0.0.1:{self.dns}"]
        # What else it would listen on differs between Debian 12 and 13.
        known = subprocess.run([command[0], "-help"], capture_output=True, text=True).stderr
        others = [name for name in ("-http01", "-https01", "-tlsalpn01", "-doh") if f"{name} string" in known]
        off = [word for name in others for word in (name, "")]
        process = subprocess.Popen([*command, *off], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for("the name server", lambda: self.record_count() is not None)
            yield
        finally:
            process.kill()
            process.wait()

    def ask(self, url):
        context = ssl.create_default_context(cafile=self.ca)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            return opener.open(url, timeout=10).read().decode()
        except OSError:
            return None

    def record_count(self):
        """How many TXT records there are for the proof; none while nobody answers."""
        labels = f"_acme-challenge.{self.domain}".split(".")
        name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect(("127.0.0.1", self.dns))
            try:
                client.send(struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 16, 1))
                return struct.unpack(">6H", client.recv(4096)[:12])[3]
            except OSError:
                return None


@pytest.fixture(scope="module")
def authority(tmp_path_factory, worker_number):
    made = Authority(tmp_path_factory.mktemp("authority"), 14000 + 10 * worker_number)
    with made.running():
        yield made


@pytest.fixture(scope="module")
def certified(hearth, authority):
    """The daemon with its certificate from there; its own settings afterwards."""
    with settings(hearth, f"""
[acme]
directory = "{authority.url}"
ca = "{authority.ca}"
contact = ["mailto:ops@example.com"]
terms_agreed = true
dns_program = "{ROOT / "tests/clients/acme-dns"}"
propagation_seconds = 0
""", first=f'endpoint_domain = "{authority.domain}"\n'):
        yield hearth


def shown(hearth, domain, trust=None):
    """The certificate that an endpoint's clients see; with trust, none unless they are content with it."""
    context = ssl.create_default_context(cadata=trust) if trust else ssl._create_unverified_context()
    host, port = hearth.settings["gateway"].split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            with context.wrap_socket(raw, server_hostname=f"microvm-1.{domain}") as stream:
                return stream.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError:
        return None


def series(hearth):
    found = re.findall(r"^hearth_certificate_(\S+) (\S+)$", hearth.admin("/metrics"), re.M)
    return {name: float(value) for name, value in found}


def attempts(hearth, outcome):
    return series(hearth)[f'attempts_total{{outcome="{outcome}"}}']


def test_a_certificate_is_proved_by_dns_served_renewed_and_kept_when_a_renewal_fails(certified, authority):
    hearth, domain = certified, authority.domain
    own = (hearth.data / "ca/ca.pem").read_text()

    # The program cannot make the record: the daemon runs all the same, with its own certificate, and says why.
    wait_for("a failure", lambda: attempts(hearth, "failed"))
    assert shown(hearth, domain, trust=own) and not shown(hearth, domain, trust=authority.root)
    assert series(hearth)["expiry_timestamp_seconds"] == 0
    log = (hearth.data / "hearthd.log").read_text()
    assert re.search(r"no new certificate.*acme-dns present failed.*curl", log), log[-2000:]

    hearth.stop()
    with authority.name_server():
        hearth.start()
        first = wait_for("a certificate", lambda: shown(hearth, domain, trust=authority.root), seconds=120)
        assert attempts(hearth, "issued") >= 1
        assert series(hearth)["expiry_timestamp_seconds"] > 0
        wait_for("the record's end", lambda: authority.record_count() == 0)

        # Its time comes, and the next one is served without a restart, by the same account.
        second = wait_for("a renewal", lambda: (now := shown(hearth, domain)) != first and now, seconds=120)
        assert wait_for("trust", lambda: shown(hearth, domain, trust=authority.root), seconds=120)
        assert second != first and attempts(hearth, "issued") >= 2
        failed = attempts(hearth, "failed")
    files = {path.name: path for path in (hearth.data / "acme").rglob("*") if path.is_file()}
    assert sorted(files) == ["account.json", f"{domain}.pem"]
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    log = (hearth.data / "hearthd.log").read_text()
    assert log.count("an account was made") == 1 and "PRIVATE KEY" not in log

    # Without the name server a renewal fails, and what was good stays.
    wait_for("a failed renewal", lambda: attempts(hearth, "failed") > failed, seconds=120)
    kept = shown(hearth, domain)
    assert ssl.DER_cert_to_PEM_cert(kept) in files[f"{domain}.pem"].read_text()
    assert not shown(hearth, domain, trust=own)


def test_doctor_knows_where_the_certificate_comes_from(certified, authority):
    checks = json.loads(certified.cli("--json", "doctor", check=False).stdout)["checks"]
    found = next(check for check in checks if check["name"] == "certificate")
    assert found["verdict"] == "ok" and authority.url in found["cause"]
