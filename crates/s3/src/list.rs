//! Listings of objects.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hearth_storage::objects::{ListQuery, Listing, ObjectInfo, Objects};
use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error as fail};

use crate::{
    attributes::timestamp,
    bucket::{owner, untoken},
    error::s3_error,
    front::expect_owner,
};

const MAX_KEYS: i32 = 1000;

pub(crate) async fn list_objects(
    objects: &Objects,
    account: &str,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    let text = Text::new(input.encoding_type.as_ref());
    let max_keys = max_keys(input.max_keys)?;
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        limit: max_keys.unsigned_abs() as usize,
    };
    let page = objects
        .list(account, &input.bucket, &query)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(text.of(query.prefix)),
        marker: Some(text.of(input.marker.unwrap_or_default())),
        max_keys: Some(max_keys),
        is_truncated: Some(page.next.is_some()),
        next_marker: page.next.clone().map(|next| text.of(next)),
        contents: Some(contents(&text, &page, Some(account))),
        common_prefixes: Some(prefixes(&text, page)),
        delimiter: input.delimiter.map(|delimiter| text.of(delimiter)),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

pub(crate) async fn list_objects_v2(
    objects: &Objects,
    account: &str,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    let text = Text::new(input.encoding_type.as_ref());
    let max_keys = max_keys(input.max_keys)?;
    let after = match &input.continuation_token {
        Some(token) => Some(untoken(token)?),
        None => input.start_after.clone().filter(|after| !after.is_empty()),
    };
    let limit = max_keys.unsigned_abs() as usize;
    let query = ListQuery {
        prefix: input.prefix.unwrap_or_default(),
        delimiter: input.delimiter.clone(),
        after,
        limit,
    };
    let page = objects
        .list(account, &input.bucket, &query)
        .await
        .map_err(s3_error)?;
    let shown = input.fetch_owner.unwrap_or(false).then_some(account);
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(text.of(query.prefix)),
        max_keys: Some(max_keys),
        key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(|next| BASE64.encode(next)),
        contents: Some(contents(&text, &page, shown)),
        common_prefixes: Some(prefixes(&text, page)),
        delimiter: input.delimiter.map(|delimiter| text.of(delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| text.of(after)),
        request_charged: None,
    }))
}

fn max_keys(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(MAX_KEYS) {
        ..0 => Err(fail!(
            InvalidArgument,
            "Argument maxKeys must be an integer between 0 and 2147483647"
        )),
        keys => Ok(keys.min(MAX_KEYS)),
    }
}

fn contents(text: &Text, page: &Listing, shown: Option<&str>) -> ObjectList {
    let object = |info: &ObjectInfo| Object {
        key: Some(text.of(info.key.clone())),
        e_tag: Some(ETag::Strong(info.etag.clone())),
        size: i64::try_from(info.size).ok(),
        last_modified: Some(timestamp(info.modified_ms)),
        storage_class: Some(info.storage_class.clone().into()),
        owner: shown.map(owner),
        ..Default::default()
    };
    page.objects.iter().map(object).collect()
}

fn prefixes(text: &Text, page: Listing) -> CommonPrefixList {
    page.prefixes
        .into_iter()
        .map(|prefix| CommonPrefix {
            prefix: Some(text.of(prefix)),
        })
        .collect()
}

/// Keys as the answer spells them: XML cannot hold every key, so clients ask for URL encoding.
pub(crate) struct Text {
    encode: bool,
}

impl Text {
    pub(crate) fn new(encoding: Option<&EncodingType>) -> Self {
        Self {
            encode: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL),
        }
    }

    pub(crate) fn of(&self, text: String) -> String {
        use std::fmt::Write;
        if !self.encode {
            return text;
        }
        text.bytes().fold(String::new(), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                let _ = write!(encoded, "%{byte:02X}");
            }
            encoded
        })
    }
}
