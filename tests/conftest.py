"""A daemon of the tests' own: fresh state, own ports, own network names, the machine's prepared base image."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from outside import Outside
from raw import Raw
from support import KEPT, NUMBER, UNLIMITED, WAKES, Hearth

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get("HEARTH_TEST_DATA", f"/var/tmp/hearth-test-{NUMBER}"))
BASE = pathlib.Path(os.environ.get("HEARTH_DATA", "/var/lib/hearth")) / "base"
OUTSIDE = Outside(NUMBER)


# Settings of the VMM that is to run the guests, by its name; the daemon's own choice otherwise.
VMM = {
    None: "",
    "qemu-kvm": 'vmm = "qemu"\nacceleration = "kvm"\nbuilder_vcpus = 1',
    "firecracker": 'vmm = "firecracker"\nbuilder_vcpus = 1',
}[os.environ.get("HEARTH_TEST_VMM")]


def settings():
    """The test daemon's hearthd.toml."""
    return f"""
listen = "127.0.0.1:{9701 + NUMBER}"
endpoint_listen = "127.0.0.1:{9443 + NUMBER}"
base = "{BASE}"
qemu = "{os.environ.get('HEARTH_TEST_QEMU', 'qemu-system-x86_64')}"
first_user_id = {3000000 + 100000 * NUMBER}
{VMM}
# Twice what users have: two daemons build at a time here, and an image whose server comes later is another test's.
listen_timeout_seconds = 20
admin_listen = "127.0.0.1:{9820 + NUMBER}"

# Tests ask faster and move more than their small MicroVMs are meant to.
{UNLIMITED}
[accounts.000000000429.rates]
ListMicrovmImages = 1

[accounts.000000000402.quotas]
images = 2
versions_per_image = 1
concurrent_builds = 1
environment_variables = 2

[network]
prefix = "htst{NUMBER}"
range = "100.{66 + NUMBER}.0.0/16"
uplinks = {json.dumps(OUTSIDE.uplinks())}
"""


@pytest.fixture(scope="session")
def hearth():
    """A running daemon with the interpreter image built."""
    daemon = Hearth(ROOT, DATA)
    OUTSIDE.make()
    daemon.start_afresh(settings(), KEPT)
    yield daemon
    daemon.stop(everything=True)
    OUTSIDE.remove()
    assert daemon.leftovers() == []


@pytest.fixture(scope="session")
def worker_number():
    """Tells apart those who test on this machine at the same time: for ports and names."""
    return NUMBER


@pytest.fixture(scope="module")
def raw(hearth):
    """Signed requests over one connection."""
    connection = Raw(hearth.settings)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def outside(hearth):
    """A machine on the guests' Internet."""
    return OUTSIDE


@pytest.fixture(scope="session")
def image(hearth):
    """The code interpreter, all hooks enabled, 512 MiB tier."""
    return hearth.build_interpreter(KEPT)


@pytest.fixture(scope="session")
def protocols(hearth, tmp_path_factory):
    """An application that speaks whatever endpoints carry, smallest size."""
    project = tmp_path_factory.mktemp("image") / "protocols"
    shutil.copytree(ROOT / "tests/images/protocols", project)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", project / "wheels",
         "--only-binary=:all:", "--python-version", "3.13", "--platform", "manylinux2014_x86_64",
         "--requirement", ROOT / "tests/images/protocols/requirements.txt"],
        check=True,
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=somebody", "-keyout", project / "key.pem", "-out", project / "certificate.pem"],
        check=True, capture_output=True,
    )
    (project / "server.pem").write_bytes(
        (project / "key.pem").read_bytes() + (project / "certificate.pem").read_bytes()
    )
    hearth.cli("image", "build", str(project), "--name", "protocols")
    return "protocols"


@pytest.fixture
def microvm(hearth, image):
    """A running MicroVM that wakes on requests."""
    vm = hearth.run(image, idlePolicy=WAKES)
    yield vm
    vm.terminate()
