//! What a request says of an object, and what a response tells again.

use hearth_storage::objects::{Attributes, NewObject};
use s3s::{S3Result, dto, s3_error};

/// S3's limit on all user metadata of an object together.
const MAX_USER_METADATA_BYTES: usize = 2048;

const STORAGE_CLASSES: [&str; 9] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
];

/// Reads the metadata members that PutObject, CopyObject and CreateMultipartUpload share.
macro_rules! attributes {
    ($input:expr) => {
        hearth_storage::objects::Attributes {
            content_type: $input.content_type.take(),
            content_encoding: crate::attributes::content_encoding($input.content_encoding.take()),
            content_disposition: $input.content_disposition.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
            expires: crate::attributes::expires($input.expires.take())?,
            website_redirect_location: $input.website_redirect_location.take(),
            user: crate::attributes::user($input.metadata.take())?,
            checksum: None,
        }
    };
}
pub(crate) use attributes;

/// Refuses what the store cannot honour rather than dropping it silently.
macro_rules! refuse_unsupported {
    ($input:expr) => {
        if $input.sse_customer_algorithm.is_some() || $input.sse_customer_key.is_some() {
            return Err(s3s::s3_error!(
                NotImplemented,
                "Server-side encryption with customer keys is not supported."
            ));
        }
        if $input.tagging.is_some() {
            return Err(s3s::s3_error!(NotImplemented, "Object tagging is not supported."));
        }
        if $input.object_lock_mode.is_some() || $input.object_lock_legal_hold_status.is_some() {
            return Err(s3s::s3_error!(NotImplemented, "Object lock is not supported."));
        }
        if $input
            .acl
            .as_ref()
            .is_some_and(|acl| !["private", "bucket-owner-full-control"].contains(&acl.as_str()))
        {
            return Err(s3s::s3_error!(
                AccessControlListNotSupported,
                "The bucket does not allow ACLs"
            ));
        }
    };
}
pub(crate) use refuse_unsupported;

/// Fills the metadata members that GetObject's and HeadObject's answers share.
macro_rules! describe {
    ($output:ident, $info:expr, $with_checksum:expr) => {{
        let info = $info;
        $output.e_tag = Some(s3s::dto::ETag::Strong(info.etag));
        $output.last_modified = Some(crate::attributes::timestamp(info.modified_ms));
        $output.accept_ranges = Some("bytes".to_owned());
        if info.storage_class != "STANDARD" {
            $output.storage_class = Some(info.storage_class.into());
        }
        let said = info.attributes;
        $output.content_type = Some(
            said.content_type
                .unwrap_or_else(|| "binary/octet-stream".to_owned()),
        );
        $output.content_encoding = said.content_encoding;
        $output.content_disposition = said.content_disposition;
        $output.content_language = said.content_language;
        $output.cache_control = said.cache_control;
        $output.expires = said
            .expires
            .and_then(|text| s3s::dto::Timestamp::parse(s3s::dto::TimestampFormat::HttpDate, &text).ok());
        $output.website_redirect_location = said.website_redirect_location;
        $output.metadata = (!said.user.is_empty()).then(|| said.user.into_iter().collect());
        if $with_checksum && let Some(checksum) = said.checksum {
            crate::checksum::tell!($output, crate::checksum::carrier(&checksum));
        }
    }};
}
pub(crate) use describe;

/// The new object of these attributes and storage class.
pub(crate) fn new_object(
    storage_class: Option<dto::StorageClass>,
    attributes: Attributes,
) -> S3Result<NewObject> {
    let storage_class = storage_class.map(|class| class.as_str().to_owned());
    if storage_class
        .as_deref()
        .is_some_and(|class| !STORAGE_CLASSES.contains(&class))
    {
        return Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid"
        ));
    }
    Ok(NewObject {
        storage_class,
        attributes,
    })
}

/// `aws-chunked` is how the body travelled, not what it is.
pub(crate) fn content_encoding(value: Option<String>) -> Option<String> {
    let value = value?;
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty() && *part != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

pub(crate) fn expires(value: Option<dto::Timestamp>) -> S3Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    let mut text = Vec::new();
    value
        .format(dto::TimestampFormat::HttpDate, &mut text)
        .map_err(|_| s3_error!(InvalidArgument, "Invalid Expires header"))?;
    Ok(String::from_utf8(text).ok())
}

pub(crate) fn user(metadata: Option<dto::Metadata>) -> S3Result<std::collections::BTreeMap<String, String>> {
    let metadata = metadata.unwrap_or_default();
    if metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > MAX_USER_METADATA_BYTES
    {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    Ok(metadata.into_iter().collect())
}

/// A time as S3 tells it: whole seconds, so that conditions on it hold.
pub(crate) fn timestamp(unix_ms: i64) -> dto::Timestamp {
    time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .map_or_else(|_| dto::Timestamp::default(), Into::into)
}

/// Refuses versions: a bucket here has none but `null`.
pub(crate) fn refuse_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}
