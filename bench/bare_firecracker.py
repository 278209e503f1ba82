"""A bare restore of a hearth snapshot by Firecracker."""

import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import time

from bare import TAP, Bare, apply_delta, ask, settle_link

# Where the snapshot's state says that its disks are.
DISKS = pathlib.Path("/disks")


class BareFirecracker(Bare):
    """Loads the files of a version; a suspended MicroVM's memory is put together beforehand, as Firecracker's own full snapshot
    would have it."""

    def __init__(self, snapshot, work):
        super().__init__(snapshot, work)
        DISKS.mkdir()
        (DISKS / "0").symlink_to(self.snapshot / "root.erofs")
        (DISKS / "1").symlink_to(self.clone)
        self.socket = self.work / "api.sock"
        self.memory = self.work / "memory"
        self.tracked = False

    def close(self):
        super().close()
        shutil.rmtree(DISKS)

    def prepare(self, suspended):
        if suspended:
            subprocess.run(["cp", "--sparse=always", self.snapshot / "memory", self.memory], check=True)
            apply_delta(pathlib.Path(suspended) / "delta", self.memory)

    def forget(self):
        for path in (self.clone, self.socket, self.memory):
            path.unlink(missing_ok=True)

    def spawn(self):
        return subprocess.Popen(
            ["firecracker", "--id", "bare", "--api-sock", self.socket], cwd=self.work,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def load(self, process, suspended):
        self.call("PUT", "/snapshot/load", {
            "snapshot_path": f"{suspended or self.snapshot}/device-state",
            "mem_backend": {"backend_type": "File", "backend_path": str(self.memory if suspended else self.snapshot / "memory")},
            "enable_diff_snapshots": self.tracked,
        })
        settle_link(TAP)
        self.call("PATCH", "/vm", {"state": "Resumed"})

    def call(self, method, path, body):
        connection = http.client.HTTPConnection("firecracker")
        connection.sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                connection.sock.connect(str(self.socket))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.001)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, text

    def save(self, scratch, kind, work):
        """Firecracker's own snapshot after `work` in a fresh guest: seconds of the restore, of the pause with the snapshot, and the
        bytes of memory that it wrote. A "Diff" needs the guest's writes to be tracked from its load on."""
        self.tracked = kind == "Diff"
        measured = {}

        def save():
            ask("POST", "/run", work)
            begun = time.perf_counter()
            self.call("PATCH", "/vm", {"state": "Paused"})
            files = {"snapshot_path": str(self.work / "saved-state"), "mem_file_path": str(self.work / "saved-memory")}
            self.call("PUT", "/snapshot/create", {"snapshot_type": kind, **files})
            measured["seconds"] = time.perf_counter() - begun
            measured["bytes"] = (self.work / "saved-memory").stat().st_blocks * 512

        restore = self.restore(scratch, then=save)
        self.tracked = False
        for name in ("saved-state", "saved-memory"):
            (self.work / name).unlink()
        return restore, measured["seconds"], measured["bytes"]
