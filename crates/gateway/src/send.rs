//! Requests to the application.

use http::header;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{Either, Empty};

use crate::body::RequestBody;
use crate::headers;
use crate::pool::Answer;
use crate::upstream::Machine;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing listens there, or not in time.
    #[error("cannot connect to the application")]
    Connect(#[from] std::io::Error),
    /// It broke off, or what it said is not HTTP/1.1.
    #[error("no answer by HTTP/1.1")]
    Http1(#[from] hyper::Error),
    /// The same for HTTP/2.
    #[error("no answer by HTTP/2")]
    Http2(#[from] hyper_util::client::legacy::Error),
}

/// Sends a request and waits for the response's header.
pub(crate) async fn send(
    machine: &Machine,
    mut request: Request<RequestBody>,
    port: u16,
    h2: bool,
) -> Result<Response<Answer>, SendError> {
    if h2 {
        let authority = request
            .headers()
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = upstream_uri(request.uri(), authority);
        let response = machine.h2(port).request(request).await?;
        return Ok(response.map(Answer::from));
    }
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = upstream_uri(request.uri(), None);
    headers::suit_http1(request.headers_mut());
    if matches!(request.body(), Either::Right(_)) && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Said aloud, because a body of unknown length is otherwise not expected of a GET.
        request
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let (line, used) = machine.h1(port).await?;
    if !used {
        return line.send(request).await.map_err(|unsent| unsent.error.into());
    }
    // The application may have closed an idle connection just as the request goes out. What was never sent is sent
    // again; beyond that only a safe request without a body is repeated.
    let safe = request.method().is_safe() && matches!(request.body(), Either::Left(_));
    let repeat = safe.then(|| copy(&request));
    match line.send(request).await {
        Ok(response) => Ok(response),
        Err(unsent) => match unsent.request.or(repeat) {
            Some(request) if !machine.ended().is_cancelled() => {
                let line = machine.new_h1(port).await?;
                line.send(request).await.map_err(|unsent| unsent.error.into())
            }
            _ => Err(unsent.error.into()),
        },
    }
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(Either::Left(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn upstream_uri(from: &Uri, authority: Option<Authority>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = authority.is_some().then_some(Scheme::HTTP);
    parts.authority = authority;
    parts.path_and_query = Some(
        from.path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
    );
    Uri::from_parts(parts).unwrap_or_default()
}
