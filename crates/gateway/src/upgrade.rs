//! Connections that stop being HTTP: WebSocket and whatever else an application upgrades to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::gate::Passage;
use crate::headers::lists;

/// A client's wish to speak something else.
pub(crate) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
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
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
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
    pub(crate) async fn tunnel(self, application: OnUpgrade, passage: Arc<dyn Passage>) -> io::Result<()> {
        let websocket = self.is_websocket();
        let (client, application) = tokio::try_join!(self.client, application).map_err(io::Error::other)?;
        let mut client = TokioIo::new(client);
        let mut application = Touching {
            inner: TokioIo::new(application),
            passage,
        };
        if !websocket {
            return tokio::io::copy_bidirectional(&mut client, &mut application)
                .await
                .map(drop);
        }
        // A WebSocket peer closes its TCP side only after the closing handshake: then nothing more will be said, and
        // an application that does not notice must not hold the connection open.
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
}

/// Counts every byte to or from the application as activity.
struct Touching {
    inner: TokioIo<Upgraded>,
    passage: Arc<dyn Passage>,
}

impl AsyncRead for Touching {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            self.passage.touch();
            self.passage.moved(0, read as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Touching {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.passage.touch();
        self.passage.moved(written as u64, 0);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
