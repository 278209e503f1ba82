//! Bucket operations.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hearth_storage::objects::{Objects, ObjectsError};
use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error as fail};

use crate::{attributes::timestamp, error::s3_error, front::expect_owner};

pub(crate) async fn create_bucket(
    objects: &Objects,
    account: &str,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let scope = request.region.as_ref().map(|region| region.as_str().to_owned());
    let input = request.input;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(fail!(NotImplemented, "Object lock is not supported."));
    }
    let asked = input
        .create_bucket_configuration
        .and_then(|configuration| configuration.location_constraint);
    let asked = asked
        .map(|region| region.as_str().to_owned())
        .filter(|region| !region.is_empty());
    let region = asked.or(scope).unwrap_or_else(|| "us-east-1".to_owned());
    match objects.create_bucket(account, &input.bucket, &region).await {
        // us-east-1 alone forgives creating one's own bucket again.
        Err(ObjectsError::BucketAlreadyOwnedByYou) if region == "us-east-1" => {}
        result => result.map_err(s3_error)?,
    }
    Ok(S3Response::new(CreateBucketOutput {
        location: Some(format!("/{}", input.bucket)),
    }))
}

pub(crate) async fn delete_bucket(
    objects: &Objects,
    account: &str,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    expect_owner(request.input.expected_bucket_owner.as_deref(), account)?;
    objects
        .delete_bucket(account, &request.input.bucket)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::with_status(
        DeleteBucketOutput {},
        http::StatusCode::NO_CONTENT,
    ))
}

pub(crate) async fn head_bucket(
    objects: &Objects,
    account: &str,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    expect_owner(request.input.expected_bucket_owner.as_deref(), account)?;
    let bucket = objects
        .head_bucket(account, &request.input.bucket)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(bucket.region),
        ..Default::default()
    }))
}

pub(crate) async fn list_buckets(
    objects: &Objects,
    account: &str,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let input = request.input;
    let prefix = input.prefix.unwrap_or_default();
    let after = match input.continuation_token {
        Some(token) => untoken(&token)?,
        None => String::new(),
    };
    let limit = usize::try_from(input.max_buckets.unwrap_or(10_000))
        .unwrap_or(0)
        .clamp(1, 10_000);
    let mut found = objects.list_buckets(account).await.map_err(s3_error)?;
    found.retain(|bucket| {
        let here = input
            .bucket_region
            .as_ref()
            .is_none_or(|region| *region == bucket.region);
        here && bucket.name.starts_with(&prefix) && bucket.name > after
    });
    let more = found.len() > limit;
    found.truncate(limit);
    let token = found
        .last()
        .filter(|_| more)
        .map(|bucket| BASE64.encode(&bucket.name));
    let buckets = found.into_iter().map(|bucket| Bucket {
        creation_date: Some(timestamp(bucket.created_ms)),
        bucket_region: Some(bucket.region),
        name: Some(bucket.name),
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets.collect()),
        owner: Some(owner(account)),
        continuation_token: token,
        prefix: (!prefix.is_empty()).then_some(prefix),
    }))
}

pub(crate) async fn get_bucket_location(
    objects: &Objects,
    account: &str,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    expect_owner(request.input.expected_bucket_owner.as_deref(), account)?;
    let bucket = objects
        .head_bucket(account, &request.input.bucket)
        .await
        .map_err(s3_error)?;
    // The oldest region answers with an empty element.
    let location_constraint = (bucket.region != "us-east-1").then(|| bucket.region.into());
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}

/// No bucket has versioning; clients ask before they list or sync.
pub(crate) async fn get_bucket_versioning(
    objects: &Objects,
    account: &str,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    expect_owner(request.input.expected_bucket_owner.as_deref(), account)?;
    objects
        .head_bucket(account, &request.input.bucket)
        .await
        .map_err(s3_error)?;
    Ok(S3Response::new(GetBucketVersioningOutput::default()))
}

/// The account as the owner of what it has.
pub(crate) fn owner(account: &str) -> Owner {
    Owner {
        display_name: None,
        id: Some(account.to_owned()),
    }
}

/// What a continuation token of ours stands for.
pub(crate) fn untoken(token: &str) -> S3Result<String> {
    let bytes = BASE64.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| fail!(InvalidArgument, "The continuation token provided is incorrect"))
}
