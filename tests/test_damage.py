"""Altered or cut files of a snapshot or a suspend: refused by name, the MicroVM stays SUSPENDED, and whole again it resumes."""

import botocore.exceptions
import pytest

from support import wait_for


def alter(path, at):
    """Flips a bit; done twice, the file is what it was."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def refuse_to_resume(hearth, microvm, cause):
    log = hearth.data / "hearthd.log"
    before = log.stat().st_size
    try:
        hearth.client(attempts=1).resume_microvm(microvmIdentifier=microvm.id)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "InternalServerException"
    # On a slow machine the answer comes first, and the state tells.

    def told():
        with open(log) as text:
            text.seek(before)
            return cause in text.read()

    wait_for(cause, told)
    microvm.await_state("SUSPENDED")


def test_damaged_files_of_a_suspend_are_refused_by_name_and_nothing_is_lost(hearth, microvm):
    microvm.python("kept = __import__('os').urandom(1 << 20).hex()")
    expected = microvm.python("kept[-100:]")
    microvm.suspend()
    files, = (hearth.data / "microvms" / microvm.id).glob("suspended-*")
    for name, at, cause in (
        ("device-state", 1000, "device-state was altered"),
        ("delta", (files / "delta").stat().st_size - 1000, "the delta's data is not what was saved"),
        ("suspend.json", 0, "its manifest"),
    ):
        alter(files / name, at)
        refuse_to_resume(hearth, microvm, cause)
        alter(files / name, at)
    for name, cut, cause in (
        ("device-state", 1000, "device-state has"),
        ("delta", 4096, "the file is cut short"),
        ("suspend.json", 10, "its manifest"),
    ):
        whole = (files / name).read_bytes()
        (files / name).write_bytes(whole[:-cut])
        refuse_to_resume(hearth, microvm, cause)
        (files / name).write_bytes(whole)
    microvm.resume()
    assert microvm.python("kept[-100:]") == expected


@pytest.mark.parametrize("name, cause", [
    ("memory", "memory was altered since it was written"),
    ("device-state", "device-state was altered since it was written"),
    ("manifest.json", "its manifest: it was altered since it was written"),
])
def test_an_altered_file_of_an_image_is_noticed_before_anything_runs_on_it(hearth, microvm, name, cause):
    microvm.python("kept = 42")
    microvm.suspend()
    manifest = microvm.manifest()
    # Of the manifest a digit, so that it is one as before, of a guest with more memory.
    at = manifest.read_text().index('"memoryBytes": ') + 15 if name == "manifest.json" else 1000
    hearth.stop()
    alter(manifest.with_name(name), at)
    try:
        hearth.start()
        refuse_to_resume(hearth, microvm, cause)
    finally:
        alter(manifest.with_name(name), at)
    microvm.resume()
    assert microvm.python("kept") == "42"
