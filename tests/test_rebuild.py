"""A snapshot belongs to the VMM and the guest kernel that made it: with another one launches are refused by name, it is made
again, and what a MicroVM was suspended on stays."""

import json
import zlib

from support import refusal, wait_for


SERVER = """\
import http.server, uuid
born = uuid.uuid4().hex
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '32')
        self.end_headers()
        self.wfile.write(born.encode())
http.server.HTTPServer(('', 8080), Server).serve_forever()
"""


def build(hearth, source, name):
    """An image whose clones answer their snapshot's own number."""
    (source / "Dockerfile").write_text('FROM python:3.13\nCOPY server.py /\nCMD ["python3", "/server.py"]\n')
    (source / "server.py").write_text(SERVER)
    hearth.cli("image", "build", str(source), "--name", name, "--memory", "512")


def change(manifest, edit):
    """The manifest's former text; the node's daemon must not run."""
    text = manifest.read_text()
    changed = json.loads(text)
    del changed["checksum"]
    edit(changed)
    changed["checksum"] = zlib.crc32(json.dumps(changed, separators=(",", ":")).encode())
    manifest.write_text(json.dumps(changed))
    return text


def born(vm):
    status, _, body = vm.request()
    assert status == 200, (status, body)
    return body


def builds(hearth, image):
    return hearth.client().list_microvm_image_builds(imageIdentifier=hearth.arn(image), imageVersion="1.0")["items"]


def test_a_snapshot_of_another_vmm_is_refused_then_made_again_and_suspended_microvms_keep_theirs(hearth, tmp_path):
    build(hearth, tmp_path, "rebuilt")
    client = hearth.client()
    kept, first = hearth.run("rebuilt"), hearth.run("rebuilt")
    first_born = born(kept)
    assert born(first) == first_born
    first.terminate()
    kept.suspend()
    manifest = kept.manifest()

    hearth.stop()
    whole = change(manifest, lambda manifest: manifest["platform"].update(version="0.1"))
    hearth.start()
    _, code, message = refusal(client.run_microvm, imageIdentifier=hearth.arn("rebuilt"))
    assert code == "ConflictException" and "is being made again for this node" in message and 'version: "0.1"' in message
    wait_for("its being made again", lambda: builds(hearth, "rebuilt")[0]["buildState"] == "IN_PROGRESS")
    shown, = builds(hearth, "rebuilt")
    assert 'version: "0.1"' in shown.get("stateReason", ""), shown
    version = client.get_microvm_image_version(imageIdentifier=hearth.arn("rebuilt"), imageVersion="1.0")
    assert version["state"] == "SUCCESSFUL"

    # What was suspended on it waits for the old VMM: neither lost, nor run on what it does not fit.
    _, code, message = refusal(client.resume_microvm, microvmIdentifier=kept.id)
    assert code == "ConflictException" and 'version: "0.1"' in message
    assert kept.state == "SUSPENDED"

    wait_for("the new snapshot", lambda: builds(hearth, "rebuilt")[0]["buildState"] == "SUCCESSFUL", 120)
    assert "stateReason" not in builds(hearth, "rebuilt")[0]
    again = hearth.run("rebuilt")
    assert born(again) != first_born
    again.terminate()

    # The old VMM is back.
    hearth.stop()
    manifest.write_text(whole)
    hearth.start()
    kept.resume()
    assert born(kept) == first_born
    kept.terminate()
    hearth.delete_image("rebuilt")
    assert not manifest.parent.parent.exists()


def test_with_another_kernel_launches_are_refused_until_the_new_snapshot_and_suspended_microvms_resume(hearth, tmp_path):
    build(hearth, tmp_path, "another-kernel")
    kept = hearth.run("another-kernel")
    first_born = born(kept)
    kept.suspend()
    manifest = kept.manifest()

    hearth.stop()
    change(manifest, lambda manifest: manifest.update(kernelRelease="0.1"))
    hearth.start()
    _, code, message = refusal(hearth.client().run_microvm, imageIdentifier=hearth.arn("another-kernel"))
    assert code == "ConflictException" and "the snapshot's guest runs kernel 0.1, this node boots " in message
    # Its kernel lies in its memory.
    kept.resume()
    assert born(kept) == first_born

    wait_for("the new snapshot", lambda: builds(hearth, "another-kernel")[0]["buildState"] == "SUCCESSFUL", 120)
    new = hearth.run("another-kernel")
    assert born(new) != first_born
    kept.suspend()
    kept.resume()
    assert born(kept) == first_born
    new.terminate()
    kept.terminate()
    hearth.delete_image("another-kernel")
