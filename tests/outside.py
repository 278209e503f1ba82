"""A machine on the guests' Internet: a network namespace behind a link of the host, with addresses of a documentation
range (RFC 5737), which are nobody's."""

import contextlib
import json
import subprocess
import sys


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


class Outside:
    """One such machine; several tests on one host have one each."""

    def __init__(self, number):
        self.name = f"htst{number}-internet"
        self.link = f"htst{number}wan"
        self.host, self.address = (f"198.51.100.{number * 8 + last}" for last in (1, 2))

    def uplinks(self):
        """The interfaces through which guests may leave: the host's own, and the one to this machine."""
        routes = json.loads(run("ip", "-json", "route", "show", "default") or "[]")
        return sorted({route["dev"] for route in routes}) + [self.link]

    def make(self):
        self.remove()
        for line in [
            f"netns add {self.name}",
            f"link add {self.link} type veth peer name eth0 netns {self.name}",
            f"address add {self.host}/29 dev {self.link}",
            f"link set {self.link} up",
            f"-n {self.name} address add {self.address}/29 dev eth0",
            f"-n {self.name} link set eth0 up",
            f"-n {self.name} link set lo up",
            f"-n {self.name} route add default via {self.host}",
        ]:
            run("ip", *line.split())

    def remove(self):
        run("ip", "link", "del", self.link, check=False)
        run("ip", "netns", "del", self.name, check=False)

    def python(self, code, *arguments):
        """Starts Python in this machine; the caller ends it."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, "-uc", code, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    @contextlib.contextmanager
    def serving(self, code, *arguments):
        """Python in this machine that prints `listening` when it is; ended afterwards."""
        server = self.python(code, *arguments)
        try:
            assert server.stdout.readline() == "listening\n"
            yield server
        finally:
            server.kill()
            server.wait()
