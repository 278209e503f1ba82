use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
};

use hearth_agent_protocol::{GUEST_ADDRESS, GUEST_MAC};
use hearth_network::Network;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    guest::Guest,
    world::{HOST, SERVER, config, echo_server, greeting, inside, on_a_machine, run},
};

#[test]
fn a_guest_reaches_the_internet_by_tcp_under_the_hosts_address() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let server = echo_server(SERVER);
        assert!(guest.reach(server).starts_with(&format!("{HOST}:")));
    });
}

#[test]
fn segments_fit_the_uplink_although_both_ends_believe_in_1500_bytes() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        assert_eq!(slot.mtu(), 1400);
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let server = echo_server(SERVER);
        let segment = guest.run(move || -> io::Result<u32> {
            let mut stream = TcpStream::connect(server)?;
            greeting(&mut stream)?;
            let sent = vec![7; 1 << 20];
            let mut writer = stream.try_clone()?;
            let copy = sent.clone();
            let writing = std::thread::spawn(move || writer.write_all(&copy));
            let mut received = vec![0; sent.len()];
            stream.read_exact(&mut received)?;
            writing.join().expect("the writer ends")?;
            assert!(received == sent);
            Ok(getsockopt(&stream, sockopt::TcpMaxSeg)?)
        });
        assert!(segment.expect("the exchange succeeds") <= 1360);
    });
}

#[test]
fn the_host_connects_into_each_of_many_guests_with_the_same_address() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let mut guests = Vec::new();
        for name in ["alpha", "beta"] {
            let slot = network.acquire().await.expect("a slot");
            let mut guest = Guest::new(name);
            guest.plug(&slot);
            guest.run(move || {
                let listener = TcpListener::bind("0.0.0.0:1").expect("binds");
                std::thread::spawn(move || {
                    listener
                        .accept()
                        .map(|(mut stream, _)| stream.write_all(name.as_bytes()))
                });
            });
            guests.push((name, slot, guest));
        }
        let home = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        for (name, slot, _guest) in &guests {
            let mut stream = slot
                .connect(SocketAddrV4::new(GUEST_ADDRESS.into(), 1))
                .await
                .expect("connects");
            assert!(stream.nodelay().expect("an option"));
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("reads");
            assert_eq!(said, *name);
            // The guest is known beforehand: nobody asks it for its address.
            let neighbours = inside(slot.namespace_path(), || run("ip", "neighbour show dev tap0"));
            let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
            assert!(
                neighbours.contains(&mac) && neighbours.contains("PERMANENT"),
                "{neighbours}"
            );
        }
        assert_eq!(
            std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace"),
            home
        );
    });
}

#[test]
fn connections_from_before_a_restore_are_reset_in_the_new_namespace() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let before = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&before);
        let server = echo_server(SERVER);
        let (mut outbound, agent) = guest.run(move || {
            let mut outbound = TcpStream::connect(server).expect("connects");
            greeting(&mut outbound).expect("is greeted");
            (outbound, TcpListener::bind("0.0.0.0:1").expect("binds"))
        });
        let address = SocketAddrV4::new(Ipv4Addr::from(GUEST_ADDRESS), 1);
        let mut from_host = before.connect(address).await.expect("connects");
        from_host.write_all(b"x").await.expect("writes");
        let (mut inbound, _) = agent.accept().expect("accepts");
        inbound.read_exact(&mut [0]).expect("reads");

        let after = network.acquire().await.expect("a slot");
        guest.plug(&after);
        before.release().await.expect("is released");

        for stream in [&mut outbound, &mut inbound] {
            stream.write_all(b"still there?").expect("is queued");
            let error = stream.read(&mut [0]).expect_err("the connection is dead");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert!(guest.reach(server).starts_with(HOST), "new connections work");
    });
}
