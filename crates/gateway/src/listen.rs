use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hearth_crowd::{Crowd, Member};
use hearth_token::Keyring;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::endpoint::EndpointStates;
use crate::gate::MicroVms;
use crate::linger::Lingering;
use crate::metrics::Metrics;
use crate::proxy::Gateway;
use crate::upstream::{H2_CONNECTION_WINDOW_BYTES, H2_STREAM_WINDOW_BYTES, Upstreams};

const ALPN_H2: &[u8] = b"h2";
/// Most bytes of a request's header, in both versions of HTTP.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_H2_STREAMS: u32 = 256;
/// A client that answers nothing for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Pause between two looks for MicroVMs that are gone.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Pause after a failed accept: descriptors may be free again then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the gateway listens and waits.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Parent of all endpoints, such as `microvm.localhost`: an endpoint is `<id>.<domain>`.
    pub domain: String,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for a request's header once it may come; a connection that never sends one is closed.
    pub request_header_timeout: Duration,
    /// Connections at a time whose client has shown no good token yet; beyond that the oldest of them is closed.
    pub strangers: usize,
    /// Longest wait for [`crate::Passage::dial`].
    pub dial_timeout: Duration,
    /// How long a connection to the application is kept for the next request. Short, so that it ends before most
    /// servers would end it themselves, and does not keep a one-connection server from hearing its lifecycle hooks.
    pub upstream_idle_timeout: Duration,
    /// How long requests under way may go on after a shutdown began.
    pub shutdown_grace: Duration,
    /// Whether every request that was let in is logged (target `hearth::access`).
    pub access_log: bool,
}

impl GatewayConfig {
    /// The defaults, for endpoints below `domain`.
    pub fn new(domain: &str) -> GatewayConfig {
        GatewayConfig {
            domain: domain.trim_matches('.').to_ascii_lowercase(),
            handshake_timeout: Duration::from_secs(10),
            request_header_timeout: Duration::from_secs(30),
            strangers: 4096,
            dial_timeout: Duration::from_secs(10),
            upstream_idle_timeout: Duration::from_millis(400),
            shutdown_grace: Duration::from_secs(5),
            access_log: true,
        }
    }
}

/// Serves endpoints on all listeners until `shutdown` is cancelled and the requests under way are done, or the grace
/// period is over.
pub async fn serve(
    listeners: Vec<TcpListener>,
    tls: Arc<ServerConfig>,
    config: GatewayConfig,
    microvms: Arc<dyn MicroVms>,
    tokens: Arc<RwLock<Keyring>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let upstreams = Arc::new(Upstreams::new(&config));
    let cut = CancellationToken::new();
    let tasks = TaskTracker::new();
    let gateway = Arc::new(Gateway {
        config,
        microvms,
        tokens,
        upstreams,
        endpoints: EndpointStates::new(metrics),
        tasks,
        cut,
    });
    let server = Arc::new(Server {
        h1: http1(gateway.config.request_header_timeout),
        h2: http2(),
        tls: TlsAcceptor::from(tls),
        strangers: Crowd::new(gateway.config.strangers),
        gateway,
        shutdown,
    });
    for listener in listeners {
        server.listen(listener);
    }
    server.keep_house().await;
    let Gateway {
        tasks,
        cut,
        upstreams,
        config,
        ..
    } = &*server.gateway;
    tasks.close();
    if timeout(config.shutdown_grace, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
    upstreams.close();
}

struct Server {
    h1: auto::Builder<TokioExecutor>,
    h2: auto::Builder<TokioExecutor>,
    tls: TlsAcceptor,
    strangers: Arc<Crowd>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
}

fn http1(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
}

fn http2() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_H2_STREAMS)
        .enable_connect_protocol()
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    builder
}

impl Server {
    /// Accepts on a listener from now on. No `async` function: the code of what one spawns is made in every crate that awaits it.
    fn listen(self: &Arc<Self>, listener: TcpListener) {
        self.gateway.tasks.spawn(self.clone().accept(listener));
    }

    /// Until the shutdown.
    async fn keep_house(&self) {
        loop {
            tokio::select! {
                () = sleep(HOUSEKEEPING) => self.gateway.endpoints.sweep(&*self.gateway.microvms),
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let stranger = self.strangers.enter();
                    let connection = self.clone().connection(stream, address, stranger);
                    self.gateway.tasks.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "gateway cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, stranger: Arc<Member>) {
        let metrics = &self.gateway.endpoints.metrics;
        metrics.clients().inc();
        let crowded_out = stranger.crowded_out();
        let served = tokio::select! {
            served = self.serve(stream, address, stranger) => served,
            () = crowded_out.cancelled() => {
                metrics.refused("crowded_out");
                Ok(())
            }
            () = self.gateway.cut.cancelled() => Ok(()),
        };
        metrics.clients().dec();
        if let Err(error) = served {
            tracing::debug!(error = &*error, "client connection ended");
        }
    }

    async fn serve(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        stranger: Arc<Member>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tune(&stream)?;
        let stream = timeout(self.gateway.config.handshake_timeout, self.tls.accept(stream)).await??;
        let (_, session) = stream.get_ref();
        let client = Arc::new(Client::new(
            address,
            session.server_name().map(str::to_owned),
            stranger,
        ));
        let builder = if session.alpn_protocol() == Some(ALPN_H2) {
            &self.h2
        } else {
            &self.h1
        };

        let asked = Arc::new(AtomicBool::new(false));
        let uploading = Arc::new(AtomicBool::new(false));
        let service = {
            let (gateway, asked, uploading) = (self.gateway.clone(), asked.clone(), uploading.clone());
            service_fn(move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                uploading.store(!request.body().is_end_stream(), Ordering::Relaxed);
                let (gateway, client) = (gateway.clone(), client.clone());
                async move { Ok::<_, Infallible>(gateway.answer(&client, request).await) }
            })
        };
        let mut connection = pin!(
            builder.serve_connection_with_upgrades(TokioIo::new(Lingering::new(stream, uploading)), service)
        );
        let mut first_request = pin!(sleep(self.gateway.config.request_header_timeout));
        let (mut waiting, mut draining) = (true, false);
        loop {
            tokio::select! {
                done = connection.as_mut() => return done,
                () = first_request.as_mut(), if waiting => {
                    if !asked.load(Ordering::Relaxed) {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                    waiting = false;
                }
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3)
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
