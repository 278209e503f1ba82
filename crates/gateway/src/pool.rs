//! HTTP/1.1 connections into one MicroVM. Each is driven by whoever uses it: a request without a body and its answer need
//! no task of their own, so no other thread is woken on their way. A connection that has to read and write at once, for
//! a request's body or an upgrade, gets a task and keeps it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::link::Link;

/// As many as the largest size has client connections: fewer would be dialled anew for every request of a busy client.
const MAX_IDLE_PER_PORT: usize = 128;

/// The idle connections into one MicroVM.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    timeout: Duration,
    /// Cancelled when connections into this MicroVM are dead.
    ended: CancellationToken,
}

#[derive(Default)]
struct Idle {
    /// By port, the one that was used last at the end.
    lines: HashMap<u16, Vec<(Line, Instant)>>,
    /// Whether a task looks for what has been idle for too long.
    watched: bool,
}

/// One connection.
pub(crate) struct Line {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    port: u16,
    pool: Arc<Pool>,
}

enum Driver {
    User(Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>),
    Task,
    /// The connection has ended.
    None,
}

impl Pool {
    pub(crate) fn new(timeout: Duration, ended: CancellationToken) -> Arc<Pool> {
        Arc::new(Pool {
            idle: Mutex::default(),
            timeout,
            ended,
        })
    }

    /// A connection that was used before and seems to be open still.
    pub(crate) fn take(&self, port: u16) -> Option<Line> {
        loop {
            let (mut line, since) = self.lock().lines.get_mut(&port)?.pop()?;
            if since.elapsed() < self.timeout && line.settle() {
                return Some(line);
            }
        }
    }

    /// Makes a connection of what was dialled.
    pub(crate) async fn open(self: &Arc<Self>, port: u16, link: Link) -> hyper::Result<Line> {
        let (sender, connection) = http1::handshake(TokioIo::new(link)).await?;
        Ok(Line {
            sender,
            driver: Driver::User(Box::pin(connection.with_upgrades())),
            port,
            pool: self.clone(),
        })
    }

    fn put(self: Arc<Self>, line: Line) {
        let mut idle = self.lock();
        let lines = idle.lines.entry(line.port).or_default();
        if lines.len() < MAX_IDLE_PER_PORT {
            lines.push((line, Instant::now()));
        }
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(self.clone().watch());
        }
    }

    /// Closes what is idle for too long, until nothing is idle.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = sleep(self.timeout) => {}
                () = self.ended.cancelled() => {}
            }
            let mut idle = self.lock();
            let ended = self.ended.is_cancelled();
            idle.lines.retain(|_, lines| {
                lines.retain(|(_, since)| !ended && since.elapsed() < self.timeout);
                !lines.is_empty()
            });
            if idle.lines.is_empty() {
                idle.watched = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Sends a request and waits for the response's header. What was not sent comes back with the error.
    pub(crate) async fn send(mut self, request: Request<RequestBody>) -> Result<Response<Answer>, Unsent> {
        if !request.body().is_end_stream() || request.headers().contains_key(header::UPGRADE) {
            self.settle_in_task();
        }
        let mut sent = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Pending => {
                self.driver.poll(cx);
                sent.as_mut().poll(cx)
            }
            ready => ready,
        })
        .await
        .map_err(|mut error| Unsent {
            request: error.take_message(),
            error: error.into_error(),
        })?;
        Ok(response.map(|body| Answer {
            body,
            line: Some(self),
        }))
    }

    /// Gives the connection a task, for as long as it lives.
    fn settle_in_task(&mut self) {
        if let Driver::User(driver) = std::mem::replace(&mut self.driver, Driver::Task) {
            tokio::spawn(driver);
        }
    }

    /// Does what can be done at once; whether the connection takes another request.
    fn settle(&mut self) -> bool {
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }

    /// The response has been read to its end.
    fn release(mut self) {
        let pool = self.pool.clone();
        if self.settle() {
            pool.put(self);
        } else if matches!(self.driver, Driver::Task) {
            // Its task has still to notice.
            tokio::spawn(async move {
                if self.sender.ready().await.is_ok() {
                    pool.put(self);
                }
            });
        }
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Driver::User(driver) = self
            && driver.as_mut().poll(cx).is_ready()
        {
            // What went wrong, the request is told.
            *self = Driver::None;
        }
    }
}

/// A request that got no answer.
pub(crate) struct Unsent {
    /// The request, if nothing of it was sent.
    pub(crate) request: Option<Request<RequestBody>>,
    pub(crate) error: hyper::Error,
}

/// A response's body, and the connection that brings it.
pub(crate) struct Answer {
    body: Incoming,
    line: Option<Line>,
}

impl From<Incoming> for Answer {
    /// A body whose connection is driven elsewhere.
    fn from(body: Incoming) -> Answer {
        Answer { body, line: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(line) = &mut this.line
        {
            line.driver.poll(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        if matches!(polled, Poll::Ready(None))
            && let Some(line) = this.line.take()
        {
            line.release();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.body.is_end_stream()
            && let Some(line) = self.line.take()
        {
            line.release();
        }
    }
}
