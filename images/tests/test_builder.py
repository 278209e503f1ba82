"""The builder's job scripts, run as they are in the builder's own file system, but on this host's kernel.

    HEARTH_IMAGES=OUT_DIR python3 -m unittest discover -s images/tests

Needs root and what `images/prepare OUT_DIR` made. Disks are files; the network is an empty namespace, so whatever
resolves does so from the container bases.
"""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest
import zlib
import zipfile

IMAGES = pathlib.Path(os.environ.get("HEARTH_IMAGES", "/var/lib/hearth/images"))
GIB = 1 << 30

# Runs a command with TREE as its root, in namespaces that end with it.
ENTER = """
tree=$1 work=$2; shift 2
mount --bind "$tree" "$tree"; cd "$tree"
mount -t proc proc proc
mount --rbind /dev dev
mount --bind "$work" mnt
exec chroot . "$@"
"""


def make_zip(files, mode=0o644):
    """A zip of `{name: text}`; a name may be anything."""
    path = tempfile.mktemp(suffix=".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100000 | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text)
    data = pathlib.Path(path).read_bytes()
    os.unlink(path)
    return data


class Outcome:
    """How a job ended and what it left."""

    def __init__(self, code, log, cause, result):
        self.code, self.log, self.cause, self.result = code, log, cause, result


class Builder:
    """The builder's file system with a set of disks."""

    def __init__(self, bases=True):
        self.work = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="hearth-builder-test-"))
        self.tree = self.work / "tree"
        self.disks = self.work / "disks"
        self.disks.mkdir()
        subprocess.run(
            ["fsck.erofs", f"--extract={self.tree}", "--preserve", IMAGES / "builder.erofs"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.disk("cache.img", 8 * GIB)
        self.disk("image.img", 4 * GIB)
        if bases:
            subprocess.run(["cp", "--sparse=always", IMAGES / "bases.img", self.disks / "bases.img"], check=True)
        else:
            self.disk("bases.img", 8 * GIB)

    def disk(self, name, size):
        with open(self.disks / name, "wb") as file:
            file.truncate(size)

    def remove(self):
        shutil.rmtree(self.work)

    def run(self, archive, argv, **environment):
        """Runs a job on an archive, which is put on a padded disk."""
        disk = self.disks / "archive.img"
        disk.write_bytes(archive)
        os.truncate(disk, len(archive) + 4096)
        environment = {
            "CONTEXT_DEVICE": "/mnt/archive.img", "CONTEXT_BYTES": len(archive),
            "ARCHIVE_DEVICE": "/mnt/archive.img", "ARCHIVE_BYTES": len(archive),
            "IMAGE_DEVICE": "/mnt/image.img", "CACHE_DEVICE": "/mnt/cache.img", "BASES_DEVICE": "/mnt/bases.img",
            "LIMIT_BYTES": 2 * GIB,
        } | environment
        done = subprocess.run(
            ["unshare", "--mount", "--net", "bash", "-ec", ENTER, "bash", self.tree, self.disks,
             "env", "-i", *(f"{key}={value}" for key, value in environment.items()), *argv],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        )
        result = self.tree / "run/hearth/result.json"
        lines = done.stderr.strip().splitlines()
        return Outcome(
            done.returncode, done.stdout + done.stderr, lines[-1] if lines else "",
            json.loads(result.read_text()) if result.exists() else None,
        )

    def build(self, files, **environment):
        archive = files if isinstance(files, bytes) else make_zip(files)
        return self.run(archive, ["/usr/lib/hearth/build"], **environment)

    def root(self):
        """The files of the root disk that the last build wrote."""
        root = self.work / "root"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(
            ["fsck.erofs", f"--extract={root}", "--preserve", self.disks / "image.img"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        return root


class BuilderCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.builder = Builder()
        cls.addClassCleanup(cls.builder.remove)

    def built(self, files, **environment):
        outcome = self.builder.build(files, **environment)
        self.assertEqual(outcome.code, 0, outcome.log)
        return outcome

    def refused(self, code, files, **environment):
        outcome = self.builder.build(files, **environment)
        self.assertEqual(outcome.code, code, outcome.log)
        self.assertIsNone(outcome.result)
        return outcome


class Dockerfiles(BuilderCase):
    def test_configuration_and_files_of_the_image_arrive(self):
        outcome = self.built({
            "Dockerfile": 'FROM python:3.13\nWORKDIR /app\nCOPY app.py .\nENV GREETING="hello world"\nUSER nobody\n'
                          'STOPSIGNAL SIGINT\nENTRYPOINT ["python3", "-u"]\nCMD ["app.py"]\n',
            "app.py": "print('hi')\n",
        })
        config = outcome.result["config"]
        self.assertEqual(config["Entrypoint"], ["python3", "-u"])
        self.assertEqual(config["Cmd"], ["app.py"])
        self.assertEqual(config["WorkingDir"], "/app")
        self.assertEqual(config["User"], "nobody")
        self.assertEqual(config["StopSignal"], "SIGINT")
        self.assertIn("GREETING=hello world", config["Env"])
        root = self.builder.root()
        self.assertEqual((root / "app/app.py").read_text(), "print('hi')\n")
        self.assertTrue((root / "usr/bin/python3").exists())
        self.assertLess(outcome.result["imageBytes"], 1 * GIB)

    def test_the_second_build_takes_its_layers_from_the_cache(self):
        files = {"Dockerfile": "FROM debian:13\nRUN date +%N > /moment\nCMD [\"true\"]\n"}
        self.built(files)
        first = (self.builder.root() / "moment").read_text()
        self.assertEqual(self.built(files).result["layersCached"], 2)
        self.assertEqual((self.builder.root() / "moment").read_text(), first)

    def test_stages_arguments_owners_and_both_forms_of_run(self):
        self.built({
            "Dockerfile": 'FROM debian:13 AS maker\nARG WORD=one\nRUN echo "$WORD" > /word\n'
                          'RUN ["/bin/sh", "-c", "echo exec > /exec"]\n'
                          "FROM debian:13\nCOPY --from=maker --chown=12:34 /word /exec /from/\n",
        })
        word = self.builder.root() / "from/word"
        self.assertEqual(word.read_text(), "one\n")
        self.assertEqual((word.stat().st_uid, word.stat().st_gid), (12, 34))
        self.assertEqual((word.parent / "exec").read_text(), "exec\n")

    def test_here_documents(self):
        self.built({
            "Dockerfile": "FROM debian:13\nRUN <<END\necho first > /here\necho second >> /here\nEND\n"
                          "COPY <<END /written\ncontent\nEND\n",
        })
        root = self.builder.root()
        self.assertEqual((root / "here").read_text(), "first\nsecond\n")
        self.assertEqual((root / "written").read_text(), "content\n")

    def test_cache_mounts_persist_between_builds_and_stay_out_of_the_image(self):
        step = "FROM debian:13\nRUN --mount=type=cache,target=/kept echo {0} >> /kept/log && cp /kept/log /copy-{0}\n"
        self.built({"Dockerfile": step.format(1)})
        self.built({"Dockerfile": step.format(2)})
        root = self.builder.root()
        self.assertEqual((root / "copy-2").read_text(), "1\n2\n")
        self.assertFalse((root / "kept/log").exists())

    def test_dockerignore_keeps_files_out(self):
        self.built({
            "Dockerfile": "FROM debian:13\nCOPY . /all/\n", ".dockerignore": "*.secret\n!kept.secret\n",
            "a.secret": "a", "kept.secret": "b", "plain": "c",
        })
        self.assertEqual({path.name for path in (self.builder.root() / "all").iterdir()} & {"a.secret", "kept.secret", "plain"},
                         {"kept.secret", "plain"})

    def test_add_unpacks_an_archive(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "inner").write_text("unpacked")
            archive = subprocess.run(["tar", "-czC", directory, "inner"], check=True, capture_output=True).stdout
        self.built({"Dockerfile": "FROM debian:13\nADD a.tar.gz /opt/\n", "a.tar.gz": archive})
        self.assertEqual((self.builder.root() / "opt/inner").read_text(), "unpacked")

    def test_files_removed_by_a_later_step_are_gone(self):
        self.built({"Dockerfile": "FROM debian:13\nRUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a && rm -r /usr/share/perl5\n"})
        root = self.builder.root()
        self.assertEqual([path.name for path in (root / "d").iterdir()], ["b"])
        self.assertFalse((root / "usr/share/perl5").exists())

    def test_a_base_alone_and_an_empty_image_are_images(self):
        self.built({"Dockerfile": "FROM debian:13\n"})
        self.assertTrue((self.builder.root() / "bin/sh").exists())
        outcome = self.built({"Dockerfile": 'FROM scratch\nCMD ["/nothing"]\n'})
        self.assertEqual(outcome.result["config"]["Cmd"], ["/nothing"])

    def test_steps_see_no_disks_and_leave_no_process(self):
        outcome = self.built({
            "Dockerfile": "FROM debian:13\nRUN sleep 3600 & ls /dev > /devices\nRUN test -w /dev/null && test -r /dev/urandom\n"})
        devices = (self.builder.root() / "devices").read_text().split()
        self.assertIn("null", devices)
        self.assertFalse([name for name in devices if name.startswith(("vd", "sd", "loop", "mem"))], outcome.log)

    def test_steps_trust_the_hosts_certificates_without_a_trace_in_the_image(self):
        bundle = self.builder.tree / "etc/ssl/certs/ca-certificates.crt"
        bundle.write_text(bundle.read_text() + "# extra\n")
        files = {"Dockerfile": 'FROM debian:13\nRUN tail -n 1 "${SSL_CERT_FILE:-/dev/null}" > /seen && env > /environment\n'}
        outcome = self.built(files, TRUST_HOST_CA=1)
        root = self.builder.root()
        self.assertEqual((root / "seen").read_text(), "# extra\n")
        self.assertNotIn("/dev/hearth", " ".join(outcome.result["config"]["Env"]))
        self.assertEqual(list((root / "dev").iterdir()), [])


class Refusals(BuilderCase):
    def test_what_is_not_a_zip(self):
        self.assertIn("not a zip", self.refused(10, b"\x7fELF" + bytes(5000)).cause)

    def test_an_empty_context(self):
        self.refused(10, b"")

    def test_a_zip_cut_short(self):
        self.refused(10, make_zip({"Dockerfile": "FROM debian:13\n" + "# x\n" * 1000})[:-40])

    def test_paths_that_lead_out(self):
        for name in ("../escape", "a/../../escape", "/absolute", ".."):
            with self.subTest(name):
                self.refused(10, {"Dockerfile": "FROM debian:13\n", name: "x"})

    def test_a_link_is_no_way_out(self):
        archive = tempfile.mktemp()
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr("Dockerfile", "FROM debian:13\n")
            link = zipfile.ZipInfo("etc")
            link.external_attr = 0o120777 << 16
            writer.writestr(link, "/etc")
            writer.writestr("etc/escaped", "x")
        self.refused(10, pathlib.Path(archive).read_bytes())
        os.unlink(archive)
        self.assertFalse((self.builder.tree / "etc/escaped").exists())

    def test_a_device_node(self):
        archive = make_zip({"Dockerfile": "FROM debian:13\n", "node": ""})
        with_node = archive.replace(struct.pack("<I", 0o100644 << 16), struct.pack("<I", 0o060644 << 16))
        self.refused(10, with_node)

    def test_no_dockerfile_or_one_elsewhere(self):
        self.refused(11, {"app.py": ""})
        self.refused(11, {"sub/Dockerfile": "FROM debian:13\n"})
        self.refused(11, make_zip({}))

    def test_a_zip_larger_than_the_disk(self):
        self.refused(13, {"Dockerfile": "FROM debian:13\n", "zeros": bytes(64 << 20)}, LIMIT_BYTES=32 << 20)

    def test_a_zip_that_understates_its_sizes(self):
        archive = make_zip({"Dockerfile": "FROM debian:13\n", "zeros": bytes(64 << 20)})
        lying = archive.replace(struct.pack("<I", 64 << 20), struct.pack("<I", 1000))
        self.assertNotEqual(lying, archive)
        self.refused(10, lying)

    def test_a_zip_with_a_wrong_checksum(self):
        archive = make_zip({"Dockerfile": "FROM debian:13\n", "data": "content"})
        self.refused(10, archive.replace(struct.pack("<I", zlib.crc32(b"content")), b"abcd"))

    def test_a_step_that_fails(self):
        outcome = self.refused(12, {"Dockerfile": "FROM debian:13\nRUN echo to-the-log; exit 7\n"})
        self.assertIn("to-the-log", outcome.log)
        self.assertIn("7", outcome.cause)

    def test_a_dockerfile_that_cannot_be_read(self):
        self.refused(12, {"Dockerfile": "NOT A DOCKERFILE\n"})

    def test_a_base_that_does_not_resolve(self):
        for name in ("no-such-base:1", "registry.invalid/a/b:1"):
            with self.subTest(name):
                self.assertIn(name, self.refused(12, {"Dockerfile": f"FROM {name}\n"}).cause)

    def test_an_image_larger_than_its_limit(self):
        self.refused(13, {"Dockerfile": "FROM debian:13\n"}, LIMIT_BYTES=20 << 20)

    def test_a_build_that_fills_the_disk(self):
        self.addCleanup(self.builder.disk, "cache.img", 8 * GIB)
        self.builder.disk("cache.img", 64 << 20)
        self.refused(13, {"Dockerfile": "FROM debian:13\nRUN head -c 200M /dev/urandom > /big\n"})


class Cache(BuilderCase):
    FILES = {"Dockerfile": "FROM debian:13\nRUN echo layer > /layer\n"}

    def setUp(self):
        self.builder.disk("cache.img", 2 * GIB)
        self.built(self.FILES)

    def layers_cached(self):
        return self.built(self.FILES).result["layersCached"]

    def test_a_clean_cache_is_used(self):
        self.assertEqual(self.layers_cached(), 1)

    def test_a_failed_build_leaves_a_clean_cache(self):
        self.refused(12, {"Dockerfile": "FROM debian:13\nRUN false\n"})
        self.assertEqual(self.layers_cached(), 1)

    def test_a_cache_that_was_not_unmounted_in_order_is_made_anew(self):
        with open(self.builder.disks / "cache.img", "r+b") as disk:
            disk.seek(1024 + 58)
            disk.write(struct.pack("<H", 0))
        self.assertEqual(self.layers_cached(), 0)

    def test_a_damaged_cache_is_made_anew(self):
        with open(self.builder.disks / "cache.img", "r+b") as disk:
            disk.write(os.urandom(8 << 20))
        self.assertEqual(self.layers_cached(), 0)

    def test_a_full_cache_makes_room_for_the_build(self):
        self.builder.disk("cache.img", 300 << 20)
        for word in ("a", "b", "c"):
            self.built({"Dockerfile": f"FROM debian:13\nRUN head -c 120M /dev/urandom > /{word}\n"})


class Bases(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.builder = Builder(bases=False)
        cls.addClassCleanup(cls.builder.remove)

    def add(self, archive, *arguments):
        return self.builder.run(archive, ["/usr/lib/hearth/add-base", *arguments])

    def rootfs(self, text):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "mark").write_text(text)
            return subprocess.run(["tar", "-cC", directory, "."], check=True, capture_output=True).stdout

    def test_a_root_file_system_is_found_under_each_of_its_names(self):
        outcome = self.add(self.rootfs("mine"), "--kind", "rootfs", "--as", "mine:1", "--as", "team/mine:2", "--as",
                           "registry.example/mine:3", "--env", 'A=a "b" $c', "--cmd", "run", "--cmd", "--flag")
        self.assertEqual(outcome.code, 0, outcome.log)
        for name in ("mine:1", "team/mine:2", "registry.example/mine:3"):
            with self.subTest(name):
                built = self.builder.build({"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
                self.assertEqual(built.code, 0, built.log)
                self.assertIn('A=a "b" $c', built.result["config"]["Env"])
                self.assertEqual(built.result["config"]["Cmd"], ["run", "--flag"])
                self.assertEqual((self.builder.root() / "mark").read_text(), "mine")

    def test_a_name_moves_to_the_newer_image(self):
        for text in ("old", "new"):
            outcome = self.add(self.rootfs(text), "--kind", "rootfs", "--as", "moving:1", "--cmd", "x")
            self.assertEqual(outcome.code, 0, outcome.log)
        self.assertEqual(self.builder.build({"Dockerfile": "FROM moving:1\n"}).code, 0)
        self.assertEqual((self.builder.root() / "mark").read_text(), "new")

    def test_archives_of_other_tools_plain_and_compressed(self):
        work = self.builder.tree / "tmp/export"
        for kind in ("docker-archive", "oci-archive"):
            with self.subTest(kind):
                shutil.rmtree(work, ignore_errors=True)
                (work / "context").mkdir(parents=True)
                (work / "context/Dockerfile").write_text('FROM scratch\nCOPY mark /\nENV FROM=archive\nCMD ["go"]\n')
                (work / "context/mark").write_text(kind)
                script = ("buildah --root /tmp/export/store --runroot /tmp/export/run build -q --isolation chroot "
                          f"-t x:1 /tmp/export/context && buildah --root /tmp/export/store --runroot /tmp/export/run push x:1 {kind}:/tmp/export/archive.tar:x:1")
                made = self.builder.run(b"", ["env", "PATH=/usr/bin:/usr/sbin", "HOME=/root", "sh", "-ec", "mkdir -p /bases/storage; " + script])
                self.assertEqual(made.code, 0, made.log)
                archive = (work / "archive.tar").read_bytes()
                compressed = subprocess.run(["gzip", "-1"], input=archive, check=True, capture_output=True).stdout
                for name, data in (("plain", archive), ("gzip", compressed)):
                    outcome = self.add(data, "--kind", kind, "--as", f"{kind}-{name}:1")
                    self.assertEqual(outcome.code, 0, outcome.log)
                    built = self.builder.build({"Dockerfile": f"FROM {kind}-{name}:1\n"})
                    self.assertEqual(built.code, 0, built.log)
                    self.assertEqual(built.result["config"]["Cmd"], ["go"])
                    self.assertEqual((self.builder.root() / "mark").read_text(), kind)

    def test_what_is_no_archive_is_refused(self):
        for kind in ("rootfs", "docker-archive", "oci-archive"):
            with self.subTest(kind):
                outcome = self.add(b"no archive at all" * 1000, "--kind", kind, "--as", "broken:1")
                self.assertEqual(outcome.code, 10, outcome.log)


if __name__ == "__main__":
    unittest.main()
