mod names;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    num::NonZeroU32,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hearth_agent_protocol::GATEWAY_ADDRESS;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Mutex, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use self::names::Names;
use crate::{Egress, NetworkError, error::While, namespace::Namespace};

/// Port of DNS (RFC 1035).
const PORT: u16 = 53;
/// Length of a DNS header in bytes (RFC 1035, 4.1.1); nothing shorter is a message.
const HEADER: usize = 12;
/// How long one name server may take, and how long a TCP client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Queries and TCP clients served at once per guest; more are dropped, as the network might.
const MAX_QUERIES: usize = 64;
/// Queries per guest and second, after a burst of as many, as EC2's resolver has it. More UDP is dropped, mostly by the
/// kernel ([`crate::rules`]); TCP waits.
pub(crate) const QUERIES_PER_SECOND: NonZeroU32 = NonZeroU32::new(1024).unwrap();
/// How long the host's name servers are taken for what they were.
const HOST_SERVERS_LIFE: Duration = Duration::from_secs(1);
/// How long to wait after a socket failed (out of descriptors, say) before it is used again.
const BREATHER: Duration = Duration::from_millis(50);

/// The resolver's sockets in a guest's namespace.
pub(crate) struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

impl Sockets {
    /// Binds in the calling thread's namespace.
    pub(crate) fn bind() -> Result<Self, NetworkError> {
        let address = (Ipv4Addr::from(GATEWAY_ADDRESS), PORT);
        let bind = || -> io::Result<Self> {
            let sockets = Self {
                udp: StdUdpSocket::bind(address)?,
                tcp: StdTcpListener::bind(address)?,
            };
            sockets.udp.set_nonblocking(true)?;
            sockets.tcp.set_nonblocking(true)?;
            Ok(sockets)
        };
        bind().during(|| "opening the resolver's sockets".into())
    }
}

/// A guest's resolver: relays DNS messages to the host's name servers, unread but for their header, unless the guest may
/// reach names of its own: then it answers for those alone, and opens the addresses it answers. Ends when dropped.
pub(crate) struct Resolver {
    task: AbortHandle,
    relay: Arc<Relay>,
}

impl Resolver {
    /// Serves the sockets on the current runtime. `upstreams` empty means those of the host.
    pub(crate) fn start(
        sockets: Sockets,
        upstreams: Vec<SocketAddr>,
        namespace: Arc<Namespace>,
        egress: &Egress,
    ) -> Self {
        let relay = Arc::new(Relay {
            upstreams,
            host: Mutex::default(),
            opening_fails: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(MAX_QUERIES)),
            pace: RateLimiter::direct(Quota::per_second(QUERIES_PER_SECOND)),
            names: RwLock::new(Arc::new(Names::of(egress))),
            namespace,
        });
        let serving = relay.clone();
        let task = tokio::spawn(async move {
            let serve = async {
                let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
                let tcp = TcpListener::from_std(sockets.tcp)?;
                tokio::join!(serve_udp(&serving, &udp), serve_tcp(&serving, &tcp));
                io::Result::Ok(())
            };
            if let Err(error) = serve.await {
                tracing::error!(%error, "a guest's resolver could not be started");
            }
        });
        Self {
            task: task.abort_handle(),
            relay,
        }
    }

    /// From now on answers for what `egress` names.
    pub(crate) fn restrict(&self, egress: &Egress) {
        *self.relay.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Names::of(egress));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Relay {
    /// Empty means the host's.
    upstreams: Vec<SocketAddr>,
    host: Mutex<HostServers>,
    /// Said once, not at each query.
    opening_fails: AtomicBool,
    permits: Arc<Semaphore>,
    pace: DefaultDirectRateLimiter,
    names: RwLock<Arc<Names>>,
    namespace: Arc<Namespace>,
}

async fn serve_udp(relay: &Arc<Relay>, socket: &Arc<UdpSocket>) {
    let mut queries = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) => {
                sleep(BREATHER).await;
                continue;
            }
        };
        while queries.try_join_next().is_some() {}
        let Ok(permit) = relay.permits.clone().try_acquire_owned() else {
            continue;
        };
        if !is_query(&buffer[..length]) || relay.pace.check().is_err() {
            continue;
        }
        let (relay, socket, query) = (relay.clone(), socket.clone(), buffer[..length].to_vec());
        queries.spawn(async move {
            let _permit = permit;
            let answer = relay.answer(&query, ask_udp).await;
            // A guest that is gone does not miss its answer.
            let _ = socket.send_to(&answer, from).await;
        });
    }
}

async fn serve_tcp(relay: &Arc<Relay>, listener: &TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATHER).await;
            continue;
        };
        while clients.try_join_next().is_some() {}
        let Ok(permit) = relay.permits.clone().try_acquire_owned() else {
            continue;
        };
        let relay = relay.clone();
        clients.spawn(async move {
            let _permit = permit;
            // A client that breaks off, falls silent or sends no DNS loses its connection, and that is all.
            let _ = serve_client(&relay, stream).await;
        });
    }
}

async fn serve_client(relay: &Relay, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let query = timeout(PATIENCE, read_message(&mut stream)).await??;
        if !is_query(&query) {
            return Ok(());
        }
        relay.pace.until_ready().await;
        let answer = relay.answer(&query, ask_tcp).await;
        timeout(PATIENCE, write_message(&mut stream, &answer)).await??;
    }
}

impl Relay {
    /// The answer a guest gets: a refusal for a name it may not know, and one whose addresses are open by then.
    async fn answer<F: Future<Output = io::Result<Vec<u8>>>>(
        &self,
        query: &[u8],
        ask: impl Fn(SocketAddr, Vec<u8>) -> F,
    ) -> Vec<u8> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !names.allow(query) {
            return failure(query, REFUSED);
        }
        let answer = self.relay(query, ask).await;
        let opened = names.open(query, &answer, self.namespace.clone()).await;
        let failed_before = self.opening_fails.swap(opened.is_err(), Ordering::Relaxed);
        match opened {
            Ok(()) => answer,
            Err(error) => {
                if !failed_before {
                    tracing::warn!(%error, "the addresses of an allowed name could not be opened");
                }
                failure(query, SERVER_FAILURE)
            }
        }
    }

    /// Asks one name server after the other; when none answers, says so.
    async fn relay<F: Future<Output = io::Result<Vec<u8>>>>(
        &self,
        query: &[u8],
        ask: impl Fn(SocketAddr, Vec<u8>) -> F,
    ) -> Vec<u8> {
        for upstream in self.upstreams().await {
            match timeout(PATIENCE, ask(upstream, query.to_vec())).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "name server failed"),
                Err(_) => tracing::debug!(%upstream, "name server did not answer in time"),
            }
        }
        failure(query, SERVER_FAILURE)
    }

    async fn upstreams(&self) -> Vec<SocketAddr> {
        match self.upstreams.is_empty() {
            true => self.host.lock().await.now().await,
            false => self.upstreams.clone(),
        }
    }
}

/// The host's name servers. They change when a machine changes networks, so they are read anew every second, if need be.
#[derive(Default)]
struct HostServers {
    read_at: Option<Instant>,
    servers: Vec<SocketAddr>,
    unreadable: bool,
}

impl HostServers {
    async fn now(&mut self) -> Vec<SocketAddr> {
        if self.read_at.is_none_or(|at| at.elapsed() > HOST_SERVERS_LIFE) {
            let text = tokio::fs::read_to_string("/etc/resolv.conf").await;
            self.read_at = Some(Instant::now());
            let was_unreadable = std::mem::replace(&mut self.unreadable, text.is_err());
            if let Err(error) = &text
                && !was_unreadable
            {
                tracing::warn!(%error, "/etc/resolv.conf could not be read");
            }
            self.servers = text.map_or_else(|_| Vec::new(), |text| name_servers(&text));
        }
        self.servers.clone()
    }
}

/// Over a socket of its own, whose random port a forger would have to guess together with the query's number.
async fn ask_udp(upstream: SocketAddr, query: Vec<u8>) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any_address(upstream)).await?;
    socket.connect(upstream).await?;
    socket.send(&query).await?;
    let mut answer = Vec::with_capacity(usize::from(u16::MAX));
    loop {
        answer.clear();
        socket.recv_buf(&mut answer).await?;
        if is_answer(&answer, &query) {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, query: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_message(&mut stream, &query).await?;
    let answer = read_message(&mut stream).await?;
    if is_answer(&answer, &query) {
        Ok(answer)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

fn any_address(of_family: SocketAddr) -> SocketAddr {
    match of_family {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}

fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 == 0
}

fn is_answer(message: &[u8], query: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 != 0 && message[..2] == query[..2]
}

/// Response codes (RFC 1035, 4.1.1).
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// The query turned into an answer with a code that says why there is none.
fn failure(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    answer
}

/// The `nameserver` lines of a resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| -> Option<SocketAddr> {
        let mut words = line.split_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and_then(|_| words.next())?;
        Some((address.parse::<IpAddr>().ok()?, PORT).into())
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text =
            "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\n nameserver\t::1 \nnameserver nonsense\n";
        assert_eq!(
            name_servers(text),
            [
                "10.0.0.1:53".parse().expect("v4"),
                "[::1]:53".parse().expect("v6")
            ]
        );
    }

    #[test]
    fn an_answer_must_carry_the_number_of_its_query() {
        let query = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let mut answer = query;
        assert!(is_query(&query) && !is_answer(&answer, &query));
        answer[2] |= 0x80;
        assert!(!is_query(&answer) && is_answer(&answer, &query));
        answer[0] = 9;
        assert!(!is_answer(&answer, &query));
    }

    proptest! {
        #[test]
        fn no_message_of_a_guest_upsets_the_relay(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            if is_query(&message) {
                let failure = failure(&message, SERVER_FAILURE);
                prop_assert!(is_answer(&failure, &message));
                prop_assert_eq!(failure[3] & 0x0f, 2);
            } else {
                prop_assert!(message.len() < HEADER || message[2] >= 0x80);
            }
        }
    }
}
