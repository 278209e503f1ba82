//! What the gateway measures, in Prometheus' form. Every MicroVM has series of its own, which end with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::limits::Direction;

/// Upper bounds, in seconds: from an answer out of memory to a slow computation.
const LATENCY_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Classes of status codes: `1xx` to `5xx`.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMicrovm {
    microvm: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    microvm: Arc<str>,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    microvm: Arc<str>,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// All series of the gateway. Cheap to clone; clones are the same series.
#[derive(Clone, Default)]
pub struct Metrics {
    families: Arc<Families>,
}

struct Families {
    requests: Family<ByStatus, Counter>,
    latency: Family<OfMicrovm, Histogram, fn() -> Histogram>,
    bytes: Family<ByDirection, Counter>,
    held: Family<OfMicrovm, Counter>,
    holding: Family<OfMicrovm, Gauge>,
    hold: Family<OfMicrovm, Histogram, fn() -> Histogram>,
    wakes: Family<OfMicrovm, Counter>,
    limited: Family<OfMicrovm, Counter>,
    connections: Family<OfMicrovm, Gauge>,
    refused: Family<ByReason, Counter>,
    clients: Gauge,
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_SECONDS)
}

impl Default for Families {
    fn default() -> Families {
        Families {
            requests: Family::default(),
            latency: Family::new_with_constructor(latency),
            bytes: Family::default(),
            held: Family::default(),
            holding: Family::default(),
            hold: Family::new_with_constructor(latency),
            wakes: Family::default(),
            limited: Family::default(),
            connections: Family::default(),
            refused: Family::default(),
            clients: Gauge::default(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Shows the series in a registry, under names that begin with `hearth_endpoint`.
    pub fn register(&self, registry: &mut Registry) {
        let families = &*self.families;
        let endpoint = registry.sub_registry_with_prefix("hearth_endpoint");
        endpoint.register(
            "requests",
            "Requests that were let in, by class of the status",
            families.requests.clone(),
        );
        endpoint.register(
            "latency_seconds",
            "From a request's header to the response's",
            families.latency.clone(),
        );
        endpoint.register(
            "bytes",
            "Bytes of bodies and upgraded connections",
            families.bytes.clone(),
        );
        endpoint.register(
            "held_requests",
            "Requests that waited at the gate",
            families.held.clone(),
        );
        endpoint.register(
            "holding_requests",
            "Requests that wait at the gate now",
            families.holding.clone(),
        );
        endpoint.register(
            "hold_seconds",
            "How long requests waited at the gate",
            families.hold.clone(),
        );
        endpoint.register(
            "wakes",
            "Resumes that a request brought about",
            families.wakes.clone(),
        );
        endpoint.register(
            "limited",
            "Requests answered 429 for a limit of the size",
            families.limited.clone(),
        );
        endpoint.register(
            "connections",
            "Client connections now",
            families.connections.clone(),
        );
        endpoint.register(
            "refused",
            "Requests refused before the gate, by reason",
            families.refused.clone(),
        );
        endpoint.register("clients", "TLS connections now", families.clients.clone());
    }

    pub(crate) fn clients(&self) -> &Gauge {
        &self.families.clients
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.families.refused.get_or_create(&ByReason { reason }).inc();
    }

    pub(crate) fn series(&self, microvm_id: &str) -> Series {
        let families = &*self.families;
        let of = OfMicrovm {
            microvm: microvm_id.into(),
        };
        let bytes = |direction| {
            let microvm = of.microvm.clone();
            families
                .bytes
                .get_or_create(&ByDirection { microvm, direction })
                .clone()
        };
        Series {
            requests: CLASSES.map(|status| {
                let microvm = of.microvm.clone();
                families
                    .requests
                    .get_or_create(&ByStatus { microvm, status })
                    .clone()
            }),
            latency: families.latency.get_or_create(&of).clone(),
            up: bytes("in"),
            down: bytes("out"),
            held: families.held.get_or_create(&of).clone(),
            holding: families.holding.get_or_create(&of).clone(),
            hold: families.hold.get_or_create(&of).clone(),
            wakes: families.wakes.get_or_create(&of).clone(),
            limited: families.limited.get_or_create(&of).clone(),
            connections: families.connections.get_or_create(&of).clone(),
        }
    }

    /// Ends the series of a MicroVM that is gone.
    pub(crate) fn forget(&self, microvm_id: &str) {
        let families = &*self.families;
        let of = OfMicrovm {
            microvm: microvm_id.into(),
        };
        for status in CLASSES {
            let microvm = of.microvm.clone();
            families.requests.remove(&ByStatus { microvm, status });
        }
        for direction in ["in", "out"] {
            let microvm = of.microvm.clone();
            families.bytes.remove(&ByDirection { microvm, direction });
        }
        families.latency.remove(&of);
        families.hold.remove(&of);
        families.held.remove(&of);
        families.wakes.remove(&of);
        families.limited.remove(&of);
        families.holding.remove(&of);
        families.connections.remove(&of);
    }
}

/// The series of one MicroVM, found once.
pub(crate) struct Series {
    requests: [Counter; CLASSES.len()],
    pub(crate) latency: Histogram,
    up: Counter,
    down: Counter,
    held: Counter,
    holding: Gauge,
    hold: Histogram,
    pub(crate) wakes: Counter,
    pub(crate) limited: Counter,
    pub(crate) connections: Gauge,
}

impl Series {
    pub(crate) fn answered(&self, status: u16) {
        if let Some(counter) = self.requests.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.inc();
        }
    }

    pub(crate) fn passed(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Up => self.up.inc_by(bytes),
            Direction::Down => self.down.inc_by(bytes),
        };
    }

    /// A request waits until this is dropped.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.held.inc();
        self.holding.inc();
        Hold {
            series: self,
            since: std::time::Instant::now(),
        }
    }
}

/// A request that waits at the gate.
pub(crate) struct Hold<'a> {
    series: &'a Series,
    since: std::time::Instant,
}

impl Hold<'_> {
    pub(crate) fn so_far(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.series.holding.dec();
        self.series.hold.observe(self.so_far().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("text is written to memory");
        text
    }

    #[test]
    fn the_series_of_a_microvm_end_with_it() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let series = metrics.series("microvm-1");
        series.answered(204);
        series.passed(Direction::Up, 7);
        drop(series.hold());
        let text = shown(&registry);
        for line in [
            r#"hearth_endpoint_requests_total{microvm="microvm-1",status="2xx"} 1"#,
            r#"hearth_endpoint_bytes_total{microvm="microvm-1",direction="in"} 7"#,
            r#"hearth_endpoint_held_requests_total{microvm="microvm-1"} 1"#,
            r#"hearth_endpoint_holding_requests{microvm="microvm-1"} 0"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        metrics.forget("microvm-1");
        assert!(!shown(&registry).contains("microvm-1"));
    }
}
