use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use hearth_network::Network;

use crate::{
    guest::Guest,
    world::{SERVER, config, inside, on_a_machine, on_the_internet, run},
};

/// Bytes a second, and as many in a burst.
const RATE: u64 = 1 << 20;
/// What is moved each way: two seconds' worth more than the burst.
const AMOUNT: usize = 3 << 20;

/// A server that takes what is sent until its end, tells that it has, and sends as much.
fn mirror() -> SocketAddr {
    on_the_internet(|| {
        let listener = TcpListener::bind((SERVER, 0)).expect("binds");
        let address = listener.local_addr().expect("has an address");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut sent = Vec::new();
                stream.read_to_end(&mut sent).expect("takes all");
                stream.write_all(b"!").expect("tells it");
                stream.write_all(&sent).expect("sends all");
            }
        });
        address
    })
}

/// How long it takes to send and how long to receive.
fn there_and_back(guest: &Guest, server: SocketAddr) -> [Duration; 2] {
    guest.run(move || {
        let mut stream = TcpStream::connect(server).expect("connects");
        let begun = Instant::now();
        stream.write_all(&vec![7; AMOUNT]).expect("sends");
        stream.shutdown(std::net::Shutdown::Write).expect("ends");
        stream.read_exact(&mut [0]).expect("all has arrived");
        let there = begun.elapsed();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("receives");
        assert_eq!(received.len(), AMOUNT);
        [there, begun.elapsed() - there]
    })
}

#[test]
fn a_guest_is_held_to_its_rate_each_way_and_one_without_a_limit_is_not() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let server = mirror();
        let mut times = Vec::new();
        for rate in [RATE, 0] {
            let slot = network.acquire().await.expect("a slot");
            slot.limit(rate).await.expect("limited");
            let mut guest = Guest::new(&format!("guest{rate}"));
            guest.plug(&slot);
            times.push(there_and_back(&guest, server));
        }
        for (limited, free) in times[0].iter().zip(times[1]) {
            assert!(*limited > Duration::from_millis(1500), "{times:?}");
            assert!(free * 2 < *limited, "{times:?}");
        }
    });
}

#[test]
fn rates_beyond_32_bits_are_taken() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        slot.limit(10_000_000_000).await.expect("limited");
        let shown = inside(slot.namespace_path(), || run("tc", "qdisc show"));
        for link in ["tap0", "uplink"] {
            let line = shown.lines().find(|line| line.contains(&format!("dev {link} ")));
            let line = line.expect("a queue");
            assert!(line.contains("tbf") && line.contains("rate 80Gbit"), "{shown}");
        }
    });
}
