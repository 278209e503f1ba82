//! Request bodies, bounded in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hearth_wire::{ApiError, ErrorKind};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

/// How many times the limit is read and thrown away, so that a client is still there to read its error.
const DRAIN_FACTOR: usize = 16;

/// Reads the whole body: 413 when it is larger than `limit` bytes, 408 when it is not complete within `patience`.
pub(crate) async fn read(body: Incoming, limit: usize, patience: Duration) -> Result<Bytes, ApiError> {
    timeout(patience, read_all(body, limit))
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorKind::RequestTimeout,
                "The request body did not arrive in time.",
            ))
        })
}

async fn read_all(mut body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let mut read = BytesMut::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0).min(limit));
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::serialization("The request body was cut off."))?;
        if let Ok(data) = frame.into_data() {
            length = length.saturating_add(data.len());
            if length <= limit {
                read.extend_from_slice(&data);
            } else if length > limit.saturating_mul(DRAIN_FACTOR) {
                break;
            }
        }
    }
    if length > limit {
        return Err(ApiError::new(
            ErrorKind::RequestEntityTooLarge,
            format!("Request must be smaller than {limit} bytes."),
        ));
    }
    Ok(read.freeze())
}
