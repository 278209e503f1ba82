//! Operations on single objects.

use hearth_storage::objects::{Object, Objects, Precondition};
use http::StatusCode;
use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error as fail};

use crate::{
    attributes::{attributes, describe, new_object, refuse_unsupported, refuse_version, timestamp},
    checksum::{self, Algorithm, Claim, told},
    conditions::{ReadConditions, precondition},
    error::s3_error,
    front::{body, expect_owner},
};

/// How many keys one DeleteObjects may name.
const MAX_DELETE: usize = 1000;

pub(crate) async fn put_object(
    objects: &Objects,
    account: &str,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let mut input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    refuse_unsupported!(input);
    if input.write_offset_bytes.is_some() {
        return Err(fail!(NotImplemented, "Appending to objects is not supported."));
    }
    let condition = precondition(input.if_match.take(), input.if_none_match.take())?;
    let mut new = new_object(input.storage_class.take(), attributes!(input))?;
    let named = input.checksum_algorithm.take();
    let md5 = input.content_md5.take();
    let mut claim = Claim::new(
        told!(input),
        &request.headers,
        request.trailing_headers,
        named.as_ref(),
        md5,
        Algorithm::Crc64Nvme,
    )?;
    objects
        .head_bucket(account, &input.bucket)
        .await
        .map_err(s3_error)?;
    let body = body(input.body)?;
    let staged = objects.stage(claim.watch(body)).await.map_err(s3_error)?;
    let checksum = claim.verify(&staged)?;
    new.attributes.checksum = Some(checksum.clone());
    let info = objects
        .commit(account, &input.bucket, &input.key, staged, &new, &condition)
        .await
        .map_err(s3_error)?;
    let mut output = PutObjectOutput {
        e_tag: Some(ETag::Strong(info.etag)),
        ..Default::default()
    };
    checksum::tell!(output, checksum::carrier(&checksum));
    Ok(S3Response::new(output))
}

pub(crate) async fn get_object(
    objects: &Objects,
    account: &str,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    refuse_version(input.version_id.as_deref())?;
    let object = objects
        .get(account, &input.bucket, &input.key)
        .await
        .map_err(s3_error)?;
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object.info, true)?;
    if matches!(object.info.storage_class.as_str(), "GLACIER" | "DEEP_ARCHIVE") {
        return Err(fail!(
            InvalidObjectState,
            "The operation is not valid for the object's storage class"
        ));
    }
    let window = Window::new(&object, input.range.as_ref(), input.part_number)?;
    let info = object.info.clone();
    let mut output = GetObjectOutput {
        content_length: window.length(),
        content_range: window.content_range(info.size),
        parts_count: window.parts,
        body: Some(StreamingBlob::wrap(object.stream(Some(window.start..window.end)))),
        ..Default::default()
    };
    let checksum = input.checksum_mode.is_some() && !window.partial;
    describe!(output, info, checksum);
    Ok(S3Response::new(output))
}

pub(crate) async fn head_object(
    objects: &Objects,
    account: &str,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    refuse_version(input.version_id.as_deref())?;
    let object = objects
        .get(account, &input.bucket, &input.key)
        .await
        .map_err(s3_error)?;
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object.info, true)?;
    let window = Window::new(&object, input.range.as_ref(), input.part_number)?;
    let info = object.info.clone();
    let mut output = HeadObjectOutput {
        content_length: window.length(),
        content_range: window.content_range(info.size),
        parts_count: window.parts,
        ..Default::default()
    };
    describe!(output, info, input.checksum_mode.is_some() && !window.partial);
    let status = if window.partial {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    Ok(S3Response::with_status(output, status))
}

/// The bytes of an object that a request is about.
struct Window {
    start: u64,
    end: u64,
    partial: bool,
    parts: Option<i32>,
}

impl Window {
    fn new(object: &Object, range: Option<&Range>, part: Option<i32>) -> S3Result<Self> {
        let size = object.info.size;
        match (range, part) {
            (Some(_), Some(_)) => Err(fail!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            )),
            (Some(range), None) => {
                let range = range
                    .check(size)
                    .map_err(|_| fail!(InvalidRange, "The requested range is not satisfiable"))?;
                Ok(Self {
                    start: range.start,
                    end: range.end,
                    partial: true,
                    parts: None,
                })
            }
            (None, Some(number)) => Self::part(object, number),
            (None, None) => Ok(Self {
                start: 0,
                end: size,
                partial: false,
                parts: None,
            }),
        }
    }

    /// A part by its place among the parts; an object put whole is its own part 1.
    fn part(object: &Object, number: i32) -> S3Result<Self> {
        let whole = [object.info.size];
        let parts = if object.parts.is_empty() {
            &whole[..]
        } else {
            &object.parts[..]
        };
        let index = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        let (index, length) = index
            .and_then(|index| Some((index, *parts.get(index)?)))
            .ok_or_else(|| fail!(InvalidRange, "The requested partnumber is not satisfiable"))?;
        let start = parts[..index].iter().sum();
        let count = (!object.parts.is_empty()).then(|| i32::try_from(parts.len()).unwrap_or(i32::MAX));
        Ok(Self {
            start,
            end: start + length,
            partial: object.info.size > 0,
            parts: count,
        })
    }

    fn length(&self) -> Option<i64> {
        i64::try_from(self.end - self.start).ok()
    }

    fn content_range(&self, size: u64) -> Option<String> {
        self.partial
            .then(|| format!("bytes {}-{}/{size}", self.start, self.end.saturating_sub(1)))
    }
}

pub(crate) async fn copy_object(
    objects: &Objects,
    account: &str,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let mut input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    expect_owner(input.expected_source_bucket_owner.as_deref(), account)?;
    refuse_unsupported!(input);
    let (bucket, key) = source(&input.copy_source)?;
    let found = objects.get(account, bucket, key).await.map_err(s3_error)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.take(),
        if_none_match: input.copy_source_if_none_match.take(),
        if_modified_since: input.copy_source_if_modified_since.take(),
        if_unmodified_since: input.copy_source_if_unmodified_since.take(),
    };
    conditions.check(&found.info, false)?;
    let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        Some(MetadataDirective::REPLACE) => true,
        None | Some(MetadataDirective::COPY) => false,
        Some(_) => return Err(fail!(InvalidArgument, "Unknown metadata directive.")),
    };
    if !replace && input.storage_class.is_none() && bucket == input.bucket && key == input.key {
        return Err(fail!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let said = found.info.attributes.clone();
    let attributes = if replace {
        hearth_storage::objects::Attributes {
            checksum: said.checksum,
            ..attributes!(input)
        }
    } else {
        said
    };
    let new = new_object(input.storage_class.take(), attributes)?;
    let info = objects
        .copy(
            account,
            found,
            &input.bucket,
            &input.key,
            &new,
            &Precondition::Always,
        )
        .await
        .map_err(s3_error)?;
    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(info.etag)),
        last_modified: Some(timestamp(info.modified_ms)),
        ..Default::default()
    };
    if let Some(checksum) = &info.attributes.checksum {
        checksum::tell!(result, checksum::carrier(checksum));
    }
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        ..Default::default()
    }))
}

/// The bucket and key a copy takes from.
pub(crate) fn source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => {
            refuse_version(version_id.as_deref())?;
            Ok((bucket, key))
        }
        _ => Err(fail!(NotImplemented, "Access points are not supported.")),
    }
}

pub(crate) async fn delete_object(
    objects: &Objects,
    account: &str,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    refuse_version(input.version_id.as_deref())?;
    let condition = precondition(input.if_match, None)?;
    objects
        .delete(account, &input.bucket, &input.key, &condition)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

pub(crate) async fn delete_objects(
    objects: &Objects,
    account: &str,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    objects
        .head_bucket(account, &input.bucket)
        .await
        .map_err(s3_error)?;
    if input.delete.objects.is_empty() || input.delete.objects.len() > MAX_DELETE {
        return Err(fail!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let done = async {
            refuse_version(object.version_id.as_deref())?;
            let condition = object
                .e_tag
                .map_or(Precondition::Always, |etag| Precondition::Etag(etag.into_value()));
            objects
                .delete(account, &input.bucket, &object.key, &condition)
                .await
                .map_err(s3_error)
        };
        match done.await {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject {
                key: Some(object.key),
                ..Default::default()
            }),
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                message: error.message().map(str::to_owned),
                key: Some(object.key),
                version_id: object.version_id,
            }),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        request_charged: None,
    }))
}
