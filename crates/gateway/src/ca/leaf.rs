use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use time::{Duration, OffsetDateTime};

use super::{BACKDATE, CaError};

const LIFE: Duration = Duration::days(90);
/// A certificate with less time left than this is replaced by the next handshake.
const RENEW_BEFORE: Duration = Duration::days(30);

/// A server certificate that renews itself.
pub(super) struct Leaf {
    issuer: Arc<Issuer<'static, KeyPair>>,
    names: Vec<String>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: OffsetDateTime,
}

impl Leaf {
    pub(super) fn new(issuer: Arc<Issuer<'static, KeyPair>>, names: Vec<String>) -> Result<Leaf, CaError> {
        let current = Mutex::new(issue(&issuer, &names, OffsetDateTime::now_utc())?);
        Ok(Leaf {
            issuer,
            names,
            current,
        })
    }

    fn at(&self, now: OffsetDateTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at {
            match issue(&self.issuer, &self.names, now) {
                Ok(renewed) => *current = renewed,
                // The present one is good for weeks yet; the next handshake tries again.
                Err(error) => tracing::error!(%error, "server certificate was not renewed"),
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(OffsetDateTime::now_utc()))
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    names: &[String],
    now: OffsetDateTime,
) -> Result<Current, CaError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "hearth");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = CertifiedKey::from_der(vec![certificate.der().clone()], private, &default_provider())?;
    Ok(Current {
        key: Arc::new(key),
        renew_at: now + LIFE - RENEW_BEFORE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_a_month_before_its_end_and_then_replaced() {
        let issuer = Arc::new(Issuer::new(
            CertificateParams::default(),
            KeyPair::generate().expect("key"),
        ));
        let leaf = Leaf::new(issuer, vec!["*.vm.localhost".into(), "127.0.0.1".into()]).expect("issues");
        let now = OffsetDateTime::now_utc();
        let first = leaf.at(now);
        assert!(Arc::ptr_eq(&first, &leaf.at(now + Duration::days(59))));
        let second = leaf.at(now + Duration::days(61));
        assert_ne!(first.cert, second.cert);
        assert!(Arc::ptr_eq(&second, &leaf.at(now + Duration::days(100))));
    }
}
