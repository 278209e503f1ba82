//! A close that does not cost the client its answer.
//!
//! A request may be answered before its body has come. Closed at once, with bytes of that body unread, TCP resets the
//! connection, and a client that is still writing may never see the answer. So the end of the answer is said first, and
//! what comes after is read and dropped until the client ends it, too, or [`LONGEST`] is over. A connection that became
//! a tunnel carries no body: what comes on it after its end was said is the other side's to read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// How long a client may take to see that it was answered.
const LONGEST: Duration = Duration::from_secs(5);

/// A client's connection.
pub(crate) struct Lingering {
    stream: TlsStream<TcpStream>,
    /// Whether the latest request has a body.
    uploading: Arc<AtomicBool>,
    /// Since the end of the answer was said.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(crate) fn new(stream: TlsStream<TcpStream>, uploading: Arc<AtomicBool>) -> Lingering {
        Lingering {
            stream,
            uploading,
            waiting: None,
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Lingering {
            stream,
            uploading,
            waiting,
        } = &mut *self;
        if waiting.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        if !uploading.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let over = waiting.get_or_insert_with(|| Box::pin(sleep(LONGEST)));
        let mut dropped = [0; 16 * 1024];
        while over.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut dropped);
            let read = Pin::new(&mut *stream.get_mut().0).poll_read(context, &mut buffer);
            if ready!(read).is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
