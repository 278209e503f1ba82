//! Multipart uploads.

use hearth_storage::objects::{self, Objects};
use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error as fail};

use crate::{
    attributes::{attributes, new_object, refuse_unsupported, timestamp},
    bucket::owner,
    checksum::{self, Algorithm, Claim, told},
    conditions::{ReadConditions, precondition},
    error::s3_error,
    front::{body, expect_owner},
    list::Text,
    object::source,
};

pub(crate) async fn create_multipart_upload(
    objects: &Objects,
    account: &str,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let mut input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    refuse_unsupported!(input);
    let mut new = new_object(input.storage_class.take(), attributes!(input))?;
    new.attributes.checksum =
        checksum::announced(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let id = objects
        .create_upload(account, &input.bucket, &input.key, &new)
        .await
        .map_err(s3_error)?;
    let kind = new
        .attributes
        .checksum
        .as_ref()
        .and_then(|checksum| checksum::carrier(checksum).checksum_type);
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: kind,
        ..Default::default()
    }))
}

pub(crate) async fn upload_part(
    objects: &Objects,
    account: &str,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let mut input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    let number = part_number(input.part_number)?;
    let upload = objects
        .upload(account, &input.bucket, &input.key, &input.upload_id)
        .await
        .map_err(s3_error)?;
    let named = input.checksum_algorithm.take();
    let md5 = input.content_md5.take();
    let default = default_algorithm(&upload)?;
    let mut claim = Claim::new(
        told!(input),
        &request.headers,
        request.trailing_headers,
        named.as_ref(),
        md5,
        default,
    )?;
    let body = body(input.body)?;
    let staged = objects.stage(claim.watch(body)).await.map_err(s3_error)?;
    let checksum = claim.verify(&staged)?;
    let part = objects
        .put_part(
            account,
            &input.bucket,
            &input.key,
            &input.upload_id,
            number,
            staged,
            Some(checksum.clone()),
        )
        .await
        .map_err(s3_error)?;
    let mut output = UploadPartOutput {
        e_tag: Some(ETag::Strong(part.etag)),
        ..Default::default()
    };
    checksum::tell_value!(output, checksum::carrier(&checksum));
    Ok(S3Response::new(output))
}

pub(crate) async fn upload_part_copy(
    objects: &Objects,
    account: &str,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    expect_owner(input.expected_source_bucket_owner.as_deref(), account)?;
    let number = part_number(input.part_number)?;
    let upload = objects
        .upload(account, &input.bucket, &input.key, &input.upload_id)
        .await
        .map_err(s3_error)?;
    let (bucket, key) = source(&input.copy_source)?;
    let found = objects.get(account, bucket, key).await.map_err(s3_error)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check(&found.info, false)?;
    let range = input
        .copy_source_range
        .as_deref()
        .map(|text| copy_range(text, found.info.size))
        .transpose()?;
    let headers = http::HeaderMap::new();
    let mut claim = Claim::new(
        Checksum::default(),
        &headers,
        None,
        None,
        None,
        default_algorithm(&upload)?,
    )?;
    let staged = objects
        .stage(claim.watch(found.stream(range)))
        .await
        .map_err(s3_error)?;
    let checksum = claim.verify(&staged)?;
    let part = objects
        .put_part(
            account,
            &input.bucket,
            &input.key,
            &input.upload_id,
            number,
            staged,
            Some(checksum.clone()),
        )
        .await
        .map_err(s3_error)?;
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(part.etag)),
        last_modified: Some(timestamp(part.modified_ms)),
        ..Default::default()
    };
    checksum::tell_value!(result, checksum::carrier(&checksum));
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..Default::default()
    }))
}

/// `bytes=first-last`, both given and within the source.
fn copy_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let invalid = || {
        fail!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last"
        )
    };
    let Ok(Range::Int {
        first,
        last: Some(last),
    }) = Range::parse(text)
    else {
        return Err(invalid());
    };
    if last >= size {
        return Err(fail!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {}",
            size
        ));
    }
    Ok(first..last + 1)
}

pub(crate) async fn complete_multipart_upload(
    objects: &Objects,
    account: &str,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let mut input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    let condition = precondition(input.if_match.take(), input.if_none_match.take())?;
    let claimed = checksum::single(told!(input))?;
    let (bucket, key, id) = (&input.bucket, &input.key, &input.upload_id);
    let upload = objects.upload(account, bucket, key, id).await.map_err(s3_error)?;
    let present = objects
        .list_parts(account, bucket, key, id)
        .await
        .map_err(s3_error)?;
    let mut wanted = Vec::new();
    let mut chosen = Vec::new();
    for mut part in input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default()
    {
        let number = part_number(part.part_number.unwrap_or_default())?;
        let etag = part.e_tag.take().map(ETag::into_value).unwrap_or_default();
        let found = present
            .iter()
            .find(|found| found.number == number && found.etag == etag);
        let found = found.ok_or_else(|| s3_error(objects::ObjectsError::InvalidPart))?;
        let told = checksum::single(told!(part))?;
        let matches = |(algorithm, value): (Algorithm, String)| {
            found
                .checksum
                .as_ref()
                .is_some_and(|c| c.algorithm != algorithm.name() || c.value == value)
        };
        if !told.is_none_or(matches) {
            return Err(s3_error(objects::ObjectsError::InvalidPart));
        }
        chosen.push(found);
        wanted.push(objects::CompletedPart { number, etag });
    }
    let size: u64 = chosen.iter().map(|part| part.size).sum();
    if input
        .mpu_object_size
        .is_some_and(|told| u64::try_from(told) != Ok(size))
    {
        return Err(fail!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header does not match what was computed."
        ));
    }
    // Without an algorithm announced, S3 keeps a CRC64NVME of the whole object.
    let full = objects::Checksum {
        algorithm: "CRC64NVME".to_owned(),
        value: String::new(),
        composite: false,
    };
    let announced = upload.new.attributes.checksum.unwrap_or(full);
    let checksum = checksum::of_parts(&announced, &chosen);
    if let (Some((algorithm, told)), Some(computed)) = (&claimed, &checksum)
        && algorithm.name() == computed.algorithm
        && *told != computed.value
    {
        return Err(fail!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            algorithm.name()
        ));
    }
    let info = objects
        .complete_upload(account, bucket, key, id, &wanted, checksum.clone(), &condition)
        .await
        .map_err(s3_error)?;
    let mut output = CompleteMultipartUploadOutput {
        location: Some(format!(
            "/{bucket}/{}",
            Text::new(Some(&EncodingType::from_static(EncodingType::URL))).of(key.clone())
        )),
        e_tag: Some(ETag::Strong(info.etag)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        ..Default::default()
    };
    if let Some(checksum) = &checksum {
        checksum::tell!(output, checksum::carrier(checksum));
    }
    Ok(S3Response::new(output))
}

pub(crate) async fn abort_multipart_upload(
    objects: &Objects,
    account: &str,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    objects
        .abort_upload(account, &input.bucket, &input.key, &input.upload_id)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(crate) async fn list_parts(
    objects: &Objects,
    account: &str,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    let upload = objects
        .upload(account, &input.bucket, &input.key, &input.upload_id)
        .await
        .map_err(s3_error)?;
    let parts = objects
        .list_parts(account, &input.bucket, &input.key, &input.upload_id)
        .await
        .map_err(s3_error)?;
    let after = input.part_number_marker.unwrap_or(0);
    let limit = input.max_parts.unwrap_or(1000).clamp(1, 1000);
    let mut page: Vec<Part> = Vec::new();
    for part in parts.into_iter().filter(|part| i32::from(part.number) > after) {
        let mut told = Part {
            part_number: Some(i32::from(part.number)),
            e_tag: Some(ETag::Strong(part.etag)),
            size: i64::try_from(part.size).ok(),
            last_modified: Some(timestamp(part.modified_ms)),
            ..Default::default()
        };
        if let Some(checksum) = &part.checksum {
            checksum::tell_value!(told, checksum::carrier(checksum));
        }
        page.push(told);
    }
    let more = page.len() > limit.unsigned_abs() as usize;
    page.truncate(limit.unsigned_abs() as usize);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(after),
        next_part_number_marker: page.last().and_then(|part| part.part_number),
        max_parts: Some(limit),
        is_truncated: Some(more),
        parts: Some(page),
        owner: Some(owner(account)),
        storage_class: upload.new.storage_class.map(Into::into),
        ..Default::default()
    }))
}

pub(crate) async fn list_multipart_uploads(
    objects: &Objects,
    account: &str,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    expect_owner(input.expected_bucket_owner.as_deref(), account)?;
    if input
        .delimiter
        .as_ref()
        .is_some_and(|delimiter| !delimiter.is_empty())
    {
        return Err(fail!(
            NotImplemented,
            "Listing uploads with a delimiter is not supported."
        ));
    }
    let text = Text::new(input.encoding_type.as_ref());
    let prefix = input.prefix.unwrap_or_default();
    let mut uploads = objects
        .list_uploads(account, &input.bucket, &prefix)
        .await
        .map_err(s3_error)?;
    if let Some(key) = &input.key_marker {
        let id = input.upload_id_marker.as_deref();
        uploads.retain(|upload| {
            upload.key > *key || upload.key == *key && id.is_some_and(|id| upload.id.as_str() > id)
        });
    }
    let limit = input.max_uploads.unwrap_or(1000).clamp(1, 1000);
    let more = uploads.len() > limit.unsigned_abs() as usize;
    uploads.truncate(limit.unsigned_abs() as usize);
    let last = uploads.last().filter(|_| more);
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        next_key_marker: last.map(|upload| text.of(upload.key.clone())),
        next_upload_id_marker: last.map(|upload| upload.id.clone()),
        prefix: Some(text.of(prefix)),
        key_marker: input.key_marker.map(|key| text.of(key)),
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        max_uploads: Some(limit),
        is_truncated: Some(more),
        uploads: Some(
            uploads
                .into_iter()
                .map(|upload| told_upload(&text, account, upload))
                .collect(),
        ),
        ..Default::default()
    }))
}

fn told_upload(text: &Text, account: &str, upload: objects::Upload) -> MultipartUpload {
    MultipartUpload {
        key: Some(text.of(upload.key)),
        upload_id: Some(upload.id),
        initiated: Some(timestamp(upload.created_ms)),
        storage_class: upload.new.storage_class.map(Into::into),
        owner: Some(owner(account)),
        initiator: Some(Initiator {
            display_name: None,
            id: Some(account.to_owned()),
        }),
        ..Default::default()
    }
}

fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number)
        .ok()
        .filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| s3_error(objects::ObjectsError::InvalidPartNumber))
}

/// What a part is summed with when its sender names nothing.
fn default_algorithm(upload: &objects::Upload) -> S3Result<Algorithm> {
    upload
        .new
        .attributes
        .checksum
        .as_ref()
        .map_or(Ok(Algorithm::Crc64Nvme), |c| Algorithm::parse(&c.algorithm))
}
