//! When a certificate is obtained: at once when there is none, again when a third of its life is left, later and later
//! when that fails.

use std::{path::Path, time::Duration};

use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    AcmeConfig, AcmeError, authority, chain,
    client::Client,
    issue,
    metrics::Metrics,
    store::{Store, Validity},
};

/// Longest attempt, beside the record's propagation.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// Longest sleep: clocks are set, machines are suspended.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Gets the certificate and keeps it fresh.
pub struct Renewer {
    config: AcmeConfig,
    client: Client,
    store: Store,
    metrics: Metrics,
}

impl Renewer {
    /// Prepares everything that needs no authority.
    pub fn open(config: AcmeConfig) -> Result<Renewer, AcmeError> {
        let client = Client::new(config.roots_pem.as_deref())?;
        let store = Store::open(&config.directory, &config.directory_url, &config.domain)?;
        Ok(Renewer {
            config,
            client,
            store,
            metrics: Metrics::default(),
        })
    }

    /// The PEM file with private key and chain. It is replaced as a whole; at first it is not there.
    pub fn certificate(&self) -> &Path {
        self.store.certificate_path()
    }

    /// Shows how it goes, under names that begin with `hearth_certificate`.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Works in the background until the shutdown.
    pub fn start(self, shutdown: CancellationToken) {
        tokio::spawn(async move {
            tokio::select! {
                () = self.keep_fresh() => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    async fn keep_fresh(&self) {
        let mut failures = 0;
        let mut retry_at = OffsetDateTime::now_utc();
        loop {
            let validity = self.store.validity().unwrap_or_else(|error| {
                tracing::error!(%error, "the endpoints' certificate cannot be looked at");
                None
            });
            self.metrics
                .expires(validity.map_or(0, |validity| validity.end.unix_timestamp()));
            let now = OffsetDateTime::now_utc();
            let due = validity.map_or(now, |validity| validity.renew_at()).max(retry_at);
            if due > now {
                let left = Duration::try_from(due - now).unwrap_or(LOOK_EVERY);
                sleep(left.min(LOOK_EVERY)).await;
                continue;
            }
            match self.attempt().await {
                Ok(validity) => {
                    failures = 0;
                    self.metrics.attempted(true);
                    tracing::info!(until = %validity.end, "the endpoints have a new certificate");
                }
                Err(error) => {
                    let pause = pause_after(failures);
                    failures += 1;
                    retry_at = OffsetDateTime::now_utc() + pause;
                    self.metrics.attempted(false);
                    tracing::error!(
                        error = chain(&error),
                        failures,
                        next_try_in_s = pause.as_secs(),
                        "the endpoints have no new certificate; what is served stays"
                    );
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Validity, AcmeError> {
        let patience = PATIENCE + self.config.propagation;
        let certificate = async {
            let account = authority::account(&self.config, &self.client, &self.store).await?;
            issue::certificate(&self.config, &account).await
        };
        let pem = timeout(patience, certificate)
            .await
            .map_err(|_| AcmeError::Late(patience))??;
        let validity = Validity::of(pem.as_bytes()).map_err(AcmeError::NoCertificate)?;
        self.store.keep_certificate(&pem)?;
        // Asking again at once would only be turned down for asking too often.
        if validity.renew_at() <= OffsetDateTime::now_utc() {
            return Err(AcmeError::Stale(validity.end));
        }
        Ok(validity)
    }
}

/// The pause after this many failures before the last one.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2u32.saturating_pow(failures))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_minute_to_six_hours() {
        let minutes: Vec<u64> = (0..11)
            .map(|failures| pause_after(failures).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
