//! Requests to the application.

use http::header;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;

use crate::body::RequestBody;
use crate::headers;
use crate::upstream::{Machine, h1_authority};

/// Sends a request and waits for the response's headers.
pub(crate) async fn send(
    machine: &Machine,
    mut request: Request<RequestBody>,
    port: u16,
    h2: bool,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    if h2 {
        let authority = request
            .headers()
            .get(header::HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok());
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = upstream_uri(request.uri(), authority);
        return machine.h2(port).request(request).await;
    }
    let authority = Authority::try_from(h1_authority(port)).ok();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = upstream_uri(request.uri(), authority);
    headers::suit_http1(request.headers_mut());
    if matches!(request.body(), Either::Right(_)) && !request.headers().contains_key(header::CONTENT_LENGTH) {
        // Said aloud, because a body of unknown length is otherwise not expected of a GET.
        request
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // The application may close an idle connection just as the request goes out. What was never sent is sent again
    // by the client itself; beyond that only a safe request without a body is repeated.
    let repeat =
        (request.method().is_safe() && matches!(request.body(), Either::Left(_))).then(|| copy(&request));
    match machine.h1().request(request).await {
        Err(error) if !error.is_connect() && !machine.ended().is_cancelled() => match repeat {
            Some(repeat) => machine.h1().request(repeat).await,
            None => Err(error),
        },
        result => result,
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
