//! The operations `s3s` may call; each lives with its own kind.

use async_trait::async_trait;
use hearth_storage::objects::{MAX_PUT_BYTES, Objects, ObjectsError};
use s3s::{S3, S3Request, S3Response, S3Result, dto::*, s3_error, stream::ByteStream};

use crate::{bucket, list, multipart, object};

/// The store behind the protocol.
pub(crate) struct Front {
    pub(crate) objects: Objects,
}

/// A caller who names the owner it expects is refused when it is another.
pub(crate) fn expect_owner(expected: Option<&str>, account: &str) -> S3Result<()> {
    match expected {
        Some(expected) if expected != account => Err(s3_error!(AccessDenied, "Access Denied")),
        _ => Ok(()),
    }
}

/// The body of a request; one that is announced as too large is refused before any of it is read.
pub(crate) fn body(sent: Option<StreamingBlob>) -> S3Result<StreamingBlob> {
    let body = sent.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
    match body.remaining_length().exact() {
        Some(length) if length as u64 > MAX_PUT_BYTES => {
            Err(crate::error::s3_error(ObjectsError::EntityTooLarge))
        }
        _ => Ok(body),
    }
}

/// Hands each operation to the function of its kind.
macro_rules! operations {
    ($($name:ident: $module:ident, $input:ty => $output:ty;)*) => {
        #[async_trait]
        impl S3 for Front {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                let account = crate::auth::account(&request)?;
                $module::$name(&self.objects, &account, request).await
            })*
        }
    };
}

operations! {
    create_bucket: bucket, CreateBucketInput => CreateBucketOutput;
    delete_bucket: bucket, DeleteBucketInput => DeleteBucketOutput;
    head_bucket: bucket, HeadBucketInput => HeadBucketOutput;
    list_buckets: bucket, ListBucketsInput => ListBucketsOutput;
    get_bucket_location: bucket, GetBucketLocationInput => GetBucketLocationOutput;
    get_bucket_versioning: bucket, GetBucketVersioningInput => GetBucketVersioningOutput;

    put_object: object, PutObjectInput => PutObjectOutput;
    get_object: object, GetObjectInput => GetObjectOutput;
    head_object: object, HeadObjectInput => HeadObjectOutput;
    copy_object: object, CopyObjectInput => CopyObjectOutput;
    delete_object: object, DeleteObjectInput => DeleteObjectOutput;
    delete_objects: object, DeleteObjectsInput => DeleteObjectsOutput;

    list_objects: list, ListObjectsInput => ListObjectsOutput;
    list_objects_v2: list, ListObjectsV2Input => ListObjectsV2Output;

    create_multipart_upload: multipart, CreateMultipartUploadInput => CreateMultipartUploadOutput;
    upload_part: multipart, UploadPartInput => UploadPartOutput;
    upload_part_copy: multipart, UploadPartCopyInput => UploadPartCopyOutput;
    complete_multipart_upload: multipart, CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
    abort_multipart_upload: multipart, AbortMultipartUploadInput => AbortMultipartUploadOutput;
    list_parts: multipart, ListPartsInput => ListPartsOutput;
    list_multipart_uploads: multipart, ListMultipartUploadsInput => ListMultipartUploadsOutput;
}
