//! Errors as CloudWatch Logs tells them.

/// A failure with the status and type that go on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{type_name}: {message}")]
pub struct LogsError {
    /// The HTTP status
    pub status: u16,
    /// The error's shape in the service model
    pub type_name: &'static str,
    /// For people
    pub message: String,
}

impl LogsError {
    fn client(type_name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            type_name,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterException", message)
    }

    pub(crate) fn no_group() -> Self {
        Self::client(
            "ResourceNotFoundException",
            "The specified log group does not exist.",
        )
    }

    pub(crate) fn no_stream() -> Self {
        Self::client(
            "ResourceNotFoundException",
            "The specified log stream does not exist.",
        )
    }

    pub(crate) fn exists(what: &str) -> Self {
        Self::client(
            "ResourceAlreadyExistsException",
            format!("The specified {what} already exists"),
        )
    }

    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self::client("LimitExceededException", message)
    }

    pub(crate) fn throttled() -> Self {
        Self::client("ThrottlingException", "Rate exceeded")
    }

    pub(crate) fn unknown_operation() -> Self {
        Self::client("UnknownOperationException", "")
    }
}

impl From<std::io::Error> for LogsError {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(%error, "the logs on disk failed");
        Self {
            status: 503,
            type_name: "ServiceUnavailableException",
            message: "The service cannot complete the request.".to_owned(),
        }
    }
}
