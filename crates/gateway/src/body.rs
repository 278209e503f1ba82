use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::gate::Passage;

/// What goes up to the application.
pub(crate) type RequestBody = Either<Empty<Bytes>, Watched>;
/// What goes down to the client.
pub(crate) type ResponseBody = Either<Full<Bytes>, Either<Watched, Produced>>;
/// A streamed body of the platform's own.
pub(crate) type Produced = UnsyncBoxBody<Bytes, io::Error>;

/// A streamed body, every piece of which counts as activity of its MicroVM.
pub(crate) struct Watched {
    inner: Incoming,
    passage: Arc<dyn Passage>,
    to_application: bool,
}

impl Watched {
    /// A request's body.
    pub(crate) fn up(inner: Incoming, passage: Arc<dyn Passage>) -> Watched {
        Watched {
            inner,
            passage,
            to_application: true,
        }
    }

    /// A response's body.
    pub(crate) fn down(inner: Incoming, passage: Arc<dyn Passage>) -> Watched {
        Watched {
            inner,
            passage,
            to_application: false,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.passage.touch();
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.to_application {
                true => self.passage.moved(bytes, 0),
                false => self.passage.moved(0, bytes),
            }
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
