"""What the tests speak: boto3 for the API, requests for endpoints, the command line for a person's habits."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
import http.client
import io
import tomllib
import zipfile

import boto3
import botocore.config
import botocore.exceptions

import model


# Several checkouts can be tested on one machine at the same time, each with a number of its own, by up to four workers each.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NUMBER = 4 * int(os.environ.get("HEARTH_TEST_NUMBER", "0")) + WORKER
# Where a build takes minutes, the data directory is kept here from one run to the next as soon as the interpreter is built.
KEPT = os.environ.get("HEARTH_TEST_KEPT") and pathlib.Path(os.environ["HEARTH_TEST_KEPT"])
# How many times longer than on a quiet machine of its own everything may take.
PATIENCE = float(os.environ.get("HEARTH_TEST_PATIENCE", "2"))


def wait_for(what, condition, seconds=60, pause=0.05):
    """Polls until the condition gives something; its last value otherwise tells what was there."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(pause)


def refusal(call, **arguments):
    """HTTP status, code and message of the error that a call must end with."""
    try:
        answer = call(**arguments)
    except botocore.exceptions.ClientError as error:
        response = error.response
        return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]
    raise AssertionError(f"not refused: {answer}")


def copy(source, target):
    """What a directory holds, into another one; holes stay holes."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", target], check=True)


# An idle policy under which a test's MicroVM suspends when the test says so, and wakes on requests.
WAKES = dict(maxIdleDurationSeconds=3600, suspendedDurationSeconds=3600, autoResumeEnabled=True)

# Settings of a daemon that refuses nobody for asking often or moving much.
UNLIMITED = """
[rates]
RunMicrovm = 0
ResumeMicrovm = 0
SuspendMicrovm = 0
TerminateMicrovm = 0
GetMicrovm = 0
CreateMicrovmAuthToken = 0
CreateMicrovmShellAuthToken = 0

[limits]
connections_per_vcpu = 0
requests_per_second_per_vcpu = 0
bytes_per_second_per_vcpu = 0
"""


def groups(pid):
    """Control groups of a process: (directory, controllers), the version-2 one without controllers' names."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        root = pathlib.Path("/sys/fs/cgroup")
        if not controllers and not (root / "cgroup.controllers").exists():
            continue
        directory = root / controllers if controllers else root
        if (directory / path.lstrip("/")).exists():
            found.append((directory / path.lstrip("/"), controllers))
    return found


def cpu_groups(pid):
    return [directory for directory, _ in groups(pid) if (directory / "cpu.idle").exists()]


def stands_back(pid):
    """Whether a VMM's guest takes only the processor time that nobody else wants."""
    (group,) = cpu_groups(pid)
    return (group / "cpu.idle").read_text().strip() == "1"


class Hearth:
    """A daemon with its data directory."""

    def __init__(self, root, data):
        self.root, self.data = root, data
        self.binary = root / "target/release/hearth"
        self.clients = {}

    @property
    def environment(self):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return {**clean, "HEARTH_DATA": str(self.data)}

    def cli(self, *arguments, check=True):
        done = subprocess.run(
            [self.binary, *arguments], env=self.environment, capture_output=True, text=True, timeout=900
        )
        assert not check or done.returncode == 0, f"hearth {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def json(self, *arguments):
        return json.loads(self.cli("--json", *arguments).stdout)

    def start(self):
        self.cli("up")
        self.settings = json.loads((self.data / "client.json").read_text())
        self.clients = {}

    def start_afresh(self, settings, kept=None):
        """Starts with these settings and nothing that an earlier daemon left here; with what was kept instead, if it was."""
        self.stop_leftover()
        # The builder's own snapshot and bases cost a minute to make and hold no state of anybody's.
        for path in self.data.glob("*") if self.data.exists() else []:
            if path.name != "builder":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.data.mkdir(parents=True, exist_ok=True)
        if kept and kept.exists():
            copy(kept, self.data)
        (self.data / "hearthd.toml").write_text(settings)
        self.start()

    def keep(self, kept):
        """Keeps the data directory as it is now for a later `start_afresh`."""
        self.stop()
        making = kept.with_name(f"{kept.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        copy(self.data, making)
        os.sync()
        making.rename(kept)
        self.start()

    def build_interpreter(self, kept=None):
        """The demo image at 512 MiB, unless it was kept; its name."""
        name = "interpreter"
        if not self.image_exists(name):
            self.cli("image", "build", str(self.root / "examples/code-interpreter"), "--name", name)
            if kept:
                self.keep(kept)
        return name

    def admin(self, path):
        """What the admin listener answers, as text."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(f"http://{self.settings['admin']}{path}").read().decode()

    def logged(self, *words):
        """Lines of the daemon's log that hold all these words."""
        lines = (self.data / "hearthd.log").read_text().splitlines()
        return [line for line in lines if all(word in line for word in words)]

    @property
    def driver(self):
        """Name of the VMM's driver."""
        return re.search(r'hearth_vmm_info\{driver="(\w+)"', self.admin("/metrics"))[1]

    def stop(self, everything=False):
        self.cli("down", *(["--all"] if everything else []))

    def stop_leftover(self):
        if (self.data / "hearthd.pid").exists() and (self.data / "client.json").exists():
            self.cli("down", "--all", check=False)

    @property
    def pid(self):
        return int((self.data / "hearthd.pid").read_text())

    def kill(self):
        """As a power cut would end the daemon; MicroVMs go on."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_for("the daemon's end", lambda: not pathlib.Path(f"/proc/{pid}/exe").exists())

    @property
    def configuration(self):
        return tomllib.loads((self.data / "hearthd.toml").read_text())

    def processes(self):
        """VMM processes of this daemon: they run as its own users."""
        first = self.configuration["first_user_id"]
        found = []
        for directory in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if first <= directory.stat().st_uid < first + 65536 and (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
        return found

    def guests(self):
        """Names of the guests' own directories."""
        return sorted(path.name for path in (self.data / "run").glob("*"))

    def namespaces(self):
        prefix = self.configuration["network"]["prefix"]
        return sorted(path.name for path in pathlib.Path("/run", prefix, "netns").glob("*"))

    def control_groups(self):
        """Directories of the VMMs' control groups, in every hierarchy."""
        prefix = self.configuration["network"]["prefix"]
        parents = [*pathlib.Path("/sys/fs/cgroup").glob(f"*/{prefix}"), pathlib.Path("/sys/fs/cgroup", prefix)]
        return sorted(str(path) for parent in parents for path in parent.glob("*") if path.is_dir())

    def leftovers(self):
        """What a daemon that ended with everything must not leave behind."""
        prefix = self.configuration["network"]["prefix"]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.splitlines()
        links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, text=True).stdout)
        return [
            *(f"process {pid}" for pid in self.processes()),
            *(f"guest {name}" for name in self.guests()),
            *(f"namespace {name}" for name in self.namespaces()),
            *(f"control group {path}" for path in self.control_groups()),
            *(line for line in tables if line.split()[-1] == prefix),
            *(f"link {link['ifname']}" for link in links if link["ifname"].startswith(f"{prefix}-")),
            *(line for line in pathlib.Path("/proc/mounts").read_text().splitlines() if f"/run/{prefix}/netns/" in line),
            *(str(path) for path in (self.data / "microvms").glob("*")),
        ]

    def client(self, service="lambda-microvms", attempts=2):
        """A client that calls so many times before it raises an error of this service's."""
        if (service, attempts) not in self.clients:
            self.clients[service, attempts] = boto3.client(
                service,
                endpoint_url=self.settings["endpointUrl"],
                region_name=self.settings["region"],
                aws_access_key_id=self.settings["accessKeyId"],
                aws_secret_access_key=self.settings["secretAccessKey"],
                verify=self.settings["ca"],
                config=botocore.config.Config(retries={"total_max_attempts": attempts}, s3={"addressing_style": "path"}),
            )
            model.watch(self.clients[service, attempts], service)
        return self.clients[service, attempts]

    def account(self):
        return self.client("sts").get_caller_identity()["Account"]

    def arn(self, name):
        return f"arn:aws:lambda:{self.settings['region']}:{self.account()}:microvm-image:{name}"

    def role(self):
        return f"arn:aws:iam::{self.account()}:role/hearth-test"

    def base_arn(self):
        return self.client().list_managed_microvm_images()["items"][0]["imageArn"]

    def upload(self, key, body, bucket="test-artifacts"):
        s3 = self.client("s3")
        if bucket not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    @staticmethod
    def archive(**files):
        """A zip; `__` in a name stands for a slash."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packed:
            for name, text in files.items():
                packed.writestr(name.replace("__", "/"), text)
        return buffer.getvalue()

    def create_image(self, name, uri, **more):
        arguments = dict(
            name=name, baseImageArn=self.base_arn(), buildRoleArn=self.role(), codeArtifact={"uri": uri},
            resources=[{"minimumMemoryInMiB": 512}],
        )
        return self.client().create_microvm_image(**{**arguments, **more})

    def await_image(self, name, seconds=300):
        arn = self.arn(name)
        busy = ("CREATING", "UPDATING", "DELETING")

        def settled():
            image = self.client().get_microvm_image(imageIdentifier=arn)
            return image if image["state"] not in busy else None

        return wait_for(f"image {name}", settled, seconds, 0.2)

    def build_of(self, name, version="1.0"):
        arn = self.arn(name)
        builds = self.client().list_microvm_image_builds(imageIdentifier=arn, imageVersion=version)["items"]
        return self.client().get_microvm_image_build(
            imageIdentifier=arn, imageVersion=version, buildId=builds[0]["buildId"]
        )

    def delete_image(self, name):
        self.client().delete_microvm_image(imageIdentifier=self.arn(name))
        wait_for("the image's end", lambda: not self.image_exists(name))

    def image_exists(self, name):
        try:
            self.client().get_microvm_image(imageIdentifier=self.arn(name))
            return True
        except self.client().exceptions.ResourceNotFoundException:
            return False

    def log_of(self, name):
        pages = self.client("logs").get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda-microvms/{name}"
        )
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def run(self, image, ready=True, **more):
        made = self.client().run_microvm(imageIdentifier=self.arn(image), **more)
        vm = MicroVm(self, made)
        return vm.await_state("RUNNING") if ready else vm


class MicroVm:
    """One MicroVM and its endpoint."""

    def __init__(self, hearth, made):
        self.hearth, self.id, self.endpoint = hearth, made["microvmId"], made["endpoint"]
        self.tokens = {}

    def connect(self, timeout=120):
        """A TLS connection to its endpoint."""
        context = ssl.create_default_context(cafile=self.hearth.settings["ca"])
        host, port = self.hearth.settings["gateway"].split(":")
        raw = socket.create_connection((host, int(port)), timeout=timeout)
        return context.wrap_socket(raw, server_hostname=self.endpoint.partition(":")[0])

    @property
    def object(self):
        return self.hearth.client().get_microvm(microvmIdentifier=self.id)

    @property
    def state(self):
        return self.object["state"]

    def await_state(self, *states, seconds=60):
        def there():
            now = self.object
            assert now["state"] in states or now["state"] != "TERMINATED", f"terminated: {now.get('stateReason')}"
            return now["state"] in states

        wait_for(f"{self.id} in {states}", there, seconds)
        return self

    def suspend(self):
        self.hearth.client().suspend_microvm(microvmIdentifier=self.id)
        return self.await_state("SUSPENDED")

    def resume(self):
        self.hearth.client().resume_microvm(microvmIdentifier=self.id)
        return self.await_state("RUNNING")

    def terminate(self):
        self.hearth.client().terminate_microvm(microvmIdentifier=self.id)
        return self.await_state("TERMINATED")

    def token(self, *ports, minutes=60):
        allowed = [{"port": port} for port in ports] or [{"allPorts": {}}]
        answer = self.hearth.client().create_microvm_auth_token(
            microvmIdentifier=self.id, expirationInMinutes=minutes, allowedPorts=allowed
        )
        return answer["authToken"]["X-aws-proxy-auth"]

    def session(self, timeout=120):
        """An HTTP connection through TLS to its endpoint."""
        connection = http.client.HTTPConnection(self.endpoint, timeout=timeout)
        connection.sock = self.connect(timeout)
        return connection

    def request(self, method="GET", path="/", body=None, headers=None, port=8080, token=None, timeout=120):
        """A request of its own connection at the endpoint: (status, headers, body)."""
        connection = self.session(timeout)
        try:
            return self.ask(connection, method, path, body, headers, port, token)
        finally:
            connection.close()

    def ask(self, connection, method="GET", path="/", body=None, headers=None, port=8080, token=None):
        """A request over a connection: (status, headers, body)."""
        if token is None:
            if port not in self.tokens:
                self.tokens[port] = self.token(port)
            token = self.tokens[port]
        own = {"X-aws-proxy-port": str(port), **({"X-aws-proxy-auth": token} if token else {})}
        all_headers = {**own, **(headers or {})}
        connection.request(method, path, body=body, headers=all_headers)
        response = connection.getresponse()
        content = response.read()
        return response.status, dict(response.getheaders()), content

    def python(self, code):
        """Runs code in the interpreter; the repr of its last expression, or its traceback."""
        status, _, body = self.request("POST", "/run", body=code.encode())
        assert status == 200, (status, body)
        answer = json.loads(body)
        return answer["error"] or answer["result"] or answer["stdout"]

    def manifest(self):
        """Where the snapshot that it is suspended on is described."""
        suspend, = (self.hearth.data / "microvms" / self.id).glob("suspended-*/suspend.json")
        snapshot = json.loads(suspend.read_text())["snapshot"]
        manifests = (self.hearth.data / "images").glob("*/*/manifest.json")
        return next(path for path in manifests if json.loads(path.read_text())["id"] == snapshot)
