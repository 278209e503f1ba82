"""What an application may do with its kernel: what a container may, or everything."""

import pytest

from support import WAKES

HELPERS = """
import ctypes, errno, os, pathlib, resource, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, options=''):
    done = libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode())
    return errno.errorcode[ctypes.get_errno()] if done else 'mounted'
def named(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
def status(name):
    return next(line.split()[1] for line in open('/proc/self/status') if line.startswith(name))
def shell(script):
    done = subprocess.run(['sh', '-euc', script], capture_output=True, text=True, timeout=60)
    return done.stdout
"""

# A file system of one file, in the words of the kernel's protocol (linux/fuse.h).
FILE_SYSTEM = r"""
import os, struct
LOOKUP, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 3, 14, 15, 18, 25, 26
TEXT = b'out of user space'
def attributes(node):
    size, mode = (0, 0o40755) if node == 1 else (len(TEXT), 0o100444)
    return struct.pack('<6Q10I', node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
fuse = int(os.environ['FUSE'])
while True:
    request = os.read(fuse, 1 << 17)
    operation, unique, node = struct.unpack_from('<IQQ', request, 4)
    words, error = request[40:], 0
    if operation == INIT:
        answer = struct.pack('<IIIIHHII', 7, 31, 4096, 0, 1, 1, 65536, 1).ljust(64, b'\0')
    elif operation == LOOKUP and words == b'file\0':
        answer = struct.pack('<QQQQII', 2, 0, 0, 0, 0, 0) + attributes(2)
    elif operation == GETATTR:
        answer = struct.pack('<QII', 0, 0, 0) + attributes(node)
    elif operation == OPEN:
        answer = bytes(16)
    elif operation == READ:
        offset, size = struct.unpack_from('<QI', words, 8)
        answer = TEXT[offset:offset + size]
    elif operation in (FLUSH, RELEASE):
        answer = b''
    else:
        answer, error = b'', -2 if operation == LOOKUP else -38
    os.write(fuse, struct.pack('<IiQ', 16 + len(answer), error, unique) + answer)
"""

# What a container runtime does: a root of its own in namespaces of its own, bounded by a control group. The processes of the
# application go into a group beside it first, since a group with processes passes no controllers on.
CONTAINER = r"""
exec 2>&1
mkdir /nested && mount -t tmpfs nested /nested && cd /nested && mkdir upper work root
mount -t overlay nested -o lowerdir=/,upperdir=upper,workdir=work root
cd /sys/fs/cgroup && mkdir application nested
for pid in $(cat cgroup.procs); do echo $pid >application/cgroup.procs || true; done
echo +pids >cgroup.subtree_control && echo 5 >nested/pids.max
echo $$ >nested/cgroup.procs
unshare --pid --fork --mount --uts --ipc --net --cgroup --root=/nested/root --mount-proc sh -ec '
    hostname nested && echo inside >/written
    echo "process $$ of $(hostname) in $(cat /proc/self/cgroup)"
    grep -c : /proc/net/dev
    for round in 1 2 3 4 5 6; do sleep 60 & done' || true
cat nested/pids.events; ls /written || true; cat /nested/upper/written
"""


@pytest.fixture(scope="module")
def capable(hearth):
    hearth.cli("image", "build", str(hearth.root / "examples/code-interpreter"), "--name", "capable", "--all-capabilities")
    vm = hearth.run("capable", idlePolicy=WAKES)
    vm.python(HELPERS)
    yield vm
    vm.terminate()
    hearth.delete_image("capable")


def test_an_application_may_do_what_a_container_may_and_no_more(microvm):
    microvm.python(HELPERS)

    ask = microvm.python
    assert ask("[status(name) for name in ('CapEff', 'CapPrm', 'CapBnd')]") == str(["00000000a80425fb"] * 3)
    assert ask("mount('none', '/mnt', 'tmpfs')") == "'EPERM'"
    assert ask("named(socket.sethostname, 'other')") == "'EPERM'"
    assert ask("named(os.unshare, os.CLONE_NEWNET)") == "'EPERM'"
    assert ask("named(open, '/proc/sys/net/ipv4/ip_forward', 'w')") == "'EROFS'"
    assert ask("named(os.mkdir, '/sys/fs/cgroup/own')") == "'EROFS'"
    assert ask("named(open, '/dev/fuse')") == "'ENOENT'"
    assert ask("resource.getrlimit(resource.RLIMIT_NOFILE)[1]") == "1024"
    # A terminal needs none of it.
    assert ask("len(os.openpty())") == "2"


def test_with_every_capability_it_has_all_that_its_kernel_knows(capable):
    last = int(capable.python("open('/proc/sys/kernel/cap_last_cap').read()").strip("'").removesuffix(r"\n"))
    every = f"{(1 << last + 1) - 1:016x}"
    assert capable.python("[status(name) for name in ('CapEff', 'CapPrm', 'CapBnd')]") == str([every] * 3)
    assert capable.python("os.mkdir('/with'); mount('none', '/with', 'tmpfs')") == "'mounted'"
    assert capable.python("oct(os.stat('/dev/fuse').st_mode)") == "'0o20666'"


def test_with_every_capability_a_file_system_in_user_space_serves_files(capable):
    capable.python("os.mkdir('/served'); fuse = os.open('/dev/fuse', os.O_RDWR)")
    options = "f'fd={fuse},rootmode=40000,user_id=0,group_id=0'"
    assert capable.python(f"mount('served', '/served', 'fuse', {options})") == "'mounted'"
    # Not before: what reads the device of a file system that is not mounted yet is refused.
    capable.python(f"""
pathlib.Path('/root/served.py').write_text({FILE_SYSTEM!r})
server = subprocess.Popen([sys.executable, '/root/served.py'], pass_fds=[fuse], env=dict(os.environ, FUSE=str(fuse)))
""")
    assert capable.python("open('/served/file').read()") == "'out of user space'"
    assert capable.python("named(open, '/served/other')") == "'ENOENT'"
    # It is memory and processes of the MicroVM, as everything else.
    capable.suspend()
    assert capable.python("open('/served/file').read()") == "'out of user space'"
    assert capable.python("libc.umount(b'/served'), server.wait(60)") == "(0, 1)", "the kernel ends the connection"


def test_with_every_capability_a_container_runs_inside(capable):
    said = capable.python(f"print(shell({CONTAINER!r}))").strip()
    own, links, *rest, missing, written = said.splitlines()
    assert own == "process 1 of nested in 0::/", said
    assert links == "1", "its network is a loopback alone"
    assert "max 1" in rest, f"its control group bounds its processes: {said}"
    assert missing.endswith("'/written': No such file or directory") and written == "inside", said
    assert capable.python("socket.gethostname()") != "'nested'"
