//! Connections into MicroVMs: dialled through the passage, kept alive for a moment, never older than the last resume.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::gate::Passage;
use crate::link::{Link, TlsPorts, Way};
use crate::listen::GatewayConfig;
use crate::pool::{Line, Pool};

/// HTTP/2 flow-control windows: enough for a fast stream, little enough for many of them.
pub(crate) const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const H2_CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Ports of one MicroVM with a cleartext HTTP/2 connection kept; past it all are let go.
const MAX_H2_PORTS: usize = 16;

pub(crate) type H2Client = Client<H2Dialer, RequestBody>;

/// The connections into all MicroVMs.
pub(crate) struct Upstreams {
    machines: Mutex<HashMap<String, Arc<Machine>>>,
    dial_timeout: Duration,
    idle_timeout: Duration,
}

/// The connections into one MicroVM, since its last resume.
pub(crate) struct Machine {
    generation: u64,
    dialer: Dialer,
    idle_timeout: Duration,
    h1: Arc<Pool>,
    /// By port, because the authority of an HTTP/2 request is the client's and says nothing of the guest's port.
    h2: Mutex<HashMap<u16, H2Client>>,
}

impl Upstreams {
    pub(crate) fn new(config: &GatewayConfig) -> Upstreams {
        Upstreams {
            machines: Mutex::default(),
            dial_timeout: config.dial_timeout,
            idle_timeout: config.upstream_idle_timeout,
        }
    }

    /// The connections of the passage's generation, and whether they are its first; `None` when a newer one is known,
    /// so that this passage is dead.
    pub(crate) fn machine(
        self: &Arc<Self>,
        microvm_id: &str,
        passage: &Arc<dyn Passage>,
    ) -> Option<(Arc<Machine>, bool)> {
        let generation = passage.generation();
        let mut machines = self.lock();
        if let Some(machine) = machines.get(microvm_id) {
            if machine.generation > generation {
                return None;
            }
            if machine.generation == generation && !machine.dialer.ended.is_cancelled() {
                return Some((machine.clone(), false));
            }
            machine.dialer.ended.cancel();
        }
        let ended = CancellationToken::new();
        let dialer = Dialer {
            passage: passage.clone(),
            tls_ports: Arc::default(),
            timeout: self.dial_timeout,
            ended: ended.clone(),
        };
        let machine = Arc::new(Machine {
            generation,
            idle_timeout: self.idle_timeout,
            h1: Pool::new(self.idle_timeout, ended),
            h2: Mutex::default(),
            dialer,
        });
        machines.insert(microvm_id.to_owned(), machine.clone());
        tokio::spawn(forget_when_ended(
            self.clone(),
            microvm_id.to_owned(),
            machine.clone(),
        ));
        Some((machine, true))
    }

    /// Cuts every connection.
    pub(crate) fn close(&self) {
        for machine in self.lock().values() {
            machine.dialer.ended.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Machine>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn forget_when_ended(upstreams: Arc<Upstreams>, microvm_id: String, machine: Arc<Machine>) {
    tokio::select! {
        () = machine.dialer.passage.ended() => {}
        () = machine.dialer.ended.cancelled() => {}
    }
    machine.dialer.ended.cancel();
    let mut machines = upstreams.lock();
    if machines
        .get(&microvm_id)
        .is_some_and(|current| Arc::ptr_eq(current, &machine))
    {
        machines.remove(&microvm_id);
    }
}

impl Machine {
    /// A connection for HTTP/1.1, and whether it was used before.
    pub(crate) async fn h1(&self, port: u16) -> io::Result<(Line, bool)> {
        match self.h1.take(port) {
            Some(line) => Ok((line, true)),
            None => self.new_h1(port).await.map(|line| (line, false)),
        }
    }

    /// A connection for HTTP/1.1 that nobody has used yet.
    pub(crate) async fn new_h1(&self, port: u16) -> io::Result<Line> {
        let link = self.dialer.clone().dial(port, false).await?;
        self.h1.open(port, link).await.map_err(io::Error::other)
    }

    /// The client for cleartext HTTP/2 to one port.
    pub(crate) fn h2(&self, port: u16) -> H2Client {
        let mut clients = self.h2.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_H2_PORTS && !clients.contains_key(&port) {
            clients.clear();
        }
        let new = || h2_client(self.dialer.clone(), port, self.idle_timeout);
        clients.entry(port).or_insert_with(new).clone()
    }

    /// Cancelled when connections into this MicroVM are dead.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.dialer.ended
    }
}

fn h2_client(dialer: Dialer, port: u16, idle_timeout: Duration) -> H2Client {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle_timeout)
        .set_host(false)
        .http2_only(true)
        .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .build(H2Dialer { dialer, port })
}

/// Opens connections to the application.
#[derive(Clone)]
struct Dialer {
    passage: Arc<dyn Passage>,
    tls_ports: Arc<TlsPorts>,
    timeout: Duration,
    ended: CancellationToken,
}

impl Dialer {
    async fn dial(self, port: u16, h2: bool) -> io::Result<Link> {
        let way = Way {
            passage: self.passage,
            port,
            h2,
            tls_ports: self.tls_ports,
        };
        let state = tokio::select! {
            opened = tokio::time::timeout(self.timeout, way.open()) => opened??,
            () = self.ended.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        Ok(Link::new(state, self.ended.cancelled_owned()))
    }
}

/// Opens connections to one port for HTTP/2, whatever the URI names.
#[derive(Clone)]
pub(crate) struct H2Dialer {
    dialer: Dialer,
    port: u16,
}

impl tower::Service<Uri> for H2Dialer {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialled = self.dialer.clone().dial(self.port, true);
        Box::pin(async { dialled.await.map(TokioIo::new) })
    }
}
