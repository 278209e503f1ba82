//! The S3 front end: the protocol by `s3s`, the store by [`hearth_storage::objects`].
//!
//! Path-style requests, signed with SigV4 (headers, chunks or a presigned URL) for any region. Every
//! request acts for the account its key belongs to; buckets of other accounts answer `AccessDenied`.

#![forbid(unsafe_code)]

mod attributes;
mod auth;
mod bucket;
mod checksum;
mod conditions;
mod error;
mod front;
mod list;
mod multipart;
mod object;

use std::sync::Arc;

use auth::{Noted, RequestId};
use hearth_storage::objects::Objects;
use hearth_wire::Guard;
use http::{HeaderValue, Request, Response};
use s3s::{Body, service::S3ServiceBuilder};

pub use auth::SecretKeys;

/// The S3 service; clones share it.
#[derive(Clone)]
pub struct S3 {
    guard: Arc<dyn Guard>,
    inner: s3s::service::S3Service,
}

impl S3 {
    /// Serves `objects` to whoever signs with a key that `keys` knows, as far as `guard` admits.
    pub fn new(objects: Objects, keys: Arc<dyn SecretKeys>, guard: Arc<dyn Guard>) -> Self {
        let mut builder = S3ServiceBuilder::new(front::Front { objects });
        builder.set_auth(auth::Auth {
            keys: Arc::clone(&keys),
        });
        builder.set_access(auth::Access {
            keys,
            guard: Arc::clone(&guard),
        });
        Self {
            guard,
            inner: builder.build(),
        }
    }

    /// Answers one request. Every failure is an S3 error document. The peer's `SocketAddr` is looked for among the
    /// request's extensions.
    pub async fn call(&self, mut request: Request<hyper::body::Incoming>) -> Response<Body> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let noted = Noted::default();
        request.extensions_mut().insert(noted.clone());
        request.extensions_mut().insert(RequestId(id.clone()));
        let mut response = match self.inner.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(error) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                tracing::error!(%error, "an S3 request failed outside the protocol");
                internal_error()
            }
        };
        if let Some(call) = noted.0.get() {
            let status = response.status();
            let error = (!status.is_success()).then(|| status.canonical_reason().unwrap_or("Error"));
            self.guard.ended(call, status.as_u16(), error).await;
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response
    }
}

fn internal_error() -> Response<Body> {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InternalError</Code>\
                <Message>We encountered an internal error. Please try again.</Message></Error>";
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    response
}
