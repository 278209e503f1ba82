//! The endpoints' certificate from a public authority, by ACME (RFC 8555).
//!
//! Endpoints are names under one domain, so the certificate is for its wildcard, and ownership is proved by a TXT record
//! (DNS-01) that a program of the operator's sets and removes. Account and certificate lie in a directory of
//! their own; whoever serves the certificate only reads [`Renewer::certificate`] again when it changes.
//! A renewal that fails leaves the former certificate alone, and is tried again, later each time.
#![forbid(unsafe_code)]

mod authority;
mod client;
mod hook;
mod issue;
mod metrics;
mod renewer;
mod store;

use std::{fmt, io, path::PathBuf, time::Duration};

pub use renewer::Renewer;

/// How a certificate is obtained.
pub struct AcmeConfig {
    /// The authority's directory (RFC 8555, section 7.1.1), an HTTPS URL.
    pub directory_url: String,
    /// Certificates (PEM) that the directory itself is trusted by; those of the machine when absent.
    pub roots_pem: Option<Vec<u8>>,
    /// URLs such as `mailto:ops@example.com` under which the authority reaches the operator.
    pub contact: Vec<String>,
    /// Ties the account to one that the operator has with the authority already.
    pub external_account: Option<ExternalAccount>,
    /// Parent of all endpoints: the certificate is for `*.<domain>`.
    pub domain: String,
    /// Called as `PROGRAM present|cleanup NAME VALUE`, with the record's full name and a dot at its end; it must end with 0
    /// once the name's servers know.
    pub dns_program: PathBuf,
    /// From the record's making until the authority is told to look for it.
    pub propagation: Duration,
    /// Directory for account and certificate.
    pub directory: PathBuf,
}

/// What an authority gave the operator for the account (RFC 8555, section 7.3.4).
pub struct ExternalAccount {
    /// The key's name.
    pub key_id: String,
    /// The key itself, not its Base64.
    pub key: Vec<u8>,
}

impl fmt::Debug for AcmeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeConfig")
            .field("directory_url", &self.directory_url)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The account or the certificate cannot be read or kept.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A kept file is not what was written.
    #[error("{} cannot be understood ({cause}); remove it, and a new one is made", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The certificates that the directory is trusted by are of no use.
    #[error("the certificates that the directory is trusted by cannot be used: {0}")]
    Roots(String),
    /// The operator's program did not do its work.
    #[error("{} {what}", program.display())]
    Hook {
        /// The program.
        program: PathBuf,
        /// What happened.
        what: String,
    },
    /// The authority cannot be asked, or says no.
    #[error("the certificate authority: {}", chain(.0))]
    Authority(#[from] instant_acme::Error),
    /// The authority did not accept the proof.
    #[error("the certificate authority did not accept the proof: {0}")]
    Refused(String),
    /// What the authority gave is no certificate.
    #[error("the certificate authority's answer is no certificate: {0}")]
    NoCertificate(String),
    /// The certificate has less than a third of its life left.
    #[error("the new certificate ends at {0} by this machine's clock, too soon; is the clock right?")]
    Stale(time::OffsetDateTime),
    /// It took too long.
    #[error("the certificate was not there after {} minutes", .0.as_secs() / 60)]
    Late(Duration),
}

/// An error with its causes, which say what the outermost leaves out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
