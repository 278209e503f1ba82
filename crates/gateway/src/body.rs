use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::exchange::Exchange;
use crate::gate::Passage;
use crate::limits::{Direction, Pace};
use crate::pool::Answer;

/// What goes up to the application.
pub(crate) type RequestBody = Either<Empty<Bytes>, Watched>;
/// What goes down to the client.
pub(crate) type ResponseBody = Either<Full<Bytes>, Either<Watched<Answer>, Produced>>;
/// A streamed body of the platform's own.
pub(crate) type Produced = UnsyncBoxBody<Bytes, io::Error>;

/// A streamed body: every piece counts as activity of its MicroVM, is measured, and waits for its turn.
pub(crate) struct Watched<B = Incoming> {
    inner: B,
    passage: Arc<dyn Passage>,
    exchange: Arc<Exchange>,
    pace: Pace,
}

impl<B> Watched<B> {
    pub(crate) fn new(
        inner: B,
        passage: Arc<dyn Passage>,
        exchange: Arc<Exchange>,
        direction: Direction,
    ) -> Watched<B> {
        let pace = Pace::new(direction, exchange.limits);
        Watched {
            inner,
            passage,
            exchange,
            pace,
        }
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        ready!(self.pace.poll_ready(cx));
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.passage.touch();
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match self.pace.direction() {
                Direction::Up => self.passage.moved(bytes as u64, 0),
                Direction::Down => self.passage.moved(0, bytes as u64),
            }
            let Watched { exchange, pace, .. } = &mut *self;
            exchange.passed(pace.direction(), bytes);
            pace.passed(bytes, &exchange.endpoint.usage);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
