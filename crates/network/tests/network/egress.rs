use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use hearth_agent_protocol::GATEWAY_ADDRESS;
use hearth_network::{
    API_ADDRESS, API_PORT, Allowed, Destination, Egress, METADATA_ADDRESS, METADATA_PORT, Network,
    NetworkConfig, Outlet, Protocol,
};

use crate::{
    guest::Guest,
    world::{
        HOST, PRIVATE, SERVER, config, echo_server, greeting, inside, nothing, on_a_machine, on_the_internet,
        silent_listener, silent_mailbox,
    },
};

/// Port of the listeners that must stay without clients.
const PORT: u16 = 7777;
/// How long a packet that is let through may take at most; one that is not is never seen.
const PATIENCE: Duration = Duration::from_secs(2);

fn within(ranges: &[&str], allowed: Option<Vec<Allowed>>) -> Egress {
    Egress {
        outlets: vec![outlet(ranges, allowed)],
    }
}

fn outlet(ranges: &[&str], allowed: Option<Vec<Allowed>>) -> Outlet {
    Outlet::Within {
        ranges: ranges
            .iter()
            .map(|range| range.parse().expect("a range"))
            .collect(),
        allowed,
    }
}

fn to(range: &str, protocol: Option<Protocol>, port: u16) -> Allowed {
    Allowed {
        destination: Destination::Range(range.parse().expect("a range")),
        protocol,
        ports: port..=port,
    }
}

fn to_name(name: &str) -> Allowed {
    Allowed {
        destination: Destination::Name(name.parse().expect("a name")),
        protocol: None,
        ports: 0..=65535,
    }
}

/// Whether the guest gets a TCP connection.
fn connects(guest: &Guest, address: impl Into<SocketAddr>) -> bool {
    let address = address.into();
    guest.run(move || TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().expect("an address"), port)
}

async fn guest_with(network: &Network, egress: &Egress) -> (hearth_network::Slot, Guest) {
    let slot = network.acquire().await.expect("a slot");
    slot.apply(egress).await.expect("applies");
    let mut guest = Guest::new("guest");
    guest.plug(&slot);
    (slot, guest)
}

#[test]
fn a_connector_opens_its_ranges_and_nothing_else() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (slot, guest) = guest_with(&network, &within(&["10.1.2.0/24"], None)).await;
        let inside_range = echo_server(PRIVATE[0]);
        assert!(connects(&guest, inside_range));
        let silent = on_the_internet(silent_listener);
        for closed in [SERVER, PRIVATE[1], PRIVATE[3], HOST] {
            assert!(!connects(&guest, address(closed, PORT)), "{closed}");
        }
        assert!(nothing(silent.accept()));
        // A slot of its own does not change what others may reach.
        let other = network.acquire().await.expect("a slot");
        let mut default = Guest::new("default");
        default.plug(&other);
        assert!(!connects(&default, inside_range));
        default.reach(echo_server(SERVER));
        slot.release().await.expect("released");
        other.release().await.expect("released");
        network.stop().await.expect("stops");
    });
}

#[test]
fn a_security_group_opens_one_port_of_one_protocol() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let open = echo_server(PRIVATE[0]);
        let allowed = vec![to("10.1.2.3/32", Some(Protocol::Tcp), open.port())];
        let (_slot, guest) = guest_with(&network, &within(&["10.0.0.0/8", "0.0.0.0/0"], Some(allowed))).await;
        let other_port = echo_server(PRIVATE[0]);
        assert!(connects(&guest, open));
        assert!(!connects(&guest, other_port));
        let mailbox = on_the_internet(silent_mailbox);
        guest.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            socket.send_to(b"x", open).expect("sends");
            socket.send_to(b"x", address(PRIVATE[0], PORT)).expect("sends");
        });
        assert!(connects(&guest, open));
        assert!(nothing(mailbox.recv(&mut [0; 8])));
    });
}

#[test]
fn udp_passes_inside_a_connectors_ranges() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (_slot, guest) = guest_with(&network, &within(&["10.1.2.0/24"], None)).await;
        let server = on_the_internet(|| UdpSocket::bind((PRIVATE[0], PORT)).expect("binds"));
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..length], from);
            }
        });
        let answer = guest.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("sets");
            socket.send_to(b"ping", (PRIVATE[0], PORT)).expect("sends");
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).expect("an answer");
            buffer[..length].to_vec()
        });
        assert_eq!(answer, b"ping");
    });
}

/// Every datagram of such a stream is a new connection to the kernel, until one comes back.
#[test]
fn a_stream_that_nobody_answers_is_one_connection() {
    const DATAGRAMS: usize = 8000;
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (_slot, guest) = guest_with(&network, &within(&["10.1.2.0/24"], None)).await;
        let server = on_the_internet(|| UdpSocket::bind((PRIVATE[0], PORT)).expect("binds"));
        server
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("sets");
        let arrived = thread::spawn(move || {
            let mut buffer = [0; 16];
            std::iter::from_fn(|| server.recv(&mut buffer).ok()).count()
        });
        guest.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            for number in 0..DATAGRAMS {
                socket.send_to(b"ping", (PRIVATE[0], PORT)).expect("sends");
                // Slow enough for every queue on the way, and far more a second than a guest has new connections.
                if number % 80 == 0 {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let arrived = arrived.join().expect("the server ends");
        assert!(arrived > DATAGRAMS * 9 / 10, "{arrived} of {DATAGRAMS}");
    });
}

#[test]
fn a_wide_range_leaves_private_ranges_and_the_host_closed() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (_slot, guest) = guest_with(&network, &within(&["0.0.0.0/0"], None)).await;
        guest.reach(echo_server(SERVER));
        let silent = on_the_internet(silent_listener);
        let hosts = silent_listener();
        for closed in [PRIVATE[0], PRIVATE[2], PRIVATE[5], HOST, "100.65.0.0"] {
            assert!(!connects(&guest, address(closed, PORT)), "{closed}");
        }
        assert!(nothing(silent.accept()) && nothing(hosts.accept()));
    });
}

#[test]
fn no_range_opens_the_host_other_guests_or_link_local_addresses() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let second = network.acquire().await.expect("a slot");
        let mut other = Guest::new("other");
        other.plug(&second);
        let (slot, guest) = guest_with(&network, &within(&["100.64.0.0/10", "0.0.0.0/0"], None)).await;
        let hosts = silent_listener();
        let others = [
            inside(second.namespace_path(), silent_listener),
            other.run(silent_listener),
        ];
        let link = |slot: &hearth_network::Slot, end: u16| format!("100.65.0.{}", 2 * slot.index() + end);
        let closed = [
            link(&slot, 0),
            link(&second, 0),
            link(&second, 1),
            "169.254.1.1".into(),
            "127.0.0.1".into(),
            HOST.into(),
        ];
        for closed in closed {
            assert!(!connects(&guest, address(&closed, PORT)), "{closed}");
        }
        assert!(nothing(hosts.accept()));
        for listener in &others {
            assert!(nothing(listener.accept()));
        }
    });
}

#[test]
fn a_guest_that_takes_another_address_gets_neither_metadata_nor_a_way_out() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (slot, guest) = guest_with(&network, &within(&["10.1.2.0/24"], None)).await;
        let metadata = slot
            .listen(std::net::SocketAddrV4::new(METADATA_ADDRESS, METADATA_PORT))
            .expect("listens");
        let server = echo_server(PRIVATE[0]);
        assert!(connects(&guest, (METADATA_ADDRESS, METADATA_PORT)) && connects(&guest, server));
        crate::world::ip("-n guest address add 203.0.113.200/32 dev eth0");
        crate::world::ip("-n guest route replace default via 100.64.0.1 src 203.0.113.200");
        assert!(!connects(&guest, (METADATA_ADDRESS, METADATA_PORT)));
        assert!(!connects(&guest, server));
        drop(metadata);
    });
}

#[test]
fn ipv6_leads_nowhere() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (slot, guest) = guest_with(&network, &within(&["0.0.0.0/0"], None)).await;
        for line in [
            "-6 address add fd00:1::1/64 dev lo",
            "-n guest -6 address add fd00:2::2/64 dev eth0 nodad",
            "-n guest -6 route add default dev eth0",
        ] {
            crate::world::ip(line);
        }
        let listen = || std::net::TcpListener::bind("[::]:7778").expect("binds");
        let (hosts, in_namespace) = (listen(), inside(slot.namespace_path(), listen));
        for listener in [&hosts, &in_namespace] {
            listener.set_nonblocking(true).expect("non-blocking");
        }
        for target in ["fd00:1::1", "fd00:2::1", "ff02::1"] {
            assert!(!connects(&guest, address(target, 7778)), "{target}");
        }
        guest.reach(echo_server(SERVER));
        assert!(nothing(hosts.accept()) && nothing(in_namespace.accept()));
    });
}

#[test]
fn without_outlets_nothing_is_reached_and_no_name_is_known() {
    on_a_machine(|| async {
        let network = Network::start(NetworkConfig {
            resolvers: vec![name_server()],
            ..config("hearth", 65)
        })
        .await
        .expect("starts");
        let (_slot, guest) = guest_with(&network, &Egress { outlets: vec![] }).await;
        assert!(!connects(&guest, echo_server(SERVER)));
        assert_eq!(resolve(&guest, "allowed.example"), Err(5));
    });
}

#[test]
fn a_name_rule_opens_what_the_resolver_answers() {
    on_a_machine(|| async {
        let network = Network::start(NetworkConfig {
            resolvers: vec![name_server()],
            ..config("hearth", 65)
        })
        .await
        .expect("starts");
        let egress = within(&["0.0.0.0/0"], Some(vec![to_name("allowed.example")]));
        let (slot, guest) = guest_with(&network, &egress).await;
        let server = echo_server(SERVER);
        assert!(
            !connects(&guest, server),
            "an address is closed before its name was asked for"
        );
        assert_eq!(resolve(&guest, "other.example"), Err(5), "refused");
        assert!(!connects(&guest, server));
        assert_eq!(
            resolve(&guest, "Allowed.example"),
            Ok(SERVER.parse().expect("an address"))
        );
        assert!(connects(&guest, server));
        // The same again, while the address is open already.
        assert!(resolve(&guest, "allowed.example").is_ok());
        assert!(connects(&guest, server));
        drop(slot);
    });
}

#[test]
fn the_addresses_of_known_names_survive_the_daemon() {
    on_a_machine(|| async {
        let config = || NetworkConfig {
            resolvers: vec![(SERVER.parse::<Ipv4Addr>().expect("an address"), 53).into()],
            ..config("hearth", 65)
        };
        name_server();
        let egress = within(&["0.0.0.0/0"], Some(vec![to_name("allowed.example")]));
        let server = echo_server(SERVER);
        let (name, mut guest) = {
            let network = Network::start(config()).await.expect("starts");
            let (slot, guest) = guest_with(&network, &egress).await;
            assert!(resolve(&guest, "allowed.example").is_ok());
            (slot.name().to_owned(), guest)
        };
        let network = Network::start(config()).await.expect("starts again");
        let slot = network.adopt(&name, egress).await.expect("adopts");
        guest.plug(&slot);
        assert!(connects(&guest, server), "known before");
        assert_eq!(resolve(&guest, "other.example"), Err(5));
        // Other rules replace them all the same.
        slot.apply(&within(&["10.1.2.0/24"], None))
            .await
            .expect("applies");
        assert!(!connects(&guest, server));
    });
}

#[test]
fn rules_survive_the_daemon() {
    on_a_machine(|| async {
        let egress = within(&["10.1.2.0/24"], None);
        let (name, mut guest) = {
            let network = Network::start(config("hearth", 65)).await.expect("starts");
            let (slot, guest) = guest_with(&network, &egress).await;
            (slot.name().to_owned(), guest)
        };
        let network = Network::start(config("hearth", 65)).await.expect("starts again");
        let slot = network.adopt(&name, egress).await.expect("adopts");
        guest.plug(&slot);
        assert!(connects(&guest, echo_server(PRIVATE[0])));
        assert!(!connects(&guest, echo_server(SERVER)));
    });
}

#[test]
fn the_metadata_address_is_the_slots_own_and_only_its_ports_answer() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let (slot, guest) = guest_with(&network, &Egress { outlets: vec![] }).await;
        for (address, port) in [(METADATA_ADDRESS, METADATA_PORT), (API_ADDRESS, API_PORT)] {
            let listener = slot
                .listen(std::net::SocketAddrV4::new(address, port))
                .expect("listens");
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.write_all(b"own\n").await;
                }
            });
            let line = guest.run(move || {
                let mut stream = TcpStream::connect((address, port)).expect("connects");
                greeting(&mut stream).expect("a line")
            });
            assert_eq!(line, "own");
        }
        let in_namespace = inside(slot.namespace_path(), silent_listener);
        assert!(!connects(&guest, (METADATA_ADDRESS, PORT)));
        assert!(!connects(&guest, (API_ADDRESS, PORT)));
        assert!(nothing(in_namespace.accept()));
    });
}

/// A name server on the Internet for which every name is at [`SERVER`], for no time at all.
fn name_server() -> SocketAddr {
    on_the_internet(|| {
        let udp = UdpSocket::bind((SERVER, 53)).expect("binds");
        let address = udp.local_addr().expect("has an address");
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut query) {
                let mut answer = query[..length].to_vec();
                answer[2] |= 0x80;
                answer[7] = 1;
                answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04");
                answer.extend(SERVER.parse::<Ipv4Addr>().expect("an address").octets());
                let _ = udp.send_to(&answer, from);
            }
        });
        address
    })
}

/// Asks the guest's resolver for an address: it, or the code of the refusal.
fn resolve(guest: &Guest, name: &str) -> Result<Ipv4Addr, u8> {
    let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend(b"\x00\x00\x01\x00\x01");
    guest.run(move || {
        let stream = UdpSocket::bind("0.0.0.0:0").expect("binds");
        stream
            .connect((Ipv4Addr::from(GATEWAY_ADDRESS), 53))
            .expect("connects");
        stream.send(&query).expect("sends");
        let mut answer = [0; 512];
        let length = stream.recv(&mut answer).expect("an answer");
        match answer[3] & 0x0f {
            0 => Ok(Ipv4Addr::from(
                <[u8; 4]>::try_from(&answer[length - 4..length]).expect("four bytes"),
            )),
            code => Err(code),
        }
    })
}
