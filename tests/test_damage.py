"""Altered or cut files of a snapshot or a suspend: refused by name, the MicroVM stays SUSPENDED, and whole again it resumes."""

import botocore.exceptions

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
    delta = (files / "delta").read_bytes()
    (files / "delta").write_bytes(delta[:-4096])
    refuse_to_resume(hearth, microvm, "the file is cut short")
    (files / "delta").write_bytes(delta)
    microvm.resume()
    assert microvm.python("kept[-100:]") == expected


def test_an_altered_memory_file_of_an_image_is_noticed_before_anything_runs_on_it(hearth, microvm):
    microvm.python("kept = 42")
    microvm.suspend()
    memory = microvm.manifest().with_name("memory")
    hearth.stop()
    alter(memory, 1 << 20)
    try:
        hearth.start()
        refuse_to_resume(hearth, microvm, "memory was altered since it was written")
    finally:
        alter(memory, 1 << 20)
    microvm.resume()
    assert microvm.python("kept") == "42"
