use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// How the certificate fares.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    attempts: Family<ByOutcome, Counter>,
    expiry: Gauge,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        // Both are there from the beginning, so that an alarm has something to look at.
        for outcome in ["issued", "failed"] {
            self.attempts.get_or_create(&ByOutcome { outcome }).inc_by(0);
        }
        let certificate = registry.sub_registry_with_prefix("hearth_certificate");
        certificate.register(
            "attempts",
            "Attempts to get a certificate for the endpoints",
            self.attempts.clone(),
        );
        certificate.register(
            "expiry_timestamp_seconds",
            "When the endpoints' certificate ends (Unix time; 0: there is none)",
            self.expiry.clone(),
        );
    }

    pub(crate) fn attempted(&self, issued: bool) {
        let outcome = if issued { "issued" } else { "failed" };
        self.attempts.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(crate) fn expires(&self, unix_seconds: i64) {
        self.expiry.set(unix_seconds);
    }
}
