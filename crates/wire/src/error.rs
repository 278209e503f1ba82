use std::fmt;

use serde_json::{Map, Value, json};

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident = $status:literal $name:literal;)+) => {
        /// The error shapes of spec 3.3, and those of the service's front door.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$doc])* $kind),+
        }

        impl ErrorKind {
            /// The value of the `x-amzn-errortype` header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),+ }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status),+ }
            }
        }
    };
}

error_kinds! {
    /// The caller may not do this.
    AccessDenied = 403 "AccessDeniedException";
    /// The resource is in a state that forbids this.
    Conflict = 409 "ConflictException";
    /// No room on the machine; RunMicrovm only.
    InsufficientCapacity = 500 "InsufficientCapacityException";
    /// Our fault.
    InternalServer = 500 "InternalServerException";
    /// No such resource.
    ResourceNotFound = 404 "ResourceNotFoundException";
    /// The account's quota is used up.
    ServiceQuotaExceeded = 402 "ServiceQuotaExceededException";
    /// Too many calls.
    Throttling = 429 "ThrottlingException";
    /// A member breaks a constraint or a business rule.
    Validation = 400 "ValidationException";
    /// As [`ErrorKind::Validation`], for tags and lambda-core.
    InvalidParameterValue = 400 "InvalidParameterValueException";
    /// As [`ErrorKind::Conflict`], for tags and lambda-core.
    ResourceConflict = 409 "ResourceConflictException";
    /// As [`ErrorKind::Throttling`], for tags and lambda-core.
    TooManyRequests = 429 "TooManyRequestsException";
    /// As [`ErrorKind::InternalServer`], for tags and lambda-core.
    Service = 500 "ServiceException";
    /// As [`ErrorKind::ResourceNotFound`], for lambda-core.
    ConnectorNotFound = 404 "ResourceNotFoundException";
    /// The account has too many connectors; lambda-core only.
    NetworkConnectorLimitExceeded = 400 "NetworkConnectorLimitExceededException";
    /// The body cannot be read as the request's type.
    Serialization = 400 "SerializationException";
    /// No operation has this method and path.
    UnknownOperation = 404 "UnknownOperationException";
    /// A policy that cannot be read; sts only.
    MalformedPolicyDocument = 400 "MalformedPolicyDocumentException";
    /// No action of a query service has this name.
    InvalidAction = 400 "InvalidAction";
    /// The body is larger than the service takes.
    RequestEntityTooLarge = 413 "RequestEntityTooLargeException";
    /// The request was not complete in time.
    RequestTimeout = 408 "RequestTimeoutException";
    /// The request is not signed.
    MissingAuthenticationToken = 403 "MissingAuthenticationTokenException";
    /// The signature lacks a part.
    IncompleteSignature = 403 "IncompleteSignatureException";
    /// The signature is wrong or out of date.
    InvalidSignature = 403 "InvalidSignatureException";
    /// The access key or session token is unknown.
    UnrecognizedClient = 403 "UnrecognizedClientException";
    /// The query cannot be read.
    MalformedQueryString = 400 "MalformedQueryStringException";
    /// The session token is past its time.
    ExpiredToken = 403 "ExpiredTokenException";
}

/// What an operation answers instead of its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Decides status, header and body form.
    pub kind: ErrorKind,
    /// `None` prints `null`.
    pub message: Option<String>,
    /// Members that some kinds print; those unset as `null`.
    pub details: Option<Box<ErrorDetails>>,
    /// The `Retry-After` header.
    pub retry_after_seconds: Option<u32>,
}

/// The members of ConflictException, ResourceNotFoundException, ServiceQuotaExceededException and ThrottlingException
/// beside the message; recorded bodies have them all `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetails {
    /// What the error is about.
    pub resource_id: Option<String>,
    /// The kind of what the error is about.
    pub resource_type: Option<String>,
    /// The service whose quota it is.
    pub service_code: Option<String>,
    /// The quota.
    pub quota_code: Option<String>,
}

impl ApiError {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            ..Self::silent(kind)
        }
    }

    /// An error of `kind` whose message is `null`.
    pub const fn silent(kind: ErrorKind) -> Self {
        Self {
            kind,
            message: None,
            details: None,
            retry_after_seconds: None,
        }
    }

    /// 400: a constraint or a business rule.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceNotFound, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// 403.
    pub fn access_denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AccessDenied, message)
    }

    /// 402.
    pub fn quota(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ServiceQuotaExceeded, message)
    }

    /// 429; the client should wait `retry_after_seconds`.
    pub fn throttled(retry_after_seconds: u32) -> Self {
        Self::new(ErrorKind::Throttling, "Rate exceeded").retry_after(retry_after_seconds)
    }

    /// 500 without details: they belong in the log. Trying again may help.
    pub fn internal() -> Self {
        Self::new(ErrorKind::InternalServer, "Internal server error").retry_after(1)
    }

    /// 500: the machine has no room for another MicroVM.
    pub fn capacity(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InsufficientCapacity, message)
    }

    /// 400: the body cannot be read.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Serialization, message)
    }

    /// This error with a `Retry-After` header.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.kind.status()
    }

    /// The body, with the members that this kind prints (spec 3.3): some of them as `null`.
    pub fn body(&self) -> Value {
        let mut body = Map::from_iter([(self.message_member().to_owned(), json!(self.message))]);
        let details = self.details.as_deref().cloned().unwrap_or_default();
        let mut print = |member: &str, value: &Option<String>| {
            body.insert(member.to_owned(), json!(value));
        };
        match self.kind {
            ErrorKind::ResourceNotFound | ErrorKind::Conflict => {
                print("resourceId", &details.resource_id);
                print("resourceType", &details.resource_type);
            }
            ErrorKind::ServiceQuotaExceeded => {
                print("resourceId", &details.resource_id);
                print("resourceType", &details.resource_type);
                print("serviceCode", &details.service_code);
                print("quotaCode", &details.quota_code);
            }
            ErrorKind::Throttling => {
                print("serviceCode", &details.service_code);
                print("quotaCode", &details.quota_code);
            }
            ErrorKind::TooManyRequests => {
                body.insert("Type".to_owned(), json!("User"));
                body.insert("Reason".to_owned(), json!("CallerRateLimitExceeded"));
            }
            ErrorKind::InvalidParameterValue
            | ErrorKind::ResourceConflict
            | ErrorKind::ConnectorNotFound
            | ErrorKind::NetworkConnectorLimitExceeded => {
                body.insert("Type".to_owned(), json!("User"));
            }
            ErrorKind::Service => {
                body.insert("Type".to_owned(), json!("Service"));
            }
            _ => {}
        }
        Value::Object(body)
    }

    /// Authorization and deserialization answer before the operation's own code and print `Message`.
    const fn message_member(&self) -> &'static str {
        match self.kind {
            ErrorKind::AccessDenied | ErrorKind::Serialization | ErrorKind::UnknownOperation => "Message",
            // As in the service model of lambda-core.
            ErrorKind::ConnectorNotFound | ErrorKind::Service => "Message",
            _ => "message",
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}",
            self.kind.name(),
            self.message.as_deref().unwrap_or("(no message)")
        )
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_print_the_members_of_their_kind_with_nulls() {
        let cases = [
            (ApiError::validation("m"), json!({"message": "m"})),
            (
                ApiError::not_found("m"),
                json!({"message": "m", "resourceId": null, "resourceType": null}),
            ),
            (
                ApiError::quota("m"),
                json!({"message": "m", "resourceId": null, "resourceType": null, "serviceCode": null,
                       "quotaCode": null}),
            ),
            (ApiError::access_denied("m"), json!({"Message": "m"})),
            (ApiError::serialization("m"), json!({"Message": "m"})),
            (
                ApiError::new(ErrorKind::InvalidParameterValue, "m"),
                json!({"Type": "User", "message": "m"}),
            ),
            (
                ApiError::new(ErrorKind::TooManyRequests, "m"),
                json!({"Type": "User", "message": "m", "Reason": "CallerRateLimitExceeded"}),
            ),
            (
                ApiError::new(ErrorKind::ConnectorNotFound, "m"),
                json!({"Type": "User", "Message": "m"}),
            ),
            (ApiError::silent(ErrorKind::Validation), json!({"message": null})),
        ];
        for (error, body) in cases {
            assert_eq!(error.body(), body);
        }
    }

    #[test]
    fn statuses_are_those_of_the_model() {
        assert_eq!(ApiError::quota("m").status(), 402);
        assert_eq!(ApiError::capacity("m").status(), 500);
        assert_eq!(ApiError::throttled(2).status(), 429);
        assert_eq!(ApiError::throttled(2).retry_after_seconds, Some(2));
        assert_eq!(ApiError::internal().retry_after_seconds, Some(1));
    }
}
