//! The credential scope of a request: who claims to have signed it, for which region and service.

use hearth_wire::{ApiError, ErrorKind};
use http::{header::AUTHORIZATION, request::Parts};
use percent_encoding::percent_decode_str;

/// `<access key id>/<date>/<region>/<service>/aws4_request`; a claim until the signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) access_key_id: String,
    pub(crate) region: String,
    pub(crate) service: String,
}

/// The scope of a request, from its Authorization header or its query; `None` when it is not signed at all.
pub(crate) fn of(parts: &Parts) -> Result<Option<Scope>, ApiError> {
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let text = header
            .to_str()
            .map_err(|_| incomplete("Authorization header is not plain text."))?;
        return from_header(text).map(Some);
    }
    let query = parts.uri.query().unwrap_or_default();
    let credential = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-Credential="));
    credential
        .map(|raw| parse(&percent_decode_str(raw).decode_utf8_lossy()))
        .transpose()
}

fn from_header(text: &str) -> Result<Scope, ApiError> {
    let (algorithm, parameters) = text.trim().split_once(' ').unwrap_or((text, ""));
    if algorithm != "AWS4-HMAC-SHA256" {
        return Err(incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
    }
    let credential = parameters
        .split(',')
        .find_map(|parameter| parameter.trim().strip_prefix("Credential="));
    parse(credential.ok_or_else(|| incomplete("Authorization header requires 'Credential' parameter."))?)
}

fn parse(credential: &str) -> Result<Scope, ApiError> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [access_key_id, _date, region, service, _terminator] = parts.as_slice() else {
        return Err(incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
             '{credential}'."
        )));
    };
    if !is_region(region) {
        return Err(ApiError::new(
            ErrorKind::InvalidSignature,
            format!("Credential should be scoped to a valid region, not '{region}'."),
        ));
    }
    Ok(Scope {
        access_key_id: (*access_key_id).to_owned(),
        region: (*region).to_owned(),
        service: (*service).to_owned(),
    })
}

/// A region becomes part of ARNs and host names.
fn is_region(region: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&region.len()) && region.bytes().all(is_plain)
}

fn incomplete(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::IncompleteSignature, message)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn of_header(value: &str) -> Result<Option<Scope>, ApiError> {
        let request = Request::builder()
            .header(AUTHORIZATION, value)
            .body(())
            .expect("request");
        of(&request.into_parts().0)
    }

    #[test]
    fn a_scope_is_read_from_the_header() {
        let scope = of_header(
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host, Signature=0",
        );
        let expected = Scope {
            access_key_id: "AKID".into(),
            region: "eu-west-1".into(),
            service: "lambda".into(),
        };
        assert_eq!(scope, Ok(Some(expected)));
    }

    #[test]
    fn a_scope_is_read_from_the_query() {
        let uri = "/bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260101%2Fhome%2Fs3%2Faws4_request";
        let request = Request::builder().uri(uri).body(()).expect("request");
        let scope = of(&request.into_parts().0).expect("scope").expect("signed");
        assert_eq!((scope.region.as_str(), scope.service.as_str()), ("home", "s3"));
    }

    #[test]
    fn a_request_without_either_is_not_signed() {
        assert_eq!(of(&Request::new(()).into_parts().0), Ok(None));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for (header, kind) in [
            ("Bearer x", ErrorKind::IncompleteSignature),
            ("AWS4-HMAC-SHA256", ErrorKind::IncompleteSignature),
            ("AWS4-HMAC-SHA256 Credential=AKID", ErrorKind::IncompleteSignature),
            (
                "AWS4-HMAC-SHA256 Credential=A/1/EU_WEST/lambda/aws4_request",
                ErrorKind::InvalidSignature,
            ),
            (
                "AWS4-HMAC-SHA256 Credential=A/1//lambda/aws4_request",
                ErrorKind::InvalidSignature,
            ),
        ] {
            assert_eq!(of_header(header).expect_err(header).kind, kind, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "(AWS4-HMAC-SHA256 )?(Credential=)?[ -~]{0,60}") {
            let _ = of_header(&value);
        }
    }
}
