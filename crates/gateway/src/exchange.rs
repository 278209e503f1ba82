//! One request from its header to the last byte of its response, for the access log and the measurements.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hearth_telemetry::Span;
use http::{Method, Request, Uri, Version};
use uuid::Uuid;

use crate::client::Client;
use crate::endpoint::EndpointState;
use crate::gate::{Attached, Attachment, Passage};
use crate::limits::{Direction, Limits};

/// A request that was let in. Whoever carries its bytes holds it; the last to drop it ends it.
pub(crate) struct Exchange {
    pub(crate) id: Uuid,
    pub(crate) endpoint: Arc<EndpointState>,
    pub(crate) limits: Limits,
    pub(crate) port: u16,
    pub(crate) client: Arc<Client>,
    method: Method,
    uri: Uri,
    version: Version,
    began: Instant,
    held_us: AtomicU64,
    /// 0 while there is no response.
    status: AtomicU16,
    latency_us: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    attached: OnceLock<Attached>,
    logged: bool,
    /// Where traces are sent.
    pub(crate) trace: Option<Span>,
}

impl Exchange {
    pub(crate) fn begin<B>(
        id: Uuid,
        request: &Request<B>,
        endpoint: Arc<EndpointState>,
        (limits, port): (Limits, u16),
        client: &Arc<Client>,
        logged: bool,
    ) -> Exchange {
        Exchange {
            id,
            endpoint,
            limits,
            port,
            client: client.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            began: Instant::now(),
            held_us: AtomicU64::new(0),
            status: AtomicU16::new(0),
            latency_us: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            attached: OnceLock::new(),
            logged,
            trace: Span::begin("endpoint", request),
        }
    }

    /// How long it waited at the gate.
    pub(crate) fn held(&self, time: std::time::Duration) {
        self.held_us.store(microseconds(time), Ordering::Relaxed);
    }

    /// Whether the gate was shut when it came.
    pub(crate) fn was_held(&self) -> bool {
        self.held_us.load(Ordering::Relaxed) > 0
    }

    /// The response's header is known.
    pub(crate) fn answered(&self, status: u16) {
        let latency = self.began.elapsed();
        self.status.store(status, Ordering::Relaxed);
        self.latency_us.store(microseconds(latency), Ordering::Relaxed);
        self.endpoint.series.answered(status);
        self.endpoint.series.latency.observe(latency.as_secs_f64());
    }

    /// The way to the application stays open until this exchange ends.
    pub(crate) fn attach(&self, passage: &Arc<dyn Passage>, what: Attachment) {
        self.attached
            .get_or_init(|| Attached::begin(passage.clone(), what));
    }

    /// Bytes have passed.
    pub(crate) fn passed(&self, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        match direction {
            Direction::Up => self.up.fetch_add(bytes, Ordering::Relaxed),
            Direction::Down => self.down.fetch_add(bytes, Ordering::Relaxed),
        };
        self.endpoint.series.passed(direction, bytes);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(trace) = &self.trace {
            let number = |value: &AtomicU64| i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            trace.answered(self.status.load(Ordering::Relaxed));
            trace.tell("hearth.request_id", self.id.to_string());
            trace.tell("hearth.microvm_id", self.endpoint.microvm_id.to_string());
            trace.tell("hearth.port", i64::from(self.port));
            trace.tell("hearth.held_us", number(&self.held_us));
            trace.tell("hearth.bytes_in", number(&self.up));
            trace.tell("hearth.bytes_out", number(&self.down));
        }
        if !self.logged {
            return;
        }
        // Without the query, which may hold what is nobody's to read.
        tracing::info!(
            target: "hearth::access",
            request = %self.id,
            client = %self.client.address,
            microvm = self.endpoint.microvm_id,
            port = self.port,
            method = %self.method,
            path = self.uri.path(),
            version = ?self.version,
            status = self.status.load(Ordering::Relaxed),
            held_us = self.held_us.load(Ordering::Relaxed),
            latency_us = self.latency_us.load(Ordering::Relaxed),
            total_us = microseconds(self.began.elapsed()),
            bytes_in = self.up.load(Ordering::Relaxed),
            bytes_out = self.down.load(Ordering::Relaxed),
        );
    }
}

fn microseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
