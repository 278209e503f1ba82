use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::limits::{Direction, Pace};
use crate::meter::Meter;
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
    meter: Meter,
    pace: Pace,
}

impl<B> Watched<B> {
    pub(crate) fn new(inner: B, meter: Meter, direction: Direction) -> Watched<B> {
        let pace = Pace::new(direction, meter.exchange.limits);
        Watched { inner, meter, pace }
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
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Watched { meter, pace, .. } = &mut *self;
            meter.passed(pace.direction(), bytes);
            pace.passed(bytes, &meter.exchange.endpoint.usage);
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
