//! Conditional requests, after RFC 9110 section 13 as S3 reads it.

use hearth_storage::objects::{ObjectInfo, Precondition};
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{ETagCondition, Timestamp},
    s3_error,
};

use crate::attributes::timestamp;

/// The conditions of a read, or of a copy on its source.
#[derive(Default)]
pub(crate) struct ReadConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Refuses with 412, or with 304 for a read of what the reader has already.
    pub(crate) fn check(&self, info: &ObjectInfo, read: bool) -> S3Result<()> {
        let matches =
            |condition: &ETagCondition| condition.as_etag().is_none_or(|etag| etag.value() == info.etag);
        let modified = timestamp(info.modified_ms);
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition),
            (None, Some(since)) => modified > *since,
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        let known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        match (known, read) {
            (false, _) => Ok(()),
            (true, false) => Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            )),
            (true, true) => Err(not_modified(info)),
        }
    }
}

fn not_modified(info: &ObjectInfo) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = http::HeaderMap::new();
    if let Ok(etag) = http::HeaderValue::from_str(&format!("\"{}\"", info.etag)) {
        headers.insert(http::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

/// The condition of a write on the object it replaces.
pub(crate) fn precondition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Precondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::Always),
        (None, Some(condition)) if condition.is_any() => Ok(Precondition::Absent),
        (Some(condition), None) => Ok(condition.into_etag().map_or(Precondition::Present, |etag| {
            Precondition::Etag(etag.into_value())
        })),
        _ => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        )),
    }
}
