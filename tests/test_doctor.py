"""What `hearth doctor` says of a machine: what is there, what is missing, and the cure."""

import json
import os
import shutil
import subprocess

import pytest

from support import Hearth


def report(done):
    """The findings by name, and whether the machine will do."""
    found = json.loads(done.stdout)
    assert found["sound"] == (done.returncode == 0)
    return {check["name"]: check for check in found["checks"]}, found["sound"]


class Doctor(Hearth):
    """The command line beside a data directory that no daemon has."""

    def __init__(self, root, data, base):
        super().__init__(root, data)
        self.base = base
        self.settings_are("")

    def settings_are(self, text):
        (self.data / "hearthd.toml").write_text(f'base = "{self.base}"\n{text}')

    def program(self, name, script):
        """A program of the test's own."""
        file = self.data / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def examine(self):
        return report(self.cli("--json", "doctor", check=False))

    def examine_with(self, program):
        """With this program in the place of the machine's, in the doctor's mount namespace alone."""
        place = os.path.realpath(shutil.which(program.name))
        bound = f'mount --bind {program} {place} && exec "$@"'
        return report(subprocess.run(
            ["unshare", "--mount", "sh", "-c", bound, "sh", self.binary, "--json", "doctor"],
            env=self.environment, capture_output=True, text=True, timeout=120,
        ))


@pytest.fixture
def doctor(hearth, tmp_path):
    return Doctor(hearth.root, tmp_path, hearth.configuration["base"])


def test_this_machine_will_do_and_the_doctor_names_what_its_guests_run_on(hearth):
    checks, sound = report(hearth.cli("--json", "doctor"))
    assert sound and all(check["verdict"] != "bad" for check in checks.values()), checks
    assert checks["nftables"]["cause"] == "the kernel takes the rules of guests' networks"
    # The name of the driver is the one that the daemon measures by.
    assert f"guests run on {hearth.driver}" in checks["vmm"]["cause"]
    lines = hearth.cli("doctor").stdout.splitlines()
    assert len(lines) == len(checks) and all(line[:4] in ("ok  ", "note") for line in lines)


def test_a_kernel_that_does_not_take_the_rules_is_named_with_its_words(doctor):
    refuses = "cat >/dev/null; echo 'Error: Could not process rule: Operation not supported' >&2; exit 1"
    checks, sound = doctor.examine_with(doctor.program("nft", refuses))
    assert not sound and checks["nftables"]["verdict"] == "bad"
    assert "no guest can start" in checks["nftables"]["cause"]
    assert "Could not process rule: Operation not supported" in checks["nftables"]["cause"]
    assert checks["nftables"]["cure"]


@pytest.mark.parametrize("asked_for", [False, True])
def test_a_firecracker_that_is_missing_is_bad_only_where_it_is_asked_for(doctor, asked_for):
    doctor.settings_are('firecracker = "/nowhere/firecracker"\n' + 'vmm = "firecracker"\n' * asked_for)
    checks, sound = doctor.examine()
    assert checks["firecracker"]["verdict"] == ("bad" if asked_for else "note")
    assert "/nowhere/firecracker" in checks["firecracker"]["cause"]
    assert "1.12 or newer, below 2" in checks["firecracker"]["cure"]
    assert checks["vmm"]["verdict"] == ("bad" if asked_for else "ok")
    assert sound != asked_for


def test_a_firecracker_that_is_too_old_is_refused_by_its_version(doctor):
    program = doctor.program("firecracker", "echo Firecracker v1.11.0")
    doctor.settings_are(f'firecracker = "{program}"\nvmm = "firecracker"')
    checks, sound = doctor.examine()
    assert not sound and checks["firecracker"]["verdict"] == "bad"
    assert "it is Firecracker 1.11; hearth needs 1.12 or newer, below 2" in checks["firecracker"]["cause"]
