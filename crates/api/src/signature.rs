//! SigV4 verification of what is not S3.

use std::{borrow::Cow, str::FromStr, time::SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hearth_iam::Identity;
use hearth_wire::{ApiError, Caller, ErrorKind, Sensitive, partition_of};
use http::{Request, request::Parts};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use scratchstack_aws_signature::{
    ConstSignedHeaderRequirements, GetSigningKeyRequest, GetSigningKeyResponse, KSecretKey, SignatureError,
    SignatureOptions, sigv4_validate_request,
};
use tracing::error;

use crate::{BoxError, answer::missing_authentication, scope::Scope};

/// What comes along with a temporary key.
const TOKEN_HEADER: &str = "x-amz-security-token";

/// What stays as it is in a canonical path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The header that names the operation of a JSON service must be signed.
const SIGNED: ConstSignedHeaderRequirements =
    ConstSignedHeaderRequirements::new(&[], &[Cow::Borrowed("x-amz-target")], &[]);

/// The session token of a request, from its headers or its query.
pub(crate) fn session_token(parts: &Parts) -> Result<Option<Sensitive>, ApiError> {
    if let Some(header) = parts.headers.get(TOKEN_HEADER) {
        let token = header.to_str().map_err(|_| unrecognized_client())?;
        return Ok(Some(token.into()));
    }
    let query = parts.uri.query().unwrap_or_default();
    let raw = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-Security-Token="));
    Ok(raw.map(|raw| percent_decode_str(raw).decode_utf8_lossy().into_owned().into()))
}

/// Verifies that `identity` signed a request whose scope is `scope`. Requests more than 15 minutes off our clock are
/// refused.
pub(crate) async fn verify(
    identity: &Identity,
    scope: &Scope,
    parts: &Parts,
    body: Bytes,
    request_id: &str,
) -> Result<Caller, ApiError> {
    let secret = identity.secret_access_key.clone();
    let mut keys = tower::service_fn(move |request: GetSigningKeyRequest| {
        let signing_key = signing_key(&secret, &request);
        async move { signing_key.map_err(BoxError::from) }
    });
    let now: DateTime<Utc> = SystemTime::now().into();
    sigv4_validate_request(
        canonical_form(parts, body)?,
        &scope.region,
        &scope.service,
        &mut keys,
        now,
        &SIGNED,
        SignatureOptions::default(),
    )
    .await
    .map_err(refusal)?;
    Ok(Caller {
        account_id: identity.account.clone(),
        partition: partition_of(&scope.region).to_owned(),
        region: scope.region.clone(),
        access_key_id: scope.access_key_id.clone(),
        request_id: request_id.to_owned(),
    })
}

/// The request as the signature crate expects it: it encodes a path once, services other than S3 encode it twice
/// (spec 3.1), so that the first encoding is done here.
fn canonical_form(parts: &Parts, body: Bytes) -> Result<Request<Bytes>, ApiError> {
    let path = utf8_percent_encode(parts.uri.path(), UNRESERVED);
    let query = parts
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut request = Request::builder()
        .method(parts.method.clone())
        .uri(format!("{path}{query}"))
        .body(body)
        .map_err(|_| ApiError::new(ErrorKind::MalformedQueryString, "The request's URI is too long."))?;
    *request.headers_mut() = parts.headers.clone();
    Ok(request)
}

fn signing_key(
    secret: &str,
    request: &GetSigningKeyRequest,
) -> Result<GetSigningKeyResponse, SignatureError> {
    let internal = |error: BoxError| SignatureError::InternalServiceError(error);
    let secret = KSecretKey::from_str(secret).map_err(|error| internal(error.into()))?;
    let signing_key = secret.to_ksigning(request.request_date(), request.region(), request.service());
    GetSigningKeyResponse::builder()
        .signing_key(signing_key)
        .build()
        .map_err(|error| internal(error.into()))
}

fn refusal(error: BoxError) -> ApiError {
    let error = match error.downcast::<SignatureError>() {
        Ok(error) => *error,
        Err(error) => SignatureError::InternalServiceError(error),
    };
    match error {
        SignatureError::ExpiredToken(message) => ApiError::new(ErrorKind::ExpiredToken, message),
        SignatureError::InvalidClientTokenId(_) => unrecognized_client(),
        SignatureError::IncompleteSignature(message) => {
            ApiError::new(ErrorKind::IncompleteSignature, message)
        }
        SignatureError::MissingAuthenticationToken(_) => missing_authentication(),
        SignatureError::SignatureDoesNotMatch(message) => ApiError {
            message,
            ..ApiError::silent(ErrorKind::InvalidSignature)
        },
        SignatureError::MalformedQueryString(message)
        | SignatureError::InvalidURIPath(message)
        | SignatureError::InvalidBodyEncoding(message)
        | SignatureError::InvalidContentType(message)
        | SignatureError::InvalidRequestMethod(message) => {
            ApiError::new(ErrorKind::MalformedQueryString, message)
        }
        other => {
            error!(error = %other, "a signature could not be checked");
            ApiError::internal()
        }
    }
}

fn unrecognized_client() -> ApiError {
    ApiError::new(
        ErrorKind::UnrecognizedClient,
        "The security token included in the request is invalid.",
    )
}
