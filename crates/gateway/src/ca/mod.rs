//! The node's own certificate authority, for machines without a public certificate.
//!
//! The key is the authority. Its certificate is made from the key, under a name made from the key: when it is
//! missing, foreign or near its end it is made again, and clients that trust the former one stay content.

mod leaf;
mod store;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use crate::certificates::tls;
use leaf::Leaf;

/// The authority's private key, mode 0600.
const KEY_FILE: &str = "ca-key.pem";
/// The authority's certificate, for clients to trust.
const CERTIFICATE_FILE: &str = "ca.pem";

const LIFE: Duration = Duration::days(3650);
/// The certificate is made again when it ends within this time.
const RENEW_BEFORE: Duration = Duration::days(365);
/// Clocks differ: certificates are valid from this long before they are made.
const BACKDATE: Duration = Duration::days(1);

/// Why there is no authority or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The directory cannot be read or written.
    #[error("certificate authority directory: {0}")]
    Io(#[from] io::Error),
    /// The stored key is not one, or a name cannot stand in a certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate cannot be served.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate authority of one's own.
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    certificate_pem: String,
}

impl Authority {
    /// Reads the authority kept in `dir`, or makes one there. What is missing is made and written durably: the key
    /// before the certificate, so that a crash in between costs nothing.
    pub fn load_or_create(dir: &Path) -> Result<Authority, CaError> {
        store::create_dir(dir)?;
        let key = match store::read(&dir.join(KEY_FILE))? {
            Some(pem) => KeyPair::from_pem(&pem)?,
            None => {
                let key = KeyPair::generate()?;
                store::write(dir, KEY_FILE, &key.serialize_pem(), 0o600)?;
                key
            }
        };
        let params = authority_params(&key);
        let stored = store::read(&dir.join(CERTIFICATE_FILE))?.filter(|pem| is_usable(pem, &key));
        let certificate_pem = match stored {
            Some(pem) => pem,
            None => {
                let pem = params.self_signed(&key)?.pem();
                store::write(dir, CERTIFICATE_FILE, &pem, 0o644)?;
                pem
            }
        };
        Ok(Authority {
            issuer: Arc::new(Issuer::new(params, key)),
            certificate_pem,
        })
    }

    /// The authority's certificate in PEM, for clients to trust.
    pub fn ca_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A TLS configuration for these names (DNS names, wildcards, IP addresses) that offers these protocols, the
    /// preferred first. Its certificate is made here, lives in memory and renews itself.
    pub fn server_config(&self, names: &[String], alpn: &[&str]) -> Result<Arc<ServerConfig>, CaError> {
        Ok(tls(self.certificate(names)?, alpn)?)
    }

    /// The certificate of [`Authority::server_config`] alone.
    pub fn certificate(&self, names: &[String]) -> Result<Arc<dyn ResolvesServerCert>, CaError> {
        Ok(Arc::new(Leaf::new(self.issuer.clone(), names.to_vec())?))
    }
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let key_id: String = params
        .key_identifier(key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("hearth local authority {key_id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    params
}

/// Whether a stored certificate belongs to the key and has time left.
fn is_usable(pem: &str, key: &KeyPair) -> bool {
    let Some(Ok(pem)) = Pem::iter_from_buffer(pem.as_bytes()).next() else {
        return false;
    };
    let Ok(certificate) = pem.parse_x509() else {
        return false;
    };
    let renewal = (OffsetDateTime::now_utc() + RENEW_BEFORE).unix_timestamp();
    certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        && certificate.validity().not_after.timestamp() > renewal
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write_certificate(dir: &Path, key: &KeyPair, not_after: OffsetDateTime) {
        let mut params = authority_params(key);
        params.not_after = not_after;
        let pem = params.self_signed(key).expect("signs").pem();
        std::fs::write(dir.join(CERTIFICATE_FILE), pem).expect("writes");
    }

    #[test]
    fn the_authority_stays_the_same_and_its_key_is_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Authority::load_or_create(dir.path()).expect("makes");
        let again = Authority::load_or_create(dir.path()).expect("loads");
        assert_eq!(first.ca_pem(), again.ca_pem());
        let mode = std::fs::metadata(dir.path().join(KEY_FILE))
            .expect("key file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(dir.path()).expect("reads").count();
        assert_eq!(files, 2, "no temporary file stays");
    }

    #[test]
    fn a_lost_foreign_broken_or_ending_certificate_is_made_again_from_the_key() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(CERTIFICATE_FILE);
        Authority::load_or_create(dir.path()).expect("makes");
        let key_pem = std::fs::read_to_string(dir.path().join(KEY_FILE)).expect("key file");
        let key = KeyPair::from_pem(&key_pem).expect("key");
        let other = KeyPair::generate().expect("key");
        let now = OffsetDateTime::now_utc();
        let damages: [&dyn Fn(); 4] = [
            &|| std::fs::remove_file(&path).expect("removes"),
            &|| std::fs::write(&path, "garbage").expect("writes"),
            &|| write_certificate(dir.path(), &other, now + LIFE),
            &|| write_certificate(dir.path(), &key, now + Duration::days(30)),
        ];
        for damage in damages {
            damage();
            let authority = Authority::load_or_create(dir.path()).expect("loads");
            assert!(is_usable(authority.ca_pem(), &key));
            assert_eq!(
                std::fs::read_to_string(&path).expect("certificate"),
                authority.ca_pem()
            );
        }
    }

    #[test]
    fn a_broken_key_is_an_error_and_not_a_new_authority() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join(KEY_FILE), "garbage").expect("writes");
        assert!(matches!(
            Authority::load_or_create(dir.path()),
            Err(CaError::Certificate(_))
        ));
    }
}
