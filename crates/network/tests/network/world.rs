use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
};

use hearth_network::NetworkConfig;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// The host's address on its uplink.
pub(crate) const HOST: &str = "198.51.100.1";
/// A second address of the host.
pub(crate) const HOST_TOO: &str = "203.0.113.77";
/// A server on the Internet.
pub(crate) const SERVER: &str = "198.51.100.10";
/// Addresses that the host reaches through its uplink and guests must not.
pub(crate) const PRIVATE: [&str; 6] = [
    "10.1.2.3",
    "172.20.0.5",
    "192.168.7.7",
    "169.254.169.254",
    "100.99.1.1",
    "198.18.3.3",
];

/// Runs a test on a machine of its own.
pub(crate) fn on_a_machine<F: Future<Output = ()>>(story: impl FnOnce() -> F + Send + 'static) {
    let machine = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("tests run as root");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private");
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("an empty /run");
        for line in [
            "link set lo up",
            "address add 203.0.113.77/32 dev lo",
            "netns add internet",
            "link add wan0 mtu 1400 type veth peer name eth0 netns internet",
            "address add 198.51.100.1/24 dev wan0",
            "link set wan0 up",
            "-n internet link set lo up",
            "-n internet link set eth0 up",
            "-n internet address add 198.51.100.10/24 dev eth0",
            "route add default via 198.51.100.10",
        ] {
            ip(line);
        }
        for address in PRIVATE {
            ip(&format!("-n internet address add {address}/32 dev lo"));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(story());
    });
    if let Err(panic) = machine.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A configuration for tests; networks with different prefixes share a machine.
pub(crate) fn config(prefix: &str, second_byte: u8) -> NetworkConfig {
    NetworkConfig {
        pool_size: 0,
        range: ([100, second_byte, 0, 0].into(), 24),
        prefix: prefix.into(),
        state_directory: format!("/run/{prefix}/netns").into(),
        ..NetworkConfig::default()
    }
}

/// Runs `ip` with the words of `line`.
pub(crate) fn ip(line: &str) {
    run("ip", line);
}

/// Runs a program with the words of `line` and returns what it printed.
pub(crate) fn run(program: &str, line: &str) -> String {
    let output = Command::new(program)
        .args(line.split(' '))
        .output()
        .expect("the program is installed");
    assert!(
        output.status.success(),
        "{program} {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs `work` in the namespace at `path`, on a thread of its own.
pub(crate) fn inside<T: Send + 'static>(
    path: impl AsRef<Path>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = File::open(path).expect("the namespace exists");
    let visit = thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("enters the namespace");
        work()
    });
    match visit.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `work` on the Internet.
pub(crate) fn on_the_internet<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    inside("/run/netns/internet", work)
}

/// A TCP server at `address` of the Internet that tells each client its address and a newline, then echoes.
pub(crate) fn echo_server(address: &str) -> SocketAddr {
    let address = address.to_owned();
    on_the_internet(move || serve_echo(&address))
}

/// The same in the calling thread's namespace.
pub(crate) fn serve_echo(address: &str) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("binds");
    let bound = listener.local_addr().expect("has an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || -> io::Result<u64> {
                writeln!(stream, "{}", stream.peer_addr()?)?;
                io::copy(&mut stream.try_clone()?, &mut stream)
            });
        }
    });
    bound
}

/// A listener that must stay without clients, in the calling thread's namespace.
pub(crate) fn silent_listener() -> TcpListener {
    let listener = TcpListener::bind("0.0.0.0:7777").expect("binds");
    listener.set_nonblocking(true).expect("non-blocking");
    listener
}

/// A UDP socket that must stay without mail, in the calling thread's namespace.
pub(crate) fn silent_mailbox() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:7777").expect("binds");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// Whether nothing waits at a non-blocking socket.
pub(crate) fn nothing<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads the line with which the echo server greets.
pub(crate) fn greeting(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().into())
}

/// The forwarding switch of the host's uplink.
pub(crate) fn forwarding() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/conf/wan0/forwarding")
        .expect("the setting exists")
        .trim()
        .into()
}
