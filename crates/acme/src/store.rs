//! What lasts: for each authority a directory with the account and a certificate for each domain, readable by root only.
//! Another directory URL is another authority: trying one out does not lose the account at the other.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use hearth_storage::durable;
use instant_acme::AccountCredentials;
use ring::digest;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

use crate::AcmeError;

/// The account at the authority.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAccount {
    /// Of this format.
    version: u32,
    /// As the authority knows it.
    pub contact: Vec<String>,
    /// Names and the private key.
    pub credentials: AccountCredentials,
}

const VERSION: u32 = 1;

impl StoredAccount {
    pub(crate) fn new(contact: Vec<String>, credentials: AccountCredentials) -> StoredAccount {
        StoredAccount {
            version: VERSION,
            contact,
            credentials,
        }
    }
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub begin: OffsetDateTime,
    pub end: OffsetDateTime,
}

impl Validity {
    /// Of the first certificate in a PEM file.
    pub(crate) fn of(pem: &[u8]) -> Result<Validity, String> {
        let leaf = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
        let (_, leaf) = parse_x509_certificate(&leaf).map_err(|error| error.to_string())?;
        Ok(Validity {
            begin: leaf.validity().not_before.to_datetime(),
            end: leaf.validity().not_after.to_datetime(),
        })
    }

    /// When it should be replaced: with a third of its life left, for long and short ones alike.
    pub(crate) fn renew_at(&self) -> OffsetDateTime {
        self.begin + (self.end - self.begin) * 2 / 3
    }
}

pub(crate) struct Store {
    account: PathBuf,
    certificate: PathBuf,
}

impl Store {
    pub(crate) fn open(directory: &Path, directory_url: &str, domain: &str) -> Result<Store, AcmeError> {
        let hash = digest::digest(&digest::SHA256, directory_url.as_bytes());
        let name: String = hash.as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let directory = directory.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(at(&directory))?;
        Ok(Store {
            account: directory.join("account.json"),
            certificate: directory.join(format!("{domain}.pem")),
        })
    }

    pub(crate) fn certificate_path(&self) -> &Path {
        &self.certificate
    }

    pub(crate) fn account(&self) -> Result<Option<StoredAccount>, AcmeError> {
        let Some(text) = read(&self.account)? else {
            return Ok(None);
        };
        let broken = |cause: String| AcmeError::Broken {
            path: self.account.clone(),
            cause,
        };
        let stored: StoredAccount =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        if stored.version != VERSION {
            return Err(broken(format!("version {} is not known here", stored.version)));
        }
        Ok(Some(stored))
    }

    pub(crate) fn keep_account(&self, account: &StoredAccount) -> Result<(), AcmeError> {
        let text = serde_json::to_vec(account).map_err(io::Error::from);
        text.and_then(|text| durable::write_file(&self.account, &text))
            .map_err(at(&self.account))
    }

    /// The kept certificate's life; none when there is none that can be read.
    pub(crate) fn validity(&self) -> Result<Option<Validity>, AcmeError> {
        let pem = read(&self.certificate)?;
        Ok(pem.and_then(|pem| match Validity::of(&pem) {
            Ok(validity) => Some(validity),
            Err(cause) => {
                tracing::error!(path = %self.certificate.display(), cause, "a kept certificate cannot be read");
                None
            }
        }))
    }

    /// Key and chain in one file: they are replaced together or not at all.
    pub(crate) fn keep_certificate(&self, pem: &str) -> Result<(), AcmeError> {
        durable::write_file(&self.certificate, pem.as_bytes()).map_err(at(&self.certificate))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, AcmeError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AcmeError {
    let path = path.to_owned();
    move |error| AcmeError::Io { path, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};
    use time::Duration;

    use super::*;

    fn store(directory: &Path) -> Store {
        Store::open(directory, "https://ca.example/directory", "vm.example").expect("opens")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_is_kept_for_root_alone_and_due_when_a_third_of_its_life_is_left() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(directory.path());
        assert_eq!(store.validity().expect("none yet"), None);
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec!["*.vm.example".into()]).expect("params");
        params.not_before = OffsetDateTime::from_unix_timestamp(1_000_000).expect("time");
        params.not_after = params.not_before + Duration::days(90);
        let pem = key.serialize_pem() + &params.self_signed(&key).expect("signs").pem();
        store.keep_certificate(&pem).expect("kept");
        let validity = store.validity().expect("reads").expect("is there");
        assert_eq!(
            (validity.begin, validity.end),
            (params.not_before, params.not_after)
        );
        assert_eq!(validity.renew_at(), params.not_before + Duration::days(60));
        assert_eq!(mode(store.certificate_path()), 0o600);
        assert_eq!(mode(store.certificate_path().parent().expect("directory")), 0o700);
    }

    #[test]
    fn authorities_are_apart_and_what_is_broken_is_said_with_its_cure() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let one = store(directory.path());
        let other = Store::open(directory.path(), "https://other.example/", "vm.example").expect("opens");
        assert_ne!(one.certificate_path(), other.certificate_path());
        fs::write(one.certificate_path(), "garbage").expect("writes");
        assert_eq!(one.validity().expect("reads"), None);
        fs::write(&one.account, "{}").expect("writes");
        let error = one.account().err().expect("broken").to_string();
        assert!(
            error.contains("account.json") && error.contains("remove it"),
            "{error}"
        );
        assert!(other.account().expect("none").is_none());
    }
}
