use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use uuid::Uuid;

use crate::body::ResponseBody;
use crate::gate::GateError;
use crate::headers::REQUEST_ID;

/// Every answer that the proxy gives itself. The text is the body the client sees (spec section 18.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No token, or one that cannot be read.
    #[error("Request missing authentication")]
    MissingAuthentication,
    /// A good token for another MicroVM, one that has expired, or a host name that names no MicroVM.
    #[error("Token authentication failed")]
    TokenFailed,
    /// The token does not grant the port.
    #[error("Access to port denied")]
    PortDenied,
    /// The port is not a decimal number from 1 to 65535.
    #[error("Invalid port")]
    InvalidPort,
    /// Platform subprotocols without their marker, or twice.
    #[error("Invalid subprotocol")]
    InvalidSubprotocol,
    /// More than one Host, or none that can be read, or a method the endpoint does not carry.
    #[error("Invalid request")]
    InvalidRequest,
    /// The MicroVM takes no HTTP.
    #[error("Ingress denied")]
    IngressDenied,
    /// Too many requests wait for the MicroVM.
    #[error("Too many requests")]
    TooManyRequests,
    /// Nothing answers behind the endpoint.
    #[error("")]
    BadGateway,
}

impl Refusal {
    /// Its name in the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::MissingAuthentication => "missing_authentication",
            Refusal::TokenFailed => "token_failed",
            Refusal::PortDenied => "port_denied",
            Refusal::InvalidPort => "invalid_port",
            Refusal::InvalidSubprotocol => "invalid_subprotocol",
            Refusal::InvalidRequest => "invalid_request",
            Refusal::IngressDenied => "ingress_denied",
            Refusal::TooManyRequests => "too_many_requests",
            Refusal::BadGateway => "bad_gateway",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::InvalidPort | Refusal::InvalidSubprotocol | Refusal::InvalidRequest => {
                StatusCode::BAD_REQUEST
            }
            Refusal::MissingAuthentication
            | Refusal::TokenFailed
            | Refusal::PortDenied
            | Refusal::IngressDenied => StatusCode::FORBIDDEN,
            Refusal::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Refusal::BadGateway => StatusCode::BAD_GATEWAY,
        }
    }

    pub(crate) fn response(self, request_id: Uuid) -> Response<ResponseBody> {
        let text = self.to_string();
        let has_text = !text.is_empty();
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if has_text {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-store"),
        );
        headers.insert(REQUEST_ID, request_id_value(request_id));
        if self == Refusal::TooManyRequests {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<GateError> for Refusal {
    fn from(error: GateError) -> Refusal {
        match error {
            GateError::Closed => Refusal::BadGateway,
            GateError::NoIngress => Refusal::IngressDenied,
            GateError::Busy => Refusal::TooManyRequests,
        }
    }
}

pub(crate) fn request_id_value(request_id: Uuid) -> HeaderValue {
    HeaderValue::try_from(request_id.to_string()).expect("a UUID's text is a header value")
}
