//! The metadata service's HTTP.

use std::{convert::Infallible, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Inner, Lease, Subject,
    credentials::Current,
    token::LIFE_SECONDS,
    tree::{self, Node},
};

/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 16;
/// Connections a second, and how many at once before that counts; more wait to be accepted. A guest that asks without end
/// must not take its neighbours' time.
const RATE: NonZeroU32 = NonZeroU32::new(25).expect("is not zero");
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("is not zero");
/// How long a connection may last: one question and its answer.
const LONGEST: Duration = Duration::from_secs(20);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Pause after a failed accept: descriptors may be free again then.
const BREATHER: Duration = Duration::from_millis(50);

/// The names of headers, EC2's and the generic ones.
const TOKEN: [&str; 2] = ["x-aws-ec2-metadata-token", "x-metadata-token"];
const LIFE: [&str; 2] = [
    "x-aws-ec2-metadata-token-ttl-seconds",
    "x-metadata-token-ttl-seconds",
];
/// How long a lease is to last.
const LEASE: &str = "x-hearth-lease-seconds";
/// The longest lease: as long as a MicroVM may live (spec section 15).
const LONGEST_LEASE_SECONDS: u64 = 28_800;

/// One guest's service.
pub(crate) struct Guest {
    pub(crate) node: Arc<Inner>,
    pub(crate) subject: Subject,
    pub(crate) current: Current,
    /// Where leases count.
    pub(crate) lease: Option<Arc<dyn Lease>>,
}

/// Serves until it is aborted, and its connections with it.
pub(crate) async fn serve(listener: TcpListener, guest: Arc<Guest>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let pace = RateLimiter::direct(Quota::per_second(RATE).allow_burst(BURST));
    loop {
        pace.until_ready().await;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATHER).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let guest = guest.clone();
        connections.spawn(async move {
            let _place = place;
            // A guest that breaks off or dawdles loses its connection, and that is all.
            let _ = timeout(LONGEST, connection(stream, guest)).await;
        });
    }
}

async fn connection(stream: TcpStream, guest: Arc<Guest>) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let guest = guest.clone();
        async move { Ok::<_, Infallible>(guest.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Guest {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path: Vec<&str> = segments(request.uri().path());
        let headers = request.headers();
        if *request.method() == Method::PUT {
            return match path.as_slice() {
                ["latest", "api", "token"] => self.token(headers),
                ["latest", "meta-data", "hearth", "lease"] if self.lease.is_some() => {
                    self.refusal(headers).unwrap_or_else(|| self.take_lease(headers))
                }
                _ => not_found(request.uri().path()),
            };
        }
        if *request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Not allowed HTTP method.".into());
            let allowed = http::HeaderValue::from_static("GET, PUT");
            response.headers_mut().insert(http::header::ALLOW, allowed);
            return response;
        }
        if let Some(refusal) = self.refusal(headers) {
            return refusal;
        }
        match tree::find(&path, &self.subject, &self.node.api, self.lease.as_deref()) {
            Some(Node::Directory(names)) => plain(StatusCode::OK, names.join("\n")),
            Some(Node::Text(text)) => plain(StatusCode::OK, text),
            Some(Node::Credentials(role)) => {
                let issuer = &*self.node.issuer;
                let document = self.current.document(issuer, &role, &self.subject.id).await;
                let mut response = plain(StatusCode::OK, document.to_string());
                let json = http::HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            None => not_found(request.uri().path()),
        }
    }

    /// The answer to a request without a good token of this guest's.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response<Full<Bytes>>> {
        let Some(token) = first(headers, TOKEN) else {
            let text = "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify \
                        the session token.";
            return Some(plain(StatusCode::UNAUTHORIZED, text.into()));
        };
        let is_good = self.node.tokens.is_good(&self.subject.id, token);
        (!is_good).then(|| plain(StatusCode::UNAUTHORIZED, "MMDS token not valid.".into()))
    }

    /// Takes, renews or gives back the lease.
    fn take_lease(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let seconds = headers
            .get(LEASE)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        match (&self.lease, seconds) {
            (Some(lease), Some(seconds)) if seconds <= LONGEST_LEASE_SECONDS => {
                lease.take(Duration::from_secs(seconds));
                plain(StatusCode::OK, seconds.to_string())
            }
            _ => {
                let text = "Invalid header. Reason: `X-hearth-lease-seconds` is needed, 0 to 28800 seconds; 0 gives the \
                            lease back.";
                plain(StatusCode::BAD_REQUEST, text.into())
            }
        }
    }

    /// A new token. One that was asked for through a proxy is refused: the answer would go to somebody else.
    fn token(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if headers.contains_key("x-forwarded-for") {
            return plain(
                StatusCode::FORBIDDEN,
                "Invalid header. Reason: Unsupported header name: X-Forwarded-For.".into(),
            );
        }
        let life = first(headers, LIFE).and_then(|text| text.parse().ok());
        let Some(life) = life.filter(|life| LIFE_SECONDS.contains(life)) else {
            let text = "Invalid header. Reason: a token's TTL is needed in `X-aws-ec2-metadata-token-ttl-seconds`, 1 to \
                        21600 seconds.";
            return plain(StatusCode::BAD_REQUEST, text.into());
        };
        let mut response = plain(StatusCode::OK, self.node.tokens.make(&self.subject.id, life));
        response.headers_mut().insert(LIFE[0], life.into());
        response
    }
}

/// The segments of a path; empty ones, such as after a final slash, count for nothing.
fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn first<'a>(headers: &'a HeaderMap, names: [&str; 2]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| headers.get(*name))
        .and_then(|value| value.to_str().ok())
}

fn not_found(path: &str) -> Response<Full<Bytes>> {
    plain(StatusCode::NOT_FOUND, format!("Resource not found: {path}."))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
