use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use hearth_agent_protocol::GATEWAY_ADDRESS;
use hearth_network::Network;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    guest::Guest,
    world::{
        HOST, HOST_TOO, PRIVATE, SERVER, config, echo_server, inside, nothing, on_a_machine, on_the_internet,
        silent_listener, silent_mailbox,
    },
};

/// Port of the listeners that must stay without clients.
const PORT: u16 = 7777;

/// Has the guest send the first packet of a connection to each address; what comes of it is not waited for.
fn knock(guest: &Guest, addresses: Vec<SocketAddr>) {
    guest.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            for address in addresses {
                let mut connect = Box::pin(TcpSocket::new_v4().expect("a socket").connect(address));
                let first = futures::poll!(&mut connect);
                assert!(first.is_pending(), "{address}: {first:?}");
                // The knock stays open until the process ends, so that only the network can answer it.
                std::mem::forget(connect);
            }
        });
        std::mem::forget(runtime);
    });
}

fn at(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| SocketAddr::new(address.parse().expect("an address"), PORT))
        .collect()
}

#[test]
fn a_process_in_a_guests_namespace_sends_nothing_past_its_rules() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let mailbox = on_the_internet(silent_mailbox);
        let server: SocketAddr = at(&[SERVER])[0];
        let sent = inside(slot.namespace_path(), move || {
            UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", server)
        });
        // What is dropped on its way out is refused to the sender.
        assert_eq!(
            sent.expect_err("dropped").kind(),
            std::io::ErrorKind::PermissionDenied
        );
        guest.reach(echo_server(SERVER));
        assert!(nothing(mailbox.recv(&mut [0; 8])));
    });
}

#[test]
fn private_ranges_behind_the_uplink_are_closed_to_guests_and_only_to_guests() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let listener = on_the_internet(silent_listener);
        for address in at(&PRIVATE) {
            TcpStream::connect(address).await.expect("the host reaches it");
            listener.accept().expect("the host's connection");
        }
        knock(&guest, at(&PRIVATE));
        guest.reach(echo_server(SERVER));
        assert!(nothing(listener.accept()));
    });
}

#[test]
fn a_closed_range_can_be_opened_by_configuration() {
    on_a_machine(|| async {
        let mut config = config("hearth", 65);
        config.allow = vec![(Ipv4Addr::new(10, 1, 0, 0), 16), (Ipv4Addr::new(10, 1, 2, 0), 24)];
        let network = Network::start(config).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        guest.reach(echo_server(PRIVATE[0]));
    });
}

#[test]
fn no_address_of_the_host_answers_a_guest() {
    on_a_machine(|| async {
        let mut config = config("hearth", 65);
        // Not even when its range was opened.
        config.allow = vec![(Ipv4Addr::new(100, 65, 0, 0), 24)];
        let network = Network::start(config).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let listener = silent_listener();
        let addresses = at(&[HOST, HOST_TOO, "100.65.0.0"]);
        for address in &addresses {
            TcpStream::connect(address)
                .await
                .expect("the host reaches itself");
            listener.accept().expect("the host's own connection");
        }
        let in_namespace = inside(slot.namespace_path(), silent_listener);
        knock(&guest, addresses);
        knock(
            &guest,
            vec![SocketAddr::new(Ipv4Addr::from(GATEWAY_ADDRESS).into(), PORT)],
        );
        guest.reach(echo_server(SERVER));
        assert!(nothing(listener.accept()));
        assert!(nothing(in_namespace.accept()));
    });
}

#[test]
fn guests_do_not_reach_each_other() {
    on_a_machine(|| async {
        let mut config = config("hearth", 65);
        config.allow = vec![(Ipv4Addr::new(100, 65, 0, 0), 24)];
        let network = Network::start(config).await.expect("starts");
        let (first, second) = (
            network.acquire().await.expect("a slot"),
            network.acquire().await.expect("a slot"),
        );
        let (mut guest, mut other) = (Guest::new("guest"), Guest::new("other"));
        guest.plug(&first);
        other.plug(&second);
        let listeners = [
            inside(second.namespace_path(), silent_listener),
            other.run(silent_listener),
        ];
        let second_link = ([100, 65, 0, 2 * second.index() as u8 + 1], PORT).into();
        knock(&guest, vec![second_link]);
        guest.reach(echo_server(SERVER));
        for listener in &listeners {
            assert!(nothing(listener.accept()));
        }
    });
}

#[test]
fn udp_leaves_no_guest() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let mailbox = on_the_internet(silent_mailbox);
        let server: SocketAddr = (SERVER.parse::<Ipv4Addr>().expect("an address"), PORT).into();
        let send = move || UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"hello", server));
        send().expect("the host sends");
        while nothing(mailbox.recv(&mut [0; 8])) {
            tokio::task::yield_now().await;
        }
        guest.run(send).expect("the guest sends");
        guest.reach(echo_server(SERVER));
        assert!(nothing(mailbox.recv(&mut [0; 8])));
    });
}

#[test]
fn a_guest_that_takes_another_address_is_not_heard() {
    on_a_machine(|| async {
        let network = Network::start(config("hearth", 65)).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        guest.reach(echo_server(SERVER));
        let listener = on_the_internet(silent_listener);
        let server: SocketAddr = (SERVER.parse::<Ipv4Addr>().expect("an address"), PORT).into();
        crate::world::ip("-n guest address add 203.0.113.200/32 dev eth0");
        crate::world::ip(&format!(
            "-n guest route add {SERVER} via 100.64.0.1 src 203.0.113.200"
        ));
        knock(&guest, vec![server]);
        crate::world::ip(&format!("-n guest route del {SERVER}"));
        guest.reach(echo_server(SERVER));
        assert!(nothing(listener.accept()));
    });
}
