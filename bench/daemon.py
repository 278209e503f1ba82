"""A daemon of the benchmarks' own, beside whatever else runs on the machine."""

import contextlib
import os
import pathlib
import re

from support import KEPT, UNLIMITED, Hearth

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get("HEARTH_TEST_DATA", "/var/tmp/hearth-bench"))
BASE = pathlib.Path(os.environ.get("HEARTH_DATA", "/var/lib/hearth")) / "base"
# What the daemon's log says of a MicroVM's stages.
STAGE = re.compile(r"^(\S+) .*: stage microvm=\"(\S+)\" from=(\w+) to=(\w+)")


@contextlib.contextmanager
def bench_daemon(more=""):
    """A running daemon with fresh state; it ends with everything it has. `more` are settings."""
    daemon = Hearth(ROOT, DATA)
    daemon.start_afresh(f"""
listen = "127.0.0.1:9791"
endpoint_listen = "127.0.0.1:9793"
admin_listen = "127.0.0.1:9795"
base = "{BASE}"
first_user_id = 5000000
# No build is measured; why one: tests/kvm-host/README.md, "Stalls".
builder_vcpus = 1
{more}
[network]
prefix = "hbench"
range = "100.99.0.0/16"

# What is measured is not how well the daemon refuses.
{UNLIMITED}""", KEPT)
    try:
        yield daemon
    finally:
        daemon.stop(everything=True)
