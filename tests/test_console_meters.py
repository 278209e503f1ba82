"""What shells, commands and files move is traffic like any other: in the metrics, in the usage, in the access log."""

import re

import pytest

from console import Command, files, ingress, shell
from support import wait_for

PIECE = 200_000


@pytest.fixture(scope="module")
def vm(hearth, image):
    vm = hearth.run(image, ingressNetworkConnectors=ingress(hearth, "SHELL_INGRESS"))
    yield vm
    vm.terminate()


def by_metrics(vm):
    lines = [line for line in vm.hearth.admin("/metrics").splitlines() if vm.id in line and line.startswith("hearth_endpoint_bytes_total")]
    return {("in" if 'direction="in"' in line else "out"): int(float(line.split()[-1])) for line in lines}


def by_usage(vm):
    (item,) = [item for item in vm.hearth.json("usage")["items"] if item["microvmId"] == vm.id]
    return {"in": item["proxyReceivedBytes"], "out": item["proxySentBytes"]}


def command(vm):
    cat = Command(vm, ["cat"])
    cat.write(bytes(PIECE))
    cat.control(type="stdin_end")
    out, _, last = cat.finish()
    assert (len(out), last["code"]) == (PIECE, 0)


def typed(vm):
    with shell(vm) as screen:
        screen.until("λ $ ")
        screen.say(f"stty raw -echo; echo rea''dy; head -c {PIECE} | wc -c; head -c {PIECE} /dev/zero; echo en''d\n")
        screen.until("ready\n")
        for _ in range(PIECE // 1000):
            screen.ws.send(bytes(1000))
        screen.until("end")


def file(vm):
    assert files(vm, "PUT", "/tmp/piece", body=bytes(PIECE))[0] in (200, 201, 204)
    status, _, body = files(vm, "GET", "/tmp/piece")
    assert (status, len(body)) == (200, PIECE)


@pytest.mark.parametrize("move", [command, typed, file])
def test_bytes_of_the_console_are_counted_everywhere_once(vm, move):
    metrics, usage = by_metrics(vm), by_usage(vm)
    began = len((vm.hearth.data / "hearthd.log").read_text())
    move(vm)
    for name, look, before in (("metrics", by_metrics, metrics), ("usage", by_usage, usage)):

        def moved():
            now = look(vm)
            grown = {way: now.get(way, 0) - before.get(way, 0) for way in ("in", "out")}
            return grown if min(grown.values()) >= PIECE else None

        grown = wait_for(f"the {name}", moved)
        assert max(grown.values()) < PIECE * 1.5, (name, grown)

    def logged():
        lines = (vm.hearth.data / "hearthd.log").read_text()[began:].splitlines()
        pairs = [re.search(r"bytes_in=(\d+) bytes_out=(\d+)", line) for line in lines if "hearth::access" in line and vm.id in line]
        sums = [sum(int(pair[way]) for pair in pairs if pair) for way in (1, 2)]
        return min(sums) >= PIECE

    wait_for("the access log", logged)
