//! Responses: the one place where errors become statuses, headers and bodies.

use bytes::Bytes;
use hearth_wire::{ApiError, ErrorKind};
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::json;

use crate::{JsonServiceError, sts};

/// The error of a [`Body`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A response body, streamed or not.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// How a service writes its bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `lambda`: REST with JSON.
    RestJson,
    /// `logs`: JSON 1.1.
    Json,
    /// `sts`: query requests, XML answers.
    Query,
}

impl Protocol {
    const fn content_type(self) -> &'static str {
        match self {
            Self::RestJson => "application/json",
            Self::Json => "application/x-amz-json-1.1",
            Self::Query => "text/xml",
        }
    }

    /// A response with `body`; an empty body has no content type.
    pub(crate) fn response(self, status: u16, body: impl Into<Bytes>, request_id: &str) -> Response<Body> {
        let body: Bytes = body.into();
        let mut response = Response::new(
            Full::new(body.clone())
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if !body.is_empty() {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        }
        set(&mut response, REQUEST_ID, request_id);
        response
    }

    /// The response for `error`.
    pub(crate) fn error(self, error: &ApiError, request_id: &str) -> Response<Body> {
        let body = match self {
            Self::RestJson => error.body().to_string(),
            Self::Json => json!({"__type": error.kind.name(), "message": error.message}).to_string(),
            Self::Query => sts::error_document(error, request_id),
        };
        let mut response = self.response(error.status(), body, request_id);
        set(&mut response, ERROR_TYPE, error.kind.name());
        if let Some(seconds) = error.retry_after_seconds {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The response for an error of a JSON service.
    pub(crate) fn service_error(self, error: &JsonServiceError, request_id: &str) -> Response<Body> {
        let body = json!({"__type": error.kind, "message": error.message}).to_string();
        let mut response = self.response(error.status, body, request_id);
        set(&mut response, ERROR_TYPE, &error.kind);
        response
    }
}

/// Header values here are ids and names of our own; what could not be one is left out.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// 403 for a request without a signature.
pub(crate) fn missing_authentication() -> ApiError {
    ApiError::new(
        ErrorKind::MissingAuthenticationToken,
        "Missing Authentication Token",
    )
}
