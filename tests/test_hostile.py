"""A guest with every capability attacks whatever it can address. Each attempt is a case with the refusal it meets; after
each one the guest beside it and the daemon answer as before."""

import concurrent.futures
import contextlib
import http.client
import socket
import time

import pytest

import hostile
import private
from hostile import EVIL_MAC, LAST, MARK, LyingNames, Sizes, Watch, do, during
from support import WAKES, wait_for
from test_connectors import await_state, create, remove

GATEWAY, METADATA = "100.64.0.1", "169.254.169.254"
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 8000))
print("listening")
while True:
    server.accept()[0].sendall(b"hello")
"""
# Ports that somebody is to find open: what hosts, clouds and this service itself listen on.
PORTS = [1, 22, 53, 80, 111, 443, 2375, 2376, 3306, 5432, 6379, 6443, 8000, 8080, 9000, 9100, 10250]
SETTINGS = """
[network.subnets.subnet-wide]
ranges = ["0.0.0.0/0"]

[network.security_groups.sg-lies]
allow = [{ to = "*.rebind.example", protocol = "tcp", ports = "1-65535" }]

# A flood is over the rate where everything takes ten times longer, too.
[logs]
bytes_per_second = 131072
burst_bytes = 1048576
"""


@pytest.fixture(scope="module")
def world(hearth):
    """The daemon beside a private network, with a name server that answers whatever address it is asked to."""
    names, path = LyingNames(), hearth.data / "hearthd.toml"
    before = path.read_text()
    path.write_text(before.replace("[network]\n", f'[network]\nresolvers = ["127.0.0.1:{names.port}"]\n') + SETTINGS)
    try:
        with private.network():
            private.restart(hearth)
            yield hearth
    finally:
        path.write_text(before)
        private.restart(hearth)
        names.close()


@pytest.fixture(scope="module")
def sizes_while_built():
    """Filled by the build of the image, whose application floods its console before it is ready."""
    return []


@pytest.fixture(scope="module")
def hostile_image(world, tmp_path_factory, sizes_while_built):
    with Sizes(world) as sizes:
        name = hostile.build(world, "hostile", tmp_path_factory.mktemp("image"))
    sizes_while_built.append(sizes.most)
    yield name
    world.delete_image(name)


@pytest.fixture(scope="module")
def neighbour(world, hostile_image):
    """Another tenant's: with a role, and something to lose."""
    vm = world.run(hostile_image, idlePolicy=WAKES, executionRoleArn=world.role())
    do(vm, "secret = 'kept'")
    do(vm, "open('/root/secret', 'w').write('kept')")
    yield vm
    vm.terminate()


@pytest.fixture(scope="module")
def attacker(world, hostile_image, neighbour):
    """For attacks that it survives."""
    vm = world.run(hostile_image, idlePolicy=WAKES)
    yield vm
    vm.terminate()


@pytest.fixture
def victim(world, hostile_image):
    """A MicroVM of the attack's own, which need not survive it."""
    vm = world.run(hostile_image, idlePolicy=WAKES)
    yield vm
    vm.terminate()


def assert_unharmed(hearth, neighbour, pid):
    assert neighbour.request("GET", "/")[0] == 200
    assert do(neighbour, "[secret, open('/root/secret').read()]") == ["kept", "kept"]
    assert hearth.pid == pid and neighbour.state == "RUNNING"


@pytest.fixture(autouse=True)
def unharmed(world, neighbour):
    """Every attack's first refusal."""
    pid = world.pid
    yield
    assert_unharmed(world, neighbour, pid)


@pytest.fixture(scope="module")
def echo(outside):
    """A server on the Internet, which every guest may reach: what an attack finds is compared with it."""
    with outside.serving(ECHO, outside.address):
        yield [outside.address, 8000]


# Addresses

def of_the_host(hearth):
    own = [int(hearth.configuration[name].split(":")[1]) for name in ("listen", "endpoint_listen", "admin_listen")]
    return [(address, port) for address in hostile.addresses() for port in [*PORTS, *own]]


def of_other_guests(hearth):
    """Both ends of every link there may be between the host and a guest's namespace."""
    first = hearth.configuration["network"]["range"].split("/")[0].rsplit(".", 1)[0]
    return [(f"{first}.{last}", port) for last in range(32) for port in PORTS]


PLACES = {
    "host-addresses": of_the_host,
    "other-guests": of_other_guests,
    "own-link-neighbours": lambda _: [(f"100.64.0.{last}", port) for last in (0, 3) for port in PORTS],
    "shared-range": lambda _: [(f"100.64.{net}.{last}", port) for net in (1, 64) for last in (1, 2) for port in PORTS],
    "private-network-of-the-host": lambda _: [(a, port) for a in (private.GATEWAY, private.SERVER, private.OTHER) for port in PORTS],
    "private-10": lambda _: [(f"10.{net}.0.1", port) for net in (0, 1, 96, 255) for port in PORTS],
    "private-172": lambda _: [(f"172.{net}.0.1", port) for net in (16, 17, 31) for port in PORTS],
    "private-192": lambda _: [(f"192.168.{net}.1", port) for net in (0, 1, 122) for port in PORTS],
    "loopback-range": lambda hearth: [("127.0.0.1", int(hearth.configuration["listen"].split(":")[1])), ("127.9.9.9", 9443)],
    "benchmark-and-protocol-ranges": lambda _: [(a, port) for a in ("198.18.0.1", "192.0.0.8", "192.0.0.170") for port in PORTS],
    "reserved-and-multicast": lambda _: [(a, 80) for a in ("0.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255")],
    "link-local-range": lambda _: [(f"169.254.{a}", port) for a in ("0.1", "169.123", "169.250", "169.255", "170.2", "255.254") for port in PORTS],
    "metadata-other-ports": lambda _: [(METADATA, port) for port in range(1, 1024) if port != 80],
    "apis-without-a-role": lambda _: [("169.254.169.253", port) for port in range(1, 1024)],
}


@pytest.mark.parametrize("place", PLACES)
def test_addresses_that_are_closed(world, attacker, echo, place):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        targets = PLACES[place](world) + [(address, listener.getsockname()[1]) for address in hostile.addresses()]
        # What the guest has itself, under the same addresses as everybody: its application.
        targets = [target for target in targets if target[0] != "127.0.0.1" or target[1] != 8080]
        assert do(attacker, f"scan({[*targets, tuple(echo)]!r})") == [echo]


def test_of_all_ports_of_its_gateway_the_resolvers_alone_is_open(attacker):
    assert do(attacker, f"scan_by_syn('{GATEWAY}', range(1, 65536))") == [53]


# Metadata

METADATA_ATTEMPTS = {
    "version-1": ("ask('/latest/meta-data/iam/security-credentials/execution_role')", 401),
    "forged-token": ("ask('/latest/meta-data/', X_aws_ec2_metadata_token='forged')", 401),
    "token-through-a-proxy": (
        "ask('/latest/api/token', 'PUT', X_aws_ec2_metadata_token_ttl_seconds='60', X_Forwarded_For='1.2.3.4')", 403),
    "token-by-get": ("ask('/latest/api/token', X_aws_ec2_metadata_token_ttl_seconds='60')", 401),
    "credentials-without-a-role": (
        "ask('/latest/meta-data/iam/security-credentials/execution_role', X_aws_ec2_metadata_token=token())", 404),
    "out-of-the-tree": (
        "ask('/latest/meta-data/../../../etc/passwd', X_aws_ec2_metadata_token=token())", 404),
    "as-somebody-elses-host": (
        "ask('/latest/meta-data/iam/security-credentials/execution_role', X_aws_ec2_metadata_token=token(), Host='neighbour')", 404),
}


@pytest.mark.parametrize("attempt", METADATA_ATTEMPTS)
def test_metadata_that_is_refused(attacker, attempt):
    code, status = METADATA_ATTEMPTS[attempt]
    assert do(attacker, code)[0] == status


def test_metadata_tokens_of_another_guest_open_nothing(attacker, neighbour):
    theirs = do(neighbour, "token()")
    credentials = "ask('/latest/meta-data/iam/security-credentials/execution_role', X_aws_ec2_metadata_token=%r)" % theirs
    assert do(neighbour, credentials)[0] == 200
    assert do(attacker, credentials)[0] == 401


# Packets

@pytest.fixture(scope="module")
def sources(world, outside):
    own = world.configuration["network"]["range"].split("/")[0].rsplit(".", 1)[0]
    return {
        "another-guests-link": f"{own}.3", "the-hosts-link": f"{own}.2", "the-host": outside.host, "the-target": outside.address,
        "the-gateway": GATEWAY, "the-metadata-service": METADATA, "loopback": "127.0.0.1", "nobody": "0.0.0.0",
        "everybody": "255.255.255.255", "a-group": "224.0.0.1", "the-internet": "203.0.113.7", "a-private-range": private.SERVER,
    }


def strangers(frames):
    """Frames of the attack among those that arrived."""
    return [one.hex() for one in frames if MARK in one]


def last_of(outside):
    return f"send([syn('{outside.address}', {LAST})])"


@pytest.mark.parametrize("source", [
    "another-guests-link", "the-hosts-link", "the-host", "the-target", "the-gateway", "the-metadata-service", "loopback",
    "nobody", "everybody", "a-group", "the-internet", "a-private-range",
])
def test_spoofed_sources_leave_no_guest(attacker, neighbour, outside, sources, source):
    watch = Watch(outside)
    do(neighbour, "sniffer = Sniffer()")
    do(attacker, f"send(probe('{sources[source]}', '{outside.address}', 7))\n{last_of(outside)}")
    *others, last = watch.end()
    assert strangers(others) == []
    assert socket.inet_ntoa(last[26:30]) == outside.host, "what may leave has the host's address"
    assert do(neighbour, "[one.hex() for one in sniffer.stop() if MARK in one]") == []


PROTOCOLS = {
    "udp": "[frame(ip(GUEST, {to}, 17, udp(GUEST, {to}, 53)))]",
    "icmp": "[frame(ip(GUEST, {to}, 1, icmp(kind))) for kind in (0, 3, 5, 8, 13)]",
    "gre": "[frame(ip(GUEST, {to}, 47, bytes(4) + MARK))]",
    "ip-in-ip": "[frame(ip(GUEST, {to}, 4, ip('10.0.0.1', {to}, 17, udp('10.0.0.1', {to}, 7))))]",
    "sctp-and-others": "[frame(ip(GUEST, {to}, number, bytes(8) + MARK)) for number in (2, 33, 41, 50, 51, 89, 103, 132, 136, 255)]",
    "fragments-of-udp": "[frame(ip(GUEST, {to}, 17, part, fragment=at, number=9)) for part, at in"
                        " ((udp(GUEST, {to}, 53)[:8], 0x2000), (MARK, 1))]",
    "tcp-without-a-connection": "[frame(ip(GUEST, {to}, 6, tcp(GUEST, {to}, 7, flags=flags, data=MARK))) for flags in (0, 1, 4, 16, 18, 41, 63)]",
    "source-route": "[frame(ip(GUEST, GATEWAY, 6, tcp(GUEST, {to}, 7, data=MARK), options=b'\\x83\\x07\\x04' + socket.inet_aton({to}) + b'\\0'))]",
    "to-everybodys-mac": "[frame(ip(GUEST, {to}, 6, tcp(GUEST, {to}, 7, data=MARK)), target=EVERYBODY)]",
    "to-another-mac": "[frame(ip(GUEST, {to}, 6, tcp(GUEST, {to}, 7, data=MARK)), target=EVIL_MAC)]",
    "vlan-tagged": "[frame(b'\\0\\1\\x08\\0' + ip(GUEST, {to}, 17, udp(GUEST, {to}, 7)), kind=0x8100)]",
    "cut-short": "[frame(ip(GUEST, {to}, 6, MARK)[:length]) for length in (0, 1, 19, 20, 21, 30)]",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_packets_that_leave_no_guest(attacker, outside, protocol):
    watch = Watch(outside)
    do(attacker, f"send({PROTOCOLS[protocol].format(to=repr(outside.address))})\n{last_of(outside)}")
    assert strangers(watch.end()) == []


def test_a_spoofed_mac_address_is_seen_by_nobody(attacker, neighbour, outside):
    watch = Watch(outside)
    do(neighbour, "sniffer = Sniffer()")
    do(attacker, f"send([frame(syn('{outside.address}', {LAST})[14:], source=EVIL_MAC)])")
    assert [one for one in watch.end() if bytes.fromhex(EVIL_MAC.replace(":", "")) in one[:14]] == []
    arrived = do(neighbour, "[one.hex() for one in sniffer.stop()]")
    assert arrived and not [one for one in arrived if EVIL_MAC.replace(":", "") in one]


def test_connections_of_one_guest_do_not_fill_the_hosts_table(victim, outside):
    # Nobody has this address: the connections stay half open.
    silent = outside.address.rsplit(".", 1)[0] + "." + str(int(outside.address.rsplit(".", 1)[1]) + 1)
    do(victim, f"send(syns('{silent}', range(20000, 30000), range(10000, 20000)))")
    with open("/proc/net/nf_conntrack") as table:
        held = sum(f" dst={silent} " in line for line in table)
    assert 0 < held <= 4096, "of 10,000"


ADDRESSES_TO_CLAIM = {
    "gateway": [GATEWAY], "guest": ["100.64.0.2"], "metadata": [METADATA, "169.254.169.253"],
    "other-guests": [f"100.66.0.{last}" for last in range(8)], "internet": ["8.8.8.8", "198.51.100.1"],
}


@pytest.mark.parametrize("claimed", ADDRESSES_TO_CLAIM)
def test_arp_claims_are_believed_by_nobody(world, attacker, neighbour, claimed):
    do(neighbour, "sniffer = Sniffer()")
    frames = "[frame(arp(operation, EVIL_MAC, address, mac, target), 0x0806, EVIL_MAC, to)" \
             " for operation in (1, 2) for mac, to in ((bytes(6), EVERYBODY), (GATEWAY_MAC, GATEWAY_MAC))" \
             f" for address in {ADDRESSES_TO_CLAIM[claimed]!r} for target in (address, GATEWAY)]"
    do(attacker, f"send({frames})")
    assert do(neighbour, "[one.hex() for one in sniffer.stop() if EVIL_MAC in one]") == []
    assert [entry for entry in hostile.neighbours(world) if entry[2] == EVIL_MAC] == []
    assert [entry for entry in hostile.neighbours(world) if entry[1] == "100.64.0.2"], "guests are known"


def test_arp_floods_do_not_fill_the_hosts_table(world, attacker):
    frames = "[frame(arp(1, EVIL_MAC, socket.inet_ntoa(os.urandom(4)), bytes(6), GATEWAY), 0x0806, EVIL_MAC, EVERYBODY)"
    do(attacker, f"send({frames} for _ in range(3000)])")
    assert len(hostile.neighbours(world)) < 100


def test_arp_floods_have_few_answers(attacker):
    question = "frame(arp(1, GUEST_MAC, GUEST, bytes(6), GATEWAY), 0x0806, GUEST_MAC, EVERYBODY)"
    found = do(attacker, f"len([one for one in answers([{question}] * 1000) if one[12:14] == b'\\x08\\x06'])")
    assert 0 < found < 200


def test_dhcp_gives_and_takes_nothing(attacker, neighbour):
    do(neighbour, "sniffer = Sniffer()")
    # Client: nobody offers. Server: nobody hears.
    offers = do(attacker, "[one.hex() for one in answers([dhcp(1, 1), dhcp(1, 3)]) if one[23:24] == b'\\x11']")
    assert offers == []
    do(attacker, "send([dhcp(2, 2), dhcp(2, 5)])")
    assert do(neighbour, "[one.hex() for one in sniffer.stop() if MARK in one]") == []


SOLICITATIONS = {
    "router-solicitation": "v6(b'\\x85\\0\\0\\0' + bytes(4), 'ff02::2')",
    "router-advertisement": "v6(b'\\x86\\0\\0\\0\\x40\\x80\\x07\\x08' + bytes(8) + b'\\1\\1' + EVIL_MAC, 'ff02::1')",
    "neighbour-solicitation": "v6(b'\\x87\\0\\0\\0' + bytes(4) + socket.inet_pton(socket.AF_INET6, gateway_on_v6()), 'ff02::1:ff40:1')",
    "neighbour-advertisement": "v6(b'\\x88\\0\\0\\0\\x20\\0\\0\\0' + socket.inet_pton(socket.AF_INET6, gateway_on_v6()) + b'\\2\\1' + EVIL_MAC, 'ff02::1')",
    "echo-to-all-nodes": "v6(b'\\x80\\0\\0\\0' + bytes(4) + MARK, 'ff02::1')",
    "echo-to-the-gateway": "v6(b'\\x80\\0\\0\\0' + bytes(4) + MARK, gateway_on_v6())",
    "metadata-on-v6": "v6(b'\\x80\\0\\0\\0' + bytes(4) + MARK, 'fd00:ec2::254')",
    "internet-on-v6": "v6(b'\\x80\\0\\0\\0' + bytes(4) + MARK, '2001:4860:4860::8888')",
}


@pytest.mark.parametrize("solicitation", SOLICITATIONS)
def test_version_6_answers_nothing_and_passes_nothing(attacker, neighbour, solicitation):
    do(neighbour, "sniffer = Sniffer()")
    # The question about the gateway's MAC address shows that answers would be seen.
    question = "frame(arp(1, GUEST_MAC, GUEST, bytes(6), GATEWAY), 0x0806, GUEST_MAC, EVERYBODY)"
    kinds = do(attacker, f"[one[12:14].hex() for one in answers([{SOLICITATIONS[solicitation]}, {question}], 1.5)]")
    assert "0806" in kinds and "86dd" not in kinds
    assert do(neighbour, "[one.hex() for one in sniffer.stop(0.1) if one[12:14] == b'\\x86\\xdd']") == []


# Names

def lie(address):
    return address.replace(".", "-") + ".rebind.example"


def lies(hearth, outside):
    own = hearth.configuration["network"]["range"].split("/")[0].rsplit(".", 1)[0]
    control = int(hearth.configuration["listen"].split(":")[1])
    return [(outside.host, control), ("127.0.0.1", control), (private.SERVER, 80), (f"{own}.0", control), (f"{own}.2", 8080),
            (METADATA, 81), ("10.0.0.1", 80), ("192.168.0.1", 80)]


def test_names_that_lead_inside_lead_nowhere(world, attacker, outside, echo):
    for address, port in lies(world, outside):
        assert do(attacker, f"resolve('{lie(address)}')") == address
    targets = [(lie(address), port) for address, port in lies(world, outside) if address != "127.0.0.1"]
    found = do(attacker, f"scan([(resolve(name), port) for name, port in {[*targets, (lie(echo[0]), 8000)]!r}])")
    assert found == [echo]


def test_names_that_a_connector_opens_lead_nowhere_inside(world, hostile_image, outside, echo):
    core = world.client("lambda-core")
    made = create(world, core, ["subnet-wide"], ["sg-lies"])
    await_state(core, made["Id"], "ACTIVE")
    vm = world.run(hostile_image, egressNetworkConnectors=[made["Arn"]], idlePolicy=WAKES)
    try:
        assert do(vm, f"scan([{tuple(echo)!r}])") == []
        targets = [(lie(address), port) for address, port in lies(world, outside) if address != "127.0.0.1"]
        found = do(vm, f"scan([(resolve(name), port) for name, port in {[*targets, (lie(echo[0]), 8000)]!r}])")
        assert found == [echo]
    finally:
        vm.terminate()
        remove(core, made["Id"])


QUERIES = {
    "noise": "os.urandom(random.randrange(1, 1400))",
    "bare-headers": "os.urandom(2) + b'\\1\\0' + os.urandom(8)",
    "endless-names": "os.urandom(2) + b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b'\\xc0\\x0c\\0\\1\\0\\1'",
    "many-questions": "os.urandom(2) + b'\\1\\0\\xff\\xff\\0\\0\\0\\0\\0\\0' + b'\\1a\\0\\0\\1\\0\\1' * 100",
    "floods": "os.urandom(2) + b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x075-5-5-5\\6rebind\\7example\\0\\0\\1\\0\\1'",
}


@pytest.mark.parametrize("query", QUERIES)
def test_the_resolver_takes_whatever_it_is_sent(attacker, neighbour, query):
    do(attacker, "import random\nsink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    do(attacker, f"for _ in range(1000): sink.sendto({QUERIES[query]}, (GATEWAY, 53))")
    name = lie("198.51.100.77")
    assert do(neighbour, f"resolve('{name}')") == "198.51.100.77"
    wait_for("the attacker's own names", lambda: do(attacker, f"resolve('{name}')") == "198.51.100.77")


def test_connections_that_say_nothing_are_limited(attacker, neighbour):
    # The metadata service looks at 100 at once, then at 25 a second.
    held = do(attacker, "[hold(METADATA, 80, 200, seconds=6), hold(GATEWAY, 53, 200)]")
    assert held[0] <= 16 and held[1] <= 64
    assert do(neighbour, "ask('/latest/meta-data/', X_aws_ec2_metadata_token=token())")[0] == 200


# The agent

def test_the_agent_hears_nobody_in_its_own_guest(attacker):
    assert do(attacker, "greeting(GUEST, 1, 2)") == "silent"
    assert do(attacker, "greeting('127.0.0.1', 1)") == "refused"
    assert do(attacker, "forge_host(8080)") is True, "the application answers a forged host"
    assert do(attacker, "forge_host(1)") is False


def test_the_agent_hears_nobody_who_takes_the_hosts_address(attacker):
    assert do(attacker, "be_gateway()") == "TimeoutError"


# How the host's requests and a suspend end with an agent that is none: the status of a request, and the states that a
# suspend ends in. Those that say nothing are given up after a while, which is not waited for twice.
MANNERS = {
    "closes": ({502}, {"TERMINATED"}),
    "cut": ({502}, {"TERMINATED"}),
    "garbage": ({502}, {"TERMINATED"}),
    "announces-4-gib": ({502}, {"TERMINATED"}),
    "wrong-answers": ({502}, {"TERMINATED"}),
    "trickles-a-frame": ({502, 504}, None),
    "silent": ({502, 504}, None),
    "endless-answers": ({502}, {"SUSPENDED"}),
}


def refusal(vm):
    """The status of a request that fails; the application's last answer may get lost with its link."""
    try:
        status = vm.request("GET", "/", timeout=30)[0]
    except (OSError, http.client.HTTPException):
        return None
    return status if status != 200 else None


def suspended(hearth, vm):
    """The state that a suspend ends in. It is asked for once more when the first one found nobody: it came before the impostor listened."""
    client = hearth.client(attempts=1)
    if vm.state == "RUNNING":
        with contextlib.suppress(client.exceptions.InternalServerException):
            client.suspend_microvm(microvmIdentifier=vm.id)
    state = vm.state
    return state in ("SUSPENDED", "TERMINATED") and state


def impersonated(hearth, image, manner):
    """What came of a MicroVM whose guest speaks for its agent: status of requests, states, and how it ended."""
    vm = hearth.run(image, idlePolicy=WAKES)
    try:
        do(vm, f"detach(impersonate, '{manner}')")
        status = wait_for("the impostor", lambda: refusal(vm), 120, 0.5)
        states = []
        if MANNERS[manner][1]:
            states.append(wait_for("the suspend's end", lambda: suspended(hearth, vm), 90))
            if vm.state == "SUSPENDED":
                # The impostor says that all is well, then sends output without an end.
                hearth.client().resume_microvm(microvmIdentifier=vm.id)
                vm.await_state("RUNNING")
                time.sleep(3)
        return status, states
    finally:
        vm.terminate()


@pytest.fixture(scope="module")
def impersonations(world, hostile_image, neighbour):
    """All at once: most of their time is waiting."""
    pid = world.pid
    before = hostile.memory_of(pid)
    with concurrent.futures.ThreadPoolExecutor(len(MANNERS)) as pool:
        ends = {manner: pool.submit(impersonated, world, hostile_image, manner) for manner in MANNERS}
        during(3, lambda: assert_unharmed(world, neighbour, pid))
    assert hostile.memory_of(pid) - before < 200 << 20
    return ends


@pytest.mark.parametrize("manner", MANNERS)
def test_an_agent_that_is_none_harms_its_own_microvm_alone(impersonations, manner):
    statuses, states = MANNERS[manner]
    status, ended = impersonations[manner].result()
    assert status in statuses
    assert states is None or set(ended) <= states


# Devices

def scratch_disk(hearth, vm):
    return hearth.data / "microvms" / vm.id / "scratch.img"


def test_the_images_disk_cannot_be_written(world, attacker):
    before = hostile.files(world)
    assert do(attacker, "write_disk('vda', 0)") in (1, 5, 30), "EPERM, EIO or EROFS"
    # Past the guest's kernel, which would not send it: the device itself says no (VIRTIO_BLK_S_IOERR).
    assert do(attacker, "load(mode='write', type=DISK, index=0, sector=0)") in (1, 2)
    assert hostile.files(world) == before


def test_nothing_is_written_past_a_disks_end(world, attacker):
    disk = scratch_disk(world, attacker)
    before = disk.stat().st_size
    # QEMU answers with an error (VIRTIO_BLK_S_IOERR or _UNSUPP), Firecracker hands it back without a word.
    refusals = {"qemu": (1, 2), "firecracker": (255,)}[world.driver]
    assert do(attacker, "write_disk('vdb', disk_bytes('vdb'))") == 28, "ENOSPC"
    for sector in ("disk_bytes('vdb') // 512", "2**55", "2**63", "2**64 - 1"):
        assert do(attacker, f"load(mode='write', type=DISK, index=1, sector={sector})") in refusals, sector
    assert disk.stat().st_size == before


QUEUES = {
    "descriptors-of-noise": "abuse_queues('garbage', 20)",
    "chains-without-an-end": "abuse_queues('loop', 5)",
    "addresses-beyond-memory": "abuse_queues('beyond', 5)",
    "lengths-of-4-gib": "abuse_queues('huge', 5)",
    "empty-descriptors": "abuse_queues('empty', 5)",
    "indirect-tables-of-themselves": "abuse_queues('indirect', 5)",
    "indices-out-of-order": "abuse_queues('index', 20)",
    "configuration-and-status-of-noise": "abuse_queues('registers', 20)",
    "resets-that-flood-the-vmms-log": "load(mode='flood', type=ENTROPY, rounds=20000)",
    "noise-on-all-io-ports": "load(mode='ports', rounds=2)",
    "noise-in-pci-configuration-and-memory": "write_pci()",
}


def abused(hearth, image, attack):
    """The state of a MicroVM whose kernel abuses its devices, and what the attack says of itself, if it can still be asked."""
    vm = hearth.run(image, idlePolicy=WAKES)
    try:
        do(vm, f"detach(lambda: told(lambda: {attack}))")
        time.sleep(4)
        said = None
        with contextlib.suppress(OSError, AssertionError):
            said = do(vm, "open('/dev/shm/attack').read()", timeout=20)
        if vm.state == "TERMINATING":
            vm.await_state("TERMINATED")
        return vm.state, said
    finally:
        vm.terminate()


@pytest.fixture(scope="module")
def abuses(world, hostile_image, neighbour):
    """A few at a time; what they wrote on the host is watched."""
    before, pid = hostile.files(world), world.pid
    with Sizes(world) as sizes, concurrent.futures.ThreadPoolExecutor(3) as pool:
        ends = {name: pool.submit(abused, world, hostile_image, attack) for name, attack in QUEUES.items()}
        while not all(end.done() for end in ends.values()):
            assert_unharmed(world, neighbour, pid)
            time.sleep(0.5)
    assert sizes.most < 1 << 20
    assert hostile.files(world) == before
    return ends


@pytest.mark.parametrize("abuse", QUEUES)
def test_abused_devices_harm_their_own_microvm_alone(abuses, abuse):
    state, said = abuses[abuse].result()
    assert state in ("RUNNING", "TERMINATED")
    # A guest without its disk or its network says nothing any more.
    assert said is None or said.startswith(("begun", "done")), said


# Exhaustion

def test_a_console_is_bounded_while_an_image_is_built(hostile_image, sizes_while_built):
    assert sizes_while_built[0] < 200 << 10, "the application wrote 256 KiB to its console"


def test_a_console_is_bounded_while_a_microvm_runs(world, attacker):
    with Sizes(world) as sizes:
        # QEMU takes each byte apart: four minutes in the nested host.
        assert do(attacker, "flood_console(1 << 18)", timeout=900) >= 1 << 18
    assert sizes.most < 200 << 10


def test_a_flood_of_output_is_held_to_the_logs_rate(world, hostile_image, neighbour):
    names = dict(logGroup="/tests/hostile", logStream="flood")
    vm = world.run(hostile_image, idlePolicy=WAKES, logging={"cloudWatch": names}, executionRoleArn=world.role())
    try:
        pid, before = world.pid, hostile.memory_of(world.pid)
        # More than the burst of 8 MiB, also where everything takes ten times longer.
        do(vm, "detach(flood_log, 60, delay=0)")
        during(4, lambda: assert_unharmed(world, neighbour, pid))
        logs = world.client("logs")
        dropped = lambda: logs.filter_log_events(logGroupName="/tests/hostile", filterPattern='"over its rate"')["events"]
        wait_for("the word on what was dropped", dropped)
        assert hostile.memory_of(pid) - before < 100 << 20
    finally:
        vm.terminate()


def test_a_fork_bomb_is_its_own_guests_matter(world, victim, neighbour):
    spent = lambda: sum(hostile.processor_seconds(pid) for pid in world.processes())
    pid, begin = world.pid, spent()
    during(3, lambda: assert_unharmed(world, neighbour, pid))
    quiet = spent() - begin
    do(victim, "for _ in range(2): detach(fork_bomb, 600, delay=0.3)")
    time.sleep(0.5)
    begin = spent()
    during(3, lambda: assert_unharmed(world, neighbour, pid))
    assert spent() - begin > quiet + 0.5, "it takes what its guest has"
    victim.terminate()


def test_memory_is_the_guests_own(attacker):
    assert do(attacker, "take_memory()", timeout=300) == -9, "its own kernel ends who takes it"
    assert attacker.state == "RUNNING"


def test_a_disk_is_full_at_its_size(world, attacker):
    disk = scratch_disk(world, attacker)
    before = disk.stat().st_size
    error, free = do(attacker, "fill_disk()", timeout=300)
    assert (error, disk.stat().st_size) == ("ENOSPC", before) and free < 32 << 20
    assert disk.stat().st_blocks * 512 <= before
    assert do(attacker, "open('/root/after', 'w').write('room')") == 4
