//! The shapes of objects and their conditions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};

use super::ObjectsError;

/// What a caller says of an object beside its bytes; S3's standard and user metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Content-Encoding`
    pub content_encoding: Option<String>,
    /// `Content-Disposition`
    pub content_disposition: Option<String>,
    /// `Content-Language`
    pub content_language: Option<String>,
    /// `Cache-Control`
    pub cache_control: Option<String>,
    /// `Expires`, as an HTTP date
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`
    pub website_redirect_location: Option<String>,
    /// `x-amz-meta-*`, without the prefix
    pub user: BTreeMap<String, String>,
    /// The checksum the object was sent with, or is to be sent with (an upload without a value yet)
    pub checksum: Option<Checksum>,
}

/// A checksum of S3's: of the whole object, or of its parts' checksums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1` or `SHA256`
    pub algorithm: String,
    /// Base64; with `-N` after it for a composite of N parts
    pub value: String,
    /// Made of the parts' checksums rather than of the bytes
    pub composite: bool,
}

/// What is to be said of a new object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewObject {
    /// `STANDARD` where `None`
    pub storage_class: Option<String>,
    /// The object's metadata
    pub attributes: Attributes,
}

impl NewObject {
    pub(super) fn storage_class(&self) -> &str {
        self.storage_class.as_deref().unwrap_or("STANDARD")
    }
}

/// One object as HeadObject and listings tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key
    pub key: String,
    /// Without quotes: the MD5 in hex, or `md5-N` for an object of N parts
    pub etag: String,
    /// Bytes
    pub size: u64,
    /// Unix time in milliseconds
    pub modified_ms: i64,
    /// `STANDARD`, `GLACIER` …
    pub storage_class: String,
    /// The metadata; empty in listings
    pub attributes: Attributes,
}

/// A condition on the object a write replaces, checked in the write's own transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// None
    #[default]
    Always,
    /// `If-None-Match: *`: there is no object yet
    Absent,
    /// `If-Match: *`: there is one
    Present,
    /// `If-Match`: there is one with this ETag (no quotes)
    Etag(String),
}

impl Precondition {
    /// Whether the condition holds for the present object's ETag.
    pub(super) fn check(&self, present: Option<&str>) -> Result<(), ObjectsError> {
        match (self, present) {
            (Self::Always, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Etag(wanted), Some(etag)) if wanted == etag => Ok(()),
            (Self::Etag(_) | Self::Present, None) => Err(ObjectsError::NoSuchKey),
            _ => Err(ObjectsError::PreconditionFailed),
        }
    }
}

/// The bucket naming rules that keep a name usable in S3's host names and paths.
pub(super) fn check_bucket_name(name: &str) -> Result<(), ObjectsError> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let good = (3..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(b))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
        && !name.starts_with("xn--")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if good {
        Ok(())
    } else {
        Err(ObjectsError::InvalidBucketName)
    }
}

/// Any Unicode of 1 to 1024 bytes is a key.
pub(super) fn check_key(key: &str) -> Result<(), ObjectsError> {
    match key.len() {
        0 => Err(ObjectsError::InvalidKey),
        1..=1024 => Ok(()),
        _ => Err(ObjectsError::KeyTooLong),
    }
}

/// An unsigned number out of SQLite's signed column.
pub(super) fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, ObjectsError> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|e| sqlx::Error::Decode(Box::new(e)).into())
}

/// A number of bytes as SQLite keeps it; sizes are bounded far below.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Now, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
