"""A snapshot belongs to the VMM that made it: by another one it is refused by name and made again, and what a MicroVM was
suspended on stays."""

import json

import botocore.exceptions
import pytest

from support import wait_for


def of_another_vmm(manifest):
    """As a snapshot is after the node's VMM has changed."""
    text = manifest.read_text()
    changed = json.loads(text)
    changed["platform"]["version"] = "0.1"
    manifest.write_text(json.dumps(changed))
    return text


def builds(hearth, image):
    return hearth.client().list_microvm_image_builds(imageIdentifier=hearth.arn(image), imageVersion="1.0")["items"]


def test_a_snapshot_of_another_vmm_is_refused_then_made_again_and_suspended_microvms_keep_theirs(hearth, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.13\n"
        "COPY server.py /\n"
        'CMD ["python3", "/server.py"]\n'
    )
    # Its boot's own number tells one snapshot's clones from another's.
    (tmp_path / "server.py").write_text(
        "import http.server, uuid\n"
        "born = uuid.uuid4().hex\n"
        "class Server(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('content-length', '32')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(born.encode())\n"
        "http.server.HTTPServer(('', 8080), Server).serve_forever()\n"
    )
    hearth.cli("image", "build", str(tmp_path), "--name", "rebuilt")
    client = hearth.client()
    kept, first = hearth.run("rebuilt"), hearth.run("rebuilt")
    born = kept.request()[2]
    assert first.request()[2] == born
    first.terminate()
    kept.suspend()
    suspend, = (hearth.data / "microvms" / kept.id).glob("suspended-*/suspend.json")
    snapshot = json.loads(suspend.read_text())["snapshot"]
    manifests = (hearth.data / "images").glob("*/*/manifest.json")
    manifest = next(path for path in manifests if json.loads(path.read_text())["id"] == snapshot)

    hearth.stop()
    whole = of_another_vmm(manifest)
    hearth.start()
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.run_microvm(imageIdentifier=hearth.arn("rebuilt"))
    error = caught.value.response["Error"]
    assert error["Code"] == "ConflictException"
    assert "is being made again for this node" in error["Message"] and 'version: "0.1"' in error["Message"]
    wait_for("its being made again", lambda: builds(hearth, "rebuilt")[0]["buildState"] == "IN_PROGRESS")
    build, = builds(hearth, "rebuilt")
    assert 'version: "0.1"' in build.get("stateReason", ""), build
    version = client.get_microvm_image_version(imageIdentifier=hearth.arn("rebuilt"), imageVersion="1.0")
    assert version["state"] == "SUCCESSFUL"

    # What was suspended on it waits for the old VMM: neither lost, nor run on what it does not fit.
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.resume_microvm(microvmIdentifier=kept.id)
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert 'version: "0.1"' in caught.value.response["Error"]["Message"]
    assert kept.state == "SUSPENDED"

    wait_for("the new snapshot", lambda: builds(hearth, "rebuilt")[0]["buildState"] == "SUCCESSFUL", 120)
    assert "stateReason" not in builds(hearth, "rebuilt")[0]
    again = hearth.run("rebuilt")
    assert again.request()[2] != born
    again.terminate()

    # The old VMM is back.
    hearth.stop()
    manifest.write_text(whole)
    hearth.start()
    kept.resume()
    assert kept.request()[2] == born
    kept.terminate()
    hearth.delete_image("rebuilt")
    assert not manifest.parent.parent.exists()
