//! The listener for those who run the daemon: metrics, what runs MicroVMs and what they are busy with, in clear, without a
//! key.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hearth_lifecycle::Service;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "text/plain";
/// The text format that Prometheus scrapes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Longest wait for a request on an open connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a failed accept: descriptors may be free again then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is served.
pub(crate) struct Admin {
    pub registry: Registry,
    pub service: Service,
}

/// Serves until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let admin = Arc::new(admin);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (admin, shutdown) = (admin.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = admin.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _closed = connection => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if request.method() != Method::GET {
            return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
        }
        if path == "/metrics" {
            let mut text = String::new();
            return match encode(&mut text, &self.registry) {
                Ok(()) => respond(StatusCode::OK, OPENMETRICS, text),
                Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
            };
        }
        let microvm = path
            .strip_prefix("/microvms/")
            .and_then(|rest| rest.strip_suffix("/activity"));
        let answer = match (path, microvm) {
            ("/vmms", _) => Some(serde_json::to_string(&self.service.vmms())),
            (_, Some(microvm)) => self.service.activity(microvm).map(|a| serde_json::to_string(&a)),
            _ => None,
        };
        match answer {
            Some(Ok(text)) => respond(StatusCode::OK, "application/json", text),
            Some(Err(_)) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
            None => respond(StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
        }
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
