//! Certificates that others bring: the operator, or a public authority. Whoever renews them only replaces the files: new
//! connections get the new certificate within seconds, and files that do not fit together leave the former one in place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often a handshake looks whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the operator's certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: PemError,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A TLS configuration with the certificate chain and key of these PEM files, which are read again when they change.
pub fn server_config(
    certificate: &Path,
    key: &Path,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, CertificateError> {
    let files = Files::open(certificate, key)?;
    Ok(tls(Arc::new(files), alpn)?)
}

/// The same with chain and key in one file, which may not be there yet: until it is, and can be used, somebody else
/// decides.
pub fn server_config_or(
    file: &Path,
    otherwise: Arc<dyn ResolvesServerCert>,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    tls(Arc::new(Files::later(file, otherwise)), alpn)
}

/// What all of the gateway's TLS has in common.
pub(crate) fn tls(
    certificates: Arc<dyn ResolvesServerCert>,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
    /// Decides while no file could be used.
    otherwise: Option<Arc<dyn ResolvesServerCert>>,
}

struct Current {
    key: Option<Arc<CertifiedKey>>,
    /// Of the files that were tried last, good or bad.
    stamp: Stamp,
    looked: Instant,
}

/// Tells files apart from what they were before.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Files {
    fn open(certificate: &Path, key: &Path) -> Result<Files, CertificateError> {
        let current = Current {
            stamp: stamp(certificate, key),
            key: Some(load(certificate, key)?),
            looked: Instant::now(),
        };
        Ok(Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(current),
            otherwise: None,
        })
    }

    fn later(file: &Path, otherwise: Arc<dyn ResolvesServerCert>) -> Files {
        let current = Current {
            stamp: [None; 2],
            key: None,
            // The first handshake looks.
            looked: Instant::now()
                .checked_sub(LOOK_EVERY)
                .unwrap_or_else(Instant::now),
        };
        Files {
            certificate: file.to_owned(),
            key: file.to_owned(),
            current: Mutex::new(current),
            otherwise: Some(otherwise),
        }
    }

    fn at(&self, now: Instant) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked) >= LOOK_EVERY {
            current.looked = now;
            let stamp = stamp(&self.certificate, &self.key);
            if stamp != current.stamp {
                current.stamp = stamp;
                match load(&self.certificate, &self.key) {
                    Ok(key) => {
                        current.key = Some(key);
                        tracing::info!("the endpoints' certificate was read again");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the endpoints' new certificate cannot be used; the former one stays");
                    }
                }
            }
        }
        current.key.clone()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| CertificateError::Io {
            path: path.to_owned(),
            error,
        })
    };
    let broken = |path: &Path| {
        let path = path.to_owned();
        move |error| CertificateError::Pem { path, error }
    };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken(certificate))?;
    if chain.is_empty() {
        return Err(broken(certificate)(PemError::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(broken(key))?;
    Ok(Arc::new(CertifiedKey::from_der(
        chain,
        private,
        &default_provider(),
    )?))
}

impl ResolvesServerCert for Files {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.at(Instant::now());
        own.or_else(|| self.otherwise.as_ref()?.resolve(hello))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("chain.pem"), directory.join("key.pem"));
        let made = rcgen::generate_simple_self_signed(vec!["*.vm.example".to_owned()]).expect("makes");
        std::fs::write(&certificate, made.cert.pem()).expect("writes");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
        (certificate, key)
    }

    #[test]
    fn replaced_files_are_served_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (certificate, key) = write(directory.path());
        let files = Files::open(&certificate, &key).expect("opens");
        let mut now = Instant::now();
        let mut later = || {
            now += LOOK_EVERY;
            now
        };
        let mut served = || files.at(later()).expect("served");
        let first = served();
        assert!(Arc::ptr_eq(&first, &served()));

        let old_key = std::fs::read(&key).expect("reads");
        write(directory.path());
        let second = served();
        assert_ne!(first.cert, second.cert);

        // A key of another certificate, half a file, none at all.
        std::fs::write(&key, old_key).expect("writes");
        assert!(Arc::ptr_eq(&second, &served()));
        std::fs::write(&certificate, "-----BEGIN CERT").expect("writes");
        assert!(Arc::ptr_eq(&second, &served()));
        std::fs::remove_file(&key).expect("removes");
        assert!(Arc::ptr_eq(&second, &served()));

        write(directory.path());
        assert_ne!(served().cert, second.cert);
    }

    #[test]
    fn a_file_that_comes_later_is_served_from_then_on() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (certificate, key) = write(directory.path());
        let (otherwise, file) = (Arc::new(NoCertificate), directory.path().join("both.pem"));
        let files = Files::later(&file, otherwise);
        let now = Instant::now();
        assert!(files.at(now).is_none());
        std::fs::write(&file, "half").expect("writes");
        assert!(files.at(now + LOOK_EVERY).is_none());
        let both = [&key, &certificate].map(|path| std::fs::read_to_string(path).expect("reads"));
        std::fs::write(&file, both.concat()).expect("writes");
        assert!(
            files.at(now + LOOK_EVERY).is_none(),
            "not looked at with every handshake"
        );
        assert!(files.at(now + 2 * LOOK_EVERY).is_some());
    }

    /// Decides for nothing.
    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_name_of_the_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (certificate, key) = write(directory.path());
        std::fs::write(&certificate, "garbage").expect("writes");
        let error = Files::open(&certificate, &key).expect_err("refused").to_string();
        assert!(error.contains("chain.pem"), "{error}");
        let missing = directory.path().join("missing.pem");
        let error = Files::open(&certificate, &missing)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("chain.pem") || error.contains("missing.pem"),
            "{error}"
        );
    }
}
