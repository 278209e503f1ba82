use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use hearth_agent_protocol::GATEWAY_ADDRESS;
use hearth_network::{Egress, Network, NetworkConfig};

use crate::{
    guest::Guest,
    world::{SERVER, config, on_a_machine, on_the_internet},
};

const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

fn gateway() -> SocketAddr {
    (Ipv4Addr::from(GATEWAY_ADDRESS), 53).into()
}

/// A name server on the Internet: the query with the answer bit set and its transport's name behind.
fn name_server() -> SocketAddr {
    let answer = |query: &[u8], transport: &[u8]| {
        let mut answer = [query, transport].concat();
        answer[2] |= 0x80;
        answer
    };
    on_the_internet(move || {
        let udp = UdpSocket::bind((SERVER, 53)).expect("binds");
        let tcp = TcpListener::bind((SERVER, 53)).expect("binds");
        let address = udp.local_addr().expect("has an address");
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut query) {
                // A forged answer to another query comes first; the relay must not pass it on.
                let _ = udp.send_to(
                    &answer(&[b"\x99\x99", &query[2..length]].concat(), b"forged"),
                    from,
                );
                let _ = udp.send_to(&answer(&query[..length], b"udp"), from);
            }
        });
        thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                if let Ok(query) = read_message(&mut stream) {
                    let _ = write_message(&mut stream, &answer(&query, b"tcp"));
                }
            }
        });
        address
    })
}

fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat())
}

pub(crate) fn ask_by_udp(guest: &Guest) -> Vec<u8> {
    guest.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
        socket.connect(gateway()).expect("connects");
        // Neither kills the resolver nor gets an answer.
        socket.send(b"short").expect("sends");
        socket.send(QUERY).expect("sends");
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer).expect("an answer");
        answer.truncate(length);
        answer
    })
}

async fn guest_with(resolvers: Vec<SocketAddr>) -> (Network, Guest) {
    guest_that_reaches(&Egress::internet(), resolvers).await
}

/// A guest that may know no name: its resolver refuses by itself.
async fn guest_without_names() -> (Network, Guest) {
    guest_that_reaches(&Egress { outlets: vec![] }, vec![]).await
}

async fn guest_that_reaches(egress: &Egress, resolvers: Vec<SocketAddr>) -> (Network, Guest) {
    let network = Network::start(NetworkConfig {
        resolvers,
        ..config("hearth", 65)
    })
    .await
    .expect("starts");
    let slot = network.acquire().await.expect("a slot");
    slot.apply(egress).await.expect("applies");
    let mut guest = Guest::new("guest");
    guest.plug(&slot);
    // Held for the rest of the test.
    std::mem::forget(slot);
    (network, guest)
}

/// Queries that a guest may make in this time, its burst included.
fn fair(elapsed: Duration) -> usize {
    1024 + (elapsed.as_secs_f64() * 1024.0).ceil() as usize
}

#[test]
fn a_flood_of_queries_is_answered_at_its_pace() {
    on_a_machine(|| async {
        let (_network, guest) = guest_without_names().await;
        let (answered, elapsed) = guest.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
            socket.connect(gateway()).expect("connects");
            let patience = |milliseconds| socket.set_read_timeout(Some(Duration::from_millis(milliseconds)));
            let start = Instant::now();
            let mut answered = 0;
            let mut answer = [0; 512];
            patience(1).expect("set");
            for _ in 0..3000 {
                socket.send(QUERY).expect("sends");
                answered += usize::from(socket.recv(&mut answer).is_ok());
            }
            patience(1000).expect("set");
            while socket.recv(&mut answer).is_ok() {
                answered += 1;
            }
            (answered, start.elapsed())
        });
        assert!(
            answered > 500 && answered <= fair(elapsed),
            "{answered} answers in {elapsed:?}"
        );
    });
}

#[test]
fn queries_on_a_tcp_connection_are_answered_at_their_pace() {
    on_a_machine(|| async {
        let (_network, guest) = guest_without_names().await;
        let elapsed = guest.run(|| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(gateway()).expect("connects");
            for _ in 0..3000 {
                write_message(&mut stream, QUERY).expect("writes");
                read_message(&mut stream).expect("an answer");
            }
            start.elapsed()
        });
        assert!(3000 <= fair(elapsed), "3,000 answers in {elapsed:?}");
    });
}

#[test]
fn names_are_resolved_by_the_next_server_when_the_first_refuses() {
    on_a_machine(|| async {
        let dead = (SERVER.parse::<Ipv4Addr>().expect("an address"), 5399).into();
        let (_network, guest) = guest_with(vec![dead, name_server()]).await;
        assert!(ask_by_udp(&guest).ends_with(b"udp"));
    });
}

#[test]
fn many_questions_may_follow_on_one_tcp_connection() {
    on_a_machine(|| async {
        let (_network, guest) = guest_with(vec![name_server()]).await;
        guest.run(|| {
            let mut stream = TcpStream::connect(gateway()).expect("connects");
            for _ in 0..3 {
                write_message(&mut stream, QUERY).expect("writes");
                assert!(read_message(&mut stream).expect("an answer").ends_with(b"tcp"));
            }
        });
    });
}

#[test]
fn a_guest_is_told_when_no_server_answers() {
    on_a_machine(|| async {
        let dead = (SERVER.parse::<Ipv4Addr>().expect("an address"), 5399).into();
        let (_network, guest) = guest_with(vec![dead]).await;
        let answer = ask_by_udp(&guest);
        assert_eq!(answer[..2], QUERY[..2]);
        assert_eq!(
            (answer[2] & 0x80, answer[3] & 0x0f),
            (0x80, 2),
            "an answer with the code SERVFAIL"
        );
    });
}
