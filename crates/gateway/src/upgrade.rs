//! Connections that stop being HTTP: WebSocket and whatever else an application upgrades to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};

use crate::headers::lists;
use crate::limits::{Direction, Pace};
use crate::meter::Meter;

/// What a raw connection holds in each direction.
const BUFFER_BYTES: usize = 32 * 1024;
const WEBSOCKET: &str = "websocket";

/// A client's wish to speak something else.
pub(crate) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// Takes a WebSocket's wish from an HTTP/2 stream (RFC 8441), and makes of its request what HTTP/1.1 asks for.
    pub(crate) fn take_extended<B>(request: &mut Request<B>) -> Option<Upgrade> {
        let protocol = request.extensions_mut().remove::<Protocol>()?;
        if request.method() != Method::CONNECT || protocol.as_str() != WEBSOCKET {
            return None;
        }
        let client = hyper::upgrade::on(&mut *request);
        *request.method_mut() = Method::GET;
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let key = HeaderValue::try_from(key).ok()?;
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
        Some(Upgrade {
            protocol: HeaderValue::from_static(WEBSOCKET),
            client,
        })
    }

    /// What the answer to [`Upgrade::take_extended`] looks like on an HTTP/2 stream.
    pub(crate) fn answer_extended<B>(response: &mut Response<B>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            *response.status_mut() = StatusCode::OK;
            for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
                response.headers_mut().remove(name);
            }
        } else if response.status().is_success() {
            // The application has not upgraded, and its success must not look as if it had.
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
    }

    /// Takes the wish from a request. HTTP/2 over cleartext is not one to grant: it would carry requests past the
    /// proxy's checks.
    pub(crate) fn take<B>(request: &mut Request<B>) -> Option<Upgrade> {
        let protocol = request.headers().get(UPGRADE)?.clone();
        let wanted = request.version() == Version::HTTP_11
            && lists(request.headers(), CONNECTION, "upgrade")
            && !lists(request.headers(), UPGRADE, "h2c");
        wanted.then(|| Upgrade {
            protocol,
            client: hyper::upgrade::on(request),
        })
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol
            .as_bytes()
            .eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    }

    /// Adds to the application's request what hop-by-hop stripping took out.
    pub(crate) fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// The client's connection, once the 101 has been sent.
    pub(crate) fn into_client(self) -> OnUpgrade {
        self.client
    }

    /// Carries bytes both ways until both sides are done; a WebSocket as soon as one is.
    pub(crate) async fn tunnel(self, application: OnUpgrade, meter: Meter) -> io::Result<()> {
        let websocket = self.is_websocket();
        let (client, application) = tokio::try_join!(self.client, application).map_err(io::Error::other)?;
        tunnel(client, TokioIo::new(application), meter, websocket).await
    }
}

/// Carries bytes both ways until both sides are done or, where one side's end is the end, as soon as one is.
pub(crate) async fn tunnel<A: AsyncRead + AsyncWrite + Unpin>(
    client: Upgraded,
    application: A,
    meter: Meter,
    ends_together: bool,
) -> io::Result<()> {
    let mut client = TokioIo::new(client);
    let mut application = Measured::new(application, meter);
    if !ends_together {
        return copy_bidirectional_with_sizes(&mut client, &mut application, BUFFER_BYTES, BUFFER_BYTES)
            .await
            .map(drop);
    }
    // A WebSocket peer closes its TCP side only after the closing handshake: then nothing more will be said, and an
    // application that does not notice must not hold the connection open.
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_application, mut to_application) = tokio::io::split(application);
    tokio::select! {
        done = tokio::io::copy(&mut from_client, &mut to_application) => {
            done?;
            to_application.shutdown().await
        }
        done = tokio::io::copy(&mut from_application, &mut to_client) => {
            done?;
            to_client.shutdown().await
        }
    }
}

/// A connection to the application: every byte is activity, is measured, and waits for its turn.
struct Measured<A> {
    inner: A,
    meter: Meter,
    up: Pace,
    down: Pace,
}

impl<A> Measured<A> {
    fn new(inner: A, meter: Meter) -> Measured<A> {
        let limits = meter.exchange.limits;
        Measured {
            inner,
            meter,
            up: Pace::new(Direction::Up, limits),
            down: Pace::new(Direction::Down, limits),
        }
    }
}

impl<A: AsyncRead + Unpin> AsyncRead for Measured<A> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.down.poll_ready(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            let Measured { meter, down, .. } = &mut *self;
            meter.down(read);
            down.passed(read, &meter.exchange.endpoint.usage);
        }
        Poll::Ready(Ok(()))
    }
}

impl<A: AsyncWrite + Unpin> AsyncWrite for Measured<A> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.up.poll_ready(cx));
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        let Measured { meter, up, .. } = &mut *self;
        meter.up(written);
        up.passed(written, &meter.exchange.endpoint.usage);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
