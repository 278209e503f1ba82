//! Traces of requests, sent to an OpenTelemetry collector by OTLP over HTTP when the operator names one.
//!
//! Like a logger, there is one in a process: [`start`] sets it up, and [`Span::begin`] costs next to nothing without it.
//! W3C trace context is continued: a span hangs below the one that the client names, and what is asked further on hangs
//! below ours ([`Span::inject`]). Without a collector nobody's trace context is touched.
#![forbid(unsafe_code)]

mod client;

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use http::{HeaderMap, Request};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider as _},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

/// Where a collector takes traces, below its base URL (OTLP/HTTP).
const TRACES: &str = "/v1/traces";
/// Longest wait for what is still to be sent at the end.
const LAST_WORDS: Duration = Duration::from_secs(3);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The collector's URL or a header is of no use.
    #[error("traces cannot be sent to {0}: {1}")]
    Exporter(String, String),
    /// Certificates for HTTPS cannot be read.
    #[error("no certificate authorities for the collector: {0}")]
    Roots(std::io::Error),
}

/// Keeps traces going to the collector.
#[derive(Debug)]
pub struct Telemetry(SdkTracerProvider);

/// Sends the spans of this process to the collector at a base URL such as `http://127.0.0.1:4318`, with these headers.
/// Called within the runtime that carries the requests; what a slow collector does not take is dropped.
pub fn start(endpoint: &str, headers: HashMap<String, String>) -> Result<Telemetry, TelemetryError> {
    let wrong = |error: &dyn std::fmt::Display| TelemetryError::Exporter(endpoint.into(), error.to_string());
    let url = format!("{}{TRACES}", endpoint.trim_end_matches('/'));
    let uri: http::Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| wrong(&error))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(wrong(&"it is no URL such as http://127.0.0.1:4318"));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_headers(headers)
        .with_http_client(client::Client::new(uri.scheme_str() == Some("https"))?)
        .build()
        .map_err(|error| wrong(&error))?;
    let resource = Resource::builder()
        .with_service_name("hearthd")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let _first_one_stays = TRACER.set(provider.tracer("hearth"));
    Ok(Telemetry(provider))
}

impl Telemetry {
    /// Sends what is left, but waits for a moment only.
    pub async fn stop(self) {
        let provider = self.0;
        let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_WORDS));
        let _too_late = tokio::time::timeout(LAST_WORDS * 2, last).await;
    }
}

/// A request that this process serves; it ends when this is dropped.
#[derive(Debug)]
pub struct Span(Mutex<opentelemetry_sdk::trace::Span>);

impl Span {
    /// Begins, as a child of what the request's trace context names. `None` where nothing is sent.
    pub fn begin<B>(name: &'static str, request: &Request<B>) -> Option<Span> {
        let tracer = TRACER.get()?;
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
        // Without the query, which may hold what is nobody's to read.
        let attributes = [
            KeyValue::new("http.request.method", request.method().to_string()),
            KeyValue::new("url.path", request.uri().path().to_owned()),
        ];
        let span = tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
            .start_with_context(tracer, &parent);
        Some(Span(Mutex::new(span)))
    }

    /// Names it after the service and the operation that it turned out to ask for.
    pub fn asks_for(&self, service: &'static str, operation: &str) {
        self.with(|span| {
            span.update_name(operation.to_owned());
            span.set_attribute(KeyValue::new("rpc.service", service));
            span.set_attribute(KeyValue::new("rpc.method", operation.to_owned()));
        });
    }

    /// Says something about it.
    pub fn tell(&self, name: &'static str, value: impl Into<opentelemetry::Value>) {
        self.with(|span| span.set_attribute(KeyValue::new(name, value)));
    }

    /// The status it was answered with.
    pub fn answered(&self, status: u16) {
        self.with(|span| {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            if status >= 500 {
                span.set_status(Status::error(""));
            }
        });
    }

    /// Names it in the trace context of a request that is sent on.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let context = self.with(|span| span.span_context().clone());
        let context = Context::new().with_remote_span_context(context);
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }

    fn with<T>(&self, act: impl FnOnce(&mut opentelemetry_sdk::trace::Span) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
