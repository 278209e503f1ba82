"""A daemon of the benchmarks' own, beside whatever else runs on the machine."""

import contextlib
import os
import pathlib

from support import UNLIMITED, Hearth

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get("HEARTH_TEST_DATA", "/var/tmp/hearth-bench"))
BASE = pathlib.Path(os.environ.get("HEARTH_DATA", "/var/lib/hearth")) / "base"
KEPT = os.environ.get("HEARTH_TEST_KEPT") and pathlib.Path(os.environ["HEARTH_TEST_KEPT"])
INTERPRETER = "interpreter"


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


def build_interpreter(hearth):
    """The demo image at 512 MiB, which an earlier run may have kept."""
    if not hearth.image_exists(INTERPRETER):
        hearth.cli("image", "build", str(ROOT / "examples/code-interpreter"), "--name", INTERPRETER)
        if KEPT:
            hearth.keep(KEPT)
