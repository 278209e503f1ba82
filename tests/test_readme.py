"""The README's own commands, taken from the README, run as its reader would run them."""

import os
import pathlib
import re
import subprocess

import pytest

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def block(title, language):
    """The first code block under a heading."""
    section = README.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module")
def reader(hearth, tmp_path_factory):
    """Runs a script as the reader of the README would, in one directory with one environment."""
    tools = pathlib.Path(os.sys.executable).parent

    def run(script):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=README.parent, text=True, capture_output=True, timeout=900,
            env={**hearth.environment, "PATH": f"{tools}:{os.environ['PATH']}"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_by_hand(reader):
    # The daemon is the tests' own: it is up already and stays.
    lines = [line for line in block("By hand", "sh").splitlines() if not line.startswith(("make up", "target/release/hearth down"))]
    assert len(lines) >= 8
    printed = reader("\n".join(lines))
    assert '"result": "42"' in printed and "hook suspend" in printed


def test_with_the_aws_cli_and_boto3(reader):
    walk = block("With the AWS CLI", "sh")
    printed = reader(walk)
    assert '"result": "42"' in printed
    script = 'eval "$(target/release/hearth env)"\npython3 - <<\'END\'\n' + block("With boto3", "python") + "END\n"
    assert reader(script).strip() == "42"
