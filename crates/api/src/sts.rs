//! `sts`: GetCallerIdentity in the query protocol, so that clients can ask who they are.

use hearth_wire::{ApiError, Caller, ErrorKind};
use http::{Request, Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::{Body, answer::Protocol, router::Router, scope::Scope};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

pub(crate) async fn handle(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Response<Body> {
    match call(router, scope, request, request_id).await {
        Ok(document) => Protocol::Query.response(200, document, request_id),
        Err(error) => Protocol::Query.error(&error, request_id),
    }
}

async fn call(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Result<String, ApiError> {
    let (parts, body, caller) = router.verified(scope, request, request_id).await?;
    let form = String::from_utf8_lossy(&body);
    let action =
        parameter(&form, "Action").or_else(|| parameter(parts.uri.query().unwrap_or_default(), "Action"));
    match action.as_deref() {
        Some("GetCallerIdentity") => Ok(caller_identity(&caller)),
        other => Err(ApiError::new(
            ErrorKind::InvalidAction,
            format!(
                "Could not find operation {} for version 2011-06-15",
                other.unwrap_or("(none)")
            ),
        )),
    }
}

fn parameter(form: &str, name: &str) -> Option<String> {
    let value = form
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(given, _)| *given == name)?
        .1;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// Access keys belong to their account as a whole, as those of an account's root user do.
fn caller_identity(caller: &Caller) -> String {
    let Caller {
        partition,
        account_id,
        request_id,
        ..
    } = caller;
    format!(
        "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\"><GetCallerIdentityResult>\
         <Arn>arn:{partition}:iam::{account_id}:root</Arn><UserId>{account_id}</UserId>\
         <Account>{account_id}</Account></GetCallerIdentityResult><ResponseMetadata>\
         <RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
}

/// The error document of the query protocol, with the codes this service uses.
pub(crate) fn error_document(error: &ApiError, request_id: &str) -> String {
    let code = match error.kind {
        ErrorKind::InvalidSignature => "SignatureDoesNotMatch",
        ErrorKind::UnrecognizedClient => "InvalidClientTokenId",
        ErrorKind::InternalServer => "InternalFailure",
        kind => kind.name().trim_end_matches("Exception"),
    };
    let fault = if error.status() < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let message = escaped(error.message.as_deref().unwrap_or_default());
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
}

fn escaped(text: &str) -> String {
    let printable: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    printable
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_break_out_of_its_document() {
        let error = ApiError::new(ErrorKind::InvalidAction, "</Message>&\u{0}");
        let document = error_document(&error, "r");
        assert!(
            document.contains("<Code>InvalidAction</Code><Message>&lt;/Message&gt;&amp; </Message>"),
            "{document}"
        );
    }
}
