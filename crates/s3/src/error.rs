//! The store's errors as S3's.

use hearth_storage::objects::ObjectsError;
use s3s::{S3Error, S3ErrorCode};

/// The one place where a store's error becomes an S3 code and status.
pub(crate) fn s3_error(error: ObjectsError) -> S3Error {
    use ObjectsError as E;
    let code = match &error {
        E::NoSuchBucket => S3ErrorCode::NoSuchBucket,
        E::NoSuchKey => S3ErrorCode::NoSuchKey,
        E::NoSuchUpload => S3ErrorCode::NoSuchUpload,
        E::AccessDenied => S3ErrorCode::AccessDenied,
        E::WrongRegion(_) => S3ErrorCode::PermanentRedirect,
        E::InvalidObjectState => S3ErrorCode::InvalidObjectState,
        E::InvalidBucketName => S3ErrorCode::InvalidBucketName,
        E::BucketAlreadyExists => S3ErrorCode::BucketAlreadyExists,
        E::BucketAlreadyOwnedByYou => S3ErrorCode::BucketAlreadyOwnedByYou,
        E::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
        E::InvalidKey | E::InvalidPartNumber => S3ErrorCode::InvalidArgument,
        E::KeyTooLong => S3ErrorCode::KeyTooLongError,
        E::EntityTooLarge => S3ErrorCode::EntityTooLarge,
        E::EntityTooSmall => S3ErrorCode::EntityTooSmall,
        E::InvalidPart => S3ErrorCode::InvalidPart,
        E::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        E::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        E::Body(_) => return body_error(error),
        E::Index(_) | E::Version(_) | E::Damaged(_) | E::Store(_) | E::Io(_) => {
            tracing::error!(%error, "the object store failed");
            return S3Error::with_message(
                S3ErrorCode::InternalError,
                "We encountered an internal error. Please try again.",
            );
        }
    };
    S3Error::with_message(code, error.to_string())
}

/// A body that ended early, or whose chunks are not what was signed.
fn body_error(error: ObjectsError) -> S3Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    tracing::debug!(cause = %text, "a body was refused");
    // `s3s` keeps the kinds of these errors to itself; their texts are all there is.
    if text.contains("SignatureMismatch") {
        return S3Error::with_message(
            S3ErrorCode::SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided.",
        );
    }
    if text.contains("Sha256Mismatch") {
        let mut refused = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        refused.set_status_code(http::StatusCode::BAD_REQUEST);
        return refused;
    }
    S3Error::with_message(
        S3ErrorCode::IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    )
}
