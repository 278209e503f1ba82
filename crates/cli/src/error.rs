//! What can go wrong, each as one line with a cause and, where there is one, a cure.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use aws_sdk_lambdamicrovms::error::{ProvideErrorMetadata, SdkError};

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing listens at the endpoint.
    #[error("the daemon is not running at {endpoint}")]
    NotRunning { endpoint: String },
    /// There is neither an endpoint in the environment nor a daemon's client file.
    #[error("no daemon has been started yet: {} does not exist", .0.display())]
    NoClientFile(PathBuf),
    /// The server's certificate does not verify.
    #[error("the certificate of the endpoint is not trusted: {0}")]
    Certificate(String),
    /// The service refused; `kind` is its error type.
    #[error("{kind}: {message}")]
    Service { kind: String, message: String },
    /// The request did not come through.
    #[error("no answer from the service: {0}")]
    Transport(String),
    /// A file of this machine.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    /// Standard output went away or cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The command line asks for something that makes no sense.
    #[error("{cause}")]
    Usage { cause: String, cure: String },
    /// Anything else that has a cause and a cure.
    #[error("{cause}")]
    Failed { cause: String, cure: String },
    /// The command has said everything; only the exit code is left.
    #[error("exit code {0}")]
    Exit(u8),
}

impl Error {
    /// A failure with a cause and a cure; an empty cure is left out.
    pub(crate) fn failed(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Failed {
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    /// A mistake on the command line.
    pub(crate) fn usage(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Usage {
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    /// For `map_err` on an operation on `path`.
    pub(crate) fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { path, source }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Exit(code) => *code,
            _ => 1,
        }
    }

    /// Whether the service said that the thing does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Service { kind, .. } if kind == "ResourceNotFoundException")
    }

    /// The line for standard error, without the program's name. None when there is nothing to say.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Exit(_) => return None,
            // The reader of a pipe went away: its business.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            _ => {}
        }
        let cause = one_line(&self.to_string());
        let cause = cause.trim_end_matches('.');
        match self.cure() {
            "" => Some(format!("{cause}.")),
            cure => Some(format!("{cause}. {}.", cure.trim_end_matches('.'))),
        }
    }

    fn cure(&self) -> &str {
        match self {
            Self::NotRunning { .. } | Self::NoClientFile(_) => "Start it with `hearth up`",
            Self::Certificate(_) => "Point AWS_CA_BUNDLE at the daemon's own bundle: eval \"$(hearth env)\"",
            Self::Service { kind, .. } => match kind.as_str() {
                "SignatureDoesNotMatch"
                | "InvalidSignatureException"
                | "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "InvalidAccessKeyId" => "Take this daemon's keys: eval \"$(hearth env)\"",
                _ => "",
            },
            Self::Usage { cure, .. } | Self::Failed { cure, .. } => cure,
            _ => "",
        }
    }

    /// Any failure below HTTP, told by the innermost error that explains it.
    pub(crate) fn from_transport(error: &(dyn StdError + 'static), endpoint: &str) -> Self {
        let mut innermost = error.to_string();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                if io.kind() == io::ErrorKind::ConnectionRefused {
                    return Self::NotRunning {
                        endpoint: endpoint.to_owned(),
                    };
                }
                // An `io::Error` hides the error it wraps from `source`.
                if let Some(inner) = io.get_ref() {
                    next = Some(inner);
                    continue;
                }
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::from_tls(tls);
            }
            innermost = error.to_string();
            next = error.source();
        }
        Self::Transport(innermost)
    }

    fn from_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_) => Self::Certificate(error.to_string()),
            _ => Self::Transport(error.to_string()),
        }
    }

    /// What an SDK call failed with.
    pub(crate) fn from_sdk<E, R>(error: SdkError<E, R>, endpoint: &str) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
        R: std::fmt::Debug + 'static,
    {
        match &error {
            SdkError::ServiceError(service) => Self::Service {
                kind: service.err().code().unwrap_or("UnknownError").to_owned(),
                message: service
                    .err()
                    .message()
                    .unwrap_or("the service gave no message")
                    .to_owned(),
            },
            _ => Self::from_transport(&error, endpoint),
        }
    }
}

/// Collapses every run of white space, line ends included, into one space.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_line_with_a_cause_and_a_cure() {
        let refused = Error::from_transport(
            &io::Error::from(io::ErrorKind::ConnectionRefused),
            "https://127.0.0.1:9700",
        );
        assert_eq!(
            refused.line().as_deref(),
            Some("the daemon is not running at https://127.0.0.1:9700. Start it with `hearth up`.")
        );
        let failed = Error::failed("the build failed:\n  RUN false\n", "Read the log above.");
        assert_eq!(
            failed.line().as_deref(),
            Some("the build failed: RUN false. Read the log above.")
        );
        let service = Error::Service {
            kind: "ConflictException".into(),
            message: "busy.".into(),
        };
        assert_eq!(service.line().as_deref(), Some("ConflictException: busy."));
    }

    #[test]
    fn an_untrusted_certificate_is_told_from_other_failures() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Error::from_transport(&io::Error::other(io::Error::other(tls)), "https://x");
        assert!(matches!(error, Error::Certificate(_)), "{error:?}");
    }

    #[test]
    fn a_closed_pipe_ends_the_command_silently() {
        let error = Error::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.line(), None);
        assert_eq!(error.exit_code(), 1);
        assert_eq!(Error::usage("a", "b").exit_code(), 2);
    }
}
