use std::{
    collections::HashSet,
    fs,
    io::Write,
    net::{SocketAddrV4, TcpListener},
};

use futures::future::join_all;
use hearth_agent_protocol::GUEST_ADDRESS;
use hearth_network::{Egress, Network, NetworkConfig, NetworkError, Slot};
use nix::sys::statfs::{FsType, statfs};
use tokio::io::AsyncReadExt;

use crate::{
    guest::Guest,
    resolver::ask_by_udp,
    world::{HOST, SERVER, config, echo_server, forwarding, on_a_machine, run},
};

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

/// What exists of a slot on the machine: its link, its mount, its file.
fn traces(slot_name: &str, config: &NetworkConfig) -> [bool; 3] {
    let path = config.state_directory.join(slot_name);
    [
        run("ip", "-o link").contains(&format!(" {slot_name}@")),
        // The list of mounts would name those of a daemon on this host, too, whose /run lies below this one.
        statfs(&path).is_ok_and(|mounted| mounted.filesystem_type() == NSFS),
        path.exists(),
    ]
}

fn tables() -> String {
    run("nft", "list tables")
}

#[test]
fn a_released_slot_leaves_nothing_even_while_a_connection_is_open() {
    on_a_machine(|| async {
        let config = config("hearth", 65);
        let network = Network::start(config.clone()).await.expect("starts");
        let slot = network.acquire().await.expect("a slot");
        let name = slot.name().to_owned();
        assert_eq!(traces(&name, &config), [true; 3]);
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        let listener = guest.run(|| TcpListener::bind("0.0.0.0:1").expect("binds"));
        let connection = slot
            .connect(SocketAddrV4::new(GUEST_ADDRESS.into(), 1))
            .await
            .expect("connects");
        let clone = slot.clone();
        slot.release().await.expect("is released");
        assert_eq!(traces(&name, &config), [false; 3]);
        let next = network.acquire().await.expect("a slot");
        assert_ne!(next.name(), name, "an index rests");
        clone.release().await.expect("the second release does nothing");
        assert_eq!(traces(next.name(), &config), [true; 3]);
        drop((connection, listener));
    });
}

#[test]
fn many_slots_are_released_at_a_time_on_a_machine_with_many_links() {
    on_a_machine(|| async {
        // More than the kernel lists in one piece.
        for number in 0..60 {
            run("ip", &format!("link add name many{number} type veth"));
        }
        let config = config("hearth", 65);
        let network = Network::start(config.clone()).await.expect("starts");
        let mut slots = Vec::new();
        for _ in 0..12 {
            slots.push(network.acquire().await.expect("a slot"));
        }
        let names: Vec<_> = slots.iter().map(|slot| slot.name().to_owned()).collect();
        for released in join_all(slots.into_iter().map(Slot::release)).await {
            released.expect("is released");
        }
        for name in names {
            assert_eq!(traces(&name, &config), [false; 3]);
        }
    });
}

#[test]
fn the_pool_is_filled_again_and_emptied_by_stop() {
    on_a_machine(|| async {
        let config = NetworkConfig {
            pool_size: 2,
            ..config("hearth", 65)
        };
        let count = || fs::read_dir("/run/hearth/netns").expect("readable").count();
        let network = Network::start(config).await.expect("starts");
        assert_eq!(count(), 0);
        network.prefill().await.expect("fills");
        assert_eq!(count(), 2);
        let slot = network.acquire().await.expect("a slot");
        network.prefill().await.expect("fills");
        assert_eq!(count(), 3);
        network.stop().await.expect("stops");
        assert_eq!(count(), 1, "the slot in use stays");
        assert!(tables().contains("hearth"), "and so do its rules");
        assert!(matches!(network.acquire().await, Err(NetworkError::Stopped)));
        slot.release().await.expect("is released");
        network.stop().await.expect("stops");
        assert_eq!((count(), tables().as_str()), (0, ""));
    });
}

#[test]
fn a_machine_that_outlives_the_daemon_is_adopted_and_the_rest_swept() {
    on_a_machine(|| async {
        let config = NetworkConfig {
            pool_size: 1,
            ..config("hearth", 65)
        };
        let before = config.clone();
        let mut guest = Guest::new("guest");
        // A daemon whose runtime ends in the middle of its work, and with it every task and socket, as by kill -9.
        let (running, kept, orphan, guest) = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let daemon = Network::start(before).await.expect("starts");
                let running = daemon.acquire().await.expect("a slot");
                let kept = daemon.acquire().await.expect("a slot");
                let orphan = daemon.acquire().await.expect("a slot");
                daemon.prefill().await.expect("fills");
                guest.plug(&running);
                let name = |slot: &Slot| slot.name().to_owned();
                (name(&running), name(&kept), name(&orphan), guest)
            })
        })
        .join()
        .expect("the first daemon ran");
        assert_eq!(traces(&orphan, &config), [true; 3]);
        // What a crash in the middle of making a slot leaves.
        fs::write(config.state_directory.join("hearth-99"), "").expect("writes");

        let mut resolvers = config.clone();
        resolvers.resolvers = vec!["127.0.0.1:1".parse().expect("an address")];
        let daemon = Network::start(resolvers)
            .await
            .expect("starts over what is there");
        let adopted = daemon.adopt(&running, Egress::internet()).await.expect("adopts");
        assert!(matches!(
            daemon.adopt(&running, Egress::internet()).await,
            Err(NetworkError::InUse(_))
        ));
        for unknown in ["hearth-77", "hearth-99", "other-1", "../hearth-1"] {
            assert!(
                matches!(
                    daemon.adopt(unknown, Egress::internet()).await,
                    Err(NetworkError::Unknown(_))
                ),
                "{unknown}"
            );
        }
        let removed = daemon
            .sweep(&HashSet::from([kept.clone()]))
            .await
            .expect("sweeps");
        for (name, exists) in [(&running, true), (&kept, true), (&orphan, false)] {
            assert_eq!(traces(name, &config), [exists; 3], "{name}");
        }
        let mut left: Vec<_> = fs::read_dir(&config.state_directory)
            .expect("readable")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        left.sort();
        let mut expected = [running.clone(), kept];
        expected.sort();
        assert_eq!(left, expected, "neither the pool nor the half-made slot is left");
        assert!(removed >= 3, "the orphan, the pool, the half-made one: {removed}");

        assert!(guest.reach(echo_server(SERVER)).starts_with(HOST));
        assert_eq!(
            ask_by_udp(&guest)[3] & 0x0f,
            2,
            "the resolver answers, if only that its server failed"
        );
        let listener = guest.run(|| TcpListener::bind("0.0.0.0:1").expect("binds"));
        let mut stream = adopted
            .connect(SocketAddrV4::new(GUEST_ADDRESS.into(), 1))
            .await
            .expect("connects");
        listener
            .accept()
            .expect("accepts")
            .0
            .write_all(b"here")
            .expect("writes");
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.expect("reads");
        assert_eq!(&said, b"here");
    });
}

#[test]
fn forwarding_is_as_it_was_when_the_last_of_two_daemons_stops_even_after_a_crash() {
    on_a_machine(|| async {
        assert_eq!(forwarding(), "0");
        let (one, other) = (config("hearth", 65), config("hearth2", 66));
        drop(Network::start(one.clone()).await.expect("starts"));
        let one = Network::start(one).await.expect("starts again");
        let other = Network::start(other).await.expect("starts beside it");
        let slot = other.acquire().await.expect("a slot");
        one.stop().await.expect("stops");
        assert_eq!(
            (forwarding().as_str(), tables().as_str()),
            ("1", "table inet hearth2\n")
        );
        let mut guest = Guest::new("guest");
        guest.plug(&slot);
        guest.reach(echo_server(SERVER));
        slot.release().await.expect("is released");
        other.stop().await.expect("stops");
        assert_eq!((forwarding().as_str(), tables().as_str()), ("0", ""));
    });
}

#[test]
fn a_range_that_is_used_up_says_so() {
    on_a_machine(|| async {
        let mut config = config("hearth", 65);
        config.range.1 = 30;
        let network = Network::start(config).await.expect("starts");
        let held = [
            network.acquire().await.expect("a slot"),
            network.acquire().await.expect("a slot"),
        ];
        assert!(matches!(network.acquire().await, Err(NetworkError::Exhausted(2))));
        drop(held);
    });
}
