//! The listener: TLS, HTTP/1.1 and HTTP/2, every wait bounded.

use std::{
    future::Future,
    io::{self, Cursor},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hearth_crowd::{Crowd, Member, Visit};
use http_body_util::BodyExt;
use hyper::{
    body::Frame,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, join, split},
    net::{TcpListener, TcpStream},
    pin, select,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use crate::{Services, router::Router};

/// Limits of the listener.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Largest body of a call other than S3.
    pub max_body_bytes: usize,
    /// Connections at one time; further ones wait.
    pub max_connections: usize,
    /// Of these, those without a call in flight whose signature was good; beyond that the oldest of them is closed.
    pub max_idle: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request's head may take; also how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long the body of a call other than S3 may take.
    pub body_timeout: Duration,
    /// How long calls in flight may take after the shutdown began.
    pub shutdown_timeout: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_connections: 1024,
            max_idle: 512,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

const HTTP2: &[u8] = b"h2";
const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2_PREFACE_BYTES: usize = 24;
/// HTTP/2 peers that do not answer a ping this long after the last one are gone.
const PING: Duration = Duration::from_secs(30);
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Pause after a failed accept: the usual cause is that no descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `services` on `listener` until `shutdown` is done and the calls in flight have ended.
///
/// `tls` says which certificate to show; the protocols are h2 and HTTP/1.1 unless it names its own.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    config: ApiConfig,
    services: Services,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(with_protocols(tls));
    let places = Arc::new(Semaphore::new(config.max_connections));
    let idle = Crowd::new(config.max_idle);
    let graceful = GracefulShutdown::new();
    let router = Arc::new(Router {
        config: config.clone(),
        services,
    });
    pin!(shutdown);
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await.expect("nobody closes it");
            (place, listener.accept().await)
        };
        let (place, stream) = select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        match stream {
            Ok((stream, peer)) => {
                take_on(
                    Calls::new(place, idle.enter()),
                    stream,
                    peer,
                    acceptor.clone(),
                    router.clone(),
                    graceful.watcher(),
                );
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(config.shutdown_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("calls were still in flight at the end of the shutdown");
    }
}

/// Serves a connection in the background. No `async` function: the code of what one spawns is made in every crate that awaits it.
fn take_on(
    calls: Calls,
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Arc<Router>,
    watcher: Watcher,
) {
    let crowded_out = calls.member.crowded_out();
    tokio::spawn(async move {
        select! {
            () = serve_connection(stream, peer, acceptor, router, watcher, calls) => {}
            () = crowded_out.cancelled() => debug!("a connection without a call made way for another"),
        }
    });
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Arc<Router>,
    watcher: Watcher,
    calls: Calls,
) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(router.config.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
        Err(_) => return debug!("a TLS handshake took too long"),
    };
    let header_timeout = router.config.header_timeout;
    let running = calls.running.subscribe();
    // A call is carried out to its end, also when its client goes away: what it writes down and what is done must agree.
    let service = service_fn(move |mut request| {
        let (router, call) = (router.clone(), calls.begin());
        request.extensions_mut().insert(call.visit.clone());
        tokio::spawn(async move {
            let answer = router.answer(request, peer).await;
            answer.map(|body| {
                let until_the_last_frame = move |_: &Frame<Bytes>| {
                    let _call = &call;
                };
                body.inspect_frame(until_the_last_frame).boxed_unsync()
            })
        })
    });
    let outcome = if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
        let Ok(Ok(stream)) = timeout(header_timeout, after_preface(stream)).await else {
            return debug!("an HTTP/2 connection did not begin");
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(stream), service);
        select! {
            outcome = watcher.watch(connection) => outcome,
            () = idle(running, header_timeout) => return debug!("an HTTP/2 connection was idle"),
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        watcher.watch(connection).await
    };
    if let Err(error) = outcome {
        debug!(%error, "a connection ended early");
    }
}

/// The calls in flight of one connection, and its place, which each of them keeps.
#[derive(Clone)]
struct Calls {
    running: watch::Sender<usize>,
    member: Arc<Member>,
    _place: Arc<OwnedSemaphorePermit>,
}

/// A call, from its request to the last frame of its answer.
struct Running {
    calls: Calls,
    visit: Arc<Visit>,
}

impl Calls {
    fn new(place: OwnedSemaphorePermit, member: Arc<Member>) -> Calls {
        Calls {
            running: watch::Sender::new(0),
            member,
            _place: Arc::new(place),
        }
    }

    fn begin(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running {
            calls: self.clone(),
            visit: Visit::new(self.member.clone()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.running.send_modify(|running| *running -= 1);
    }
}

/// Waits until a connection has had no call for so long.
async fn idle(mut calls: watch::Receiver<usize>, longest: Duration) {
    while calls.wait_for(|running| *running == 0).await.is_ok() {
        if timeout(longest, calls.changed()).await.is_err() {
            return;
        }
    }
}

/// Waits for the bytes with which every HTTP/2 connection begins and gives the stream with them in place again: hyper
/// pings a silent peer only once it has them.
async fn after_preface(stream: TlsStream<TcpStream>) -> io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let (mut read, write) = split(stream);
    let mut preface = [0; HTTP2_PREFACE_BYTES];
    read.read_exact(&mut preface).await?;
    Ok(join(Cursor::new(preface).chain(read), write))
}

fn with_protocols(tls: Arc<rustls::ServerConfig>) -> Arc<rustls::ServerConfig> {
    if !tls.alpn_protocols.is_empty() {
        return tls;
    }
    let mut tls = (*tls).clone();
    tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Arc::new(tls)
}
