//! What can go wrong, in S3's words.

use super::blobs::BodyError;

/// Why an object operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The specified bucket does not exist
    #[error("The specified bucket does not exist")]
    NoSuchBucket,
    /// The specified key does not exist
    #[error("The specified key does not exist.")]
    NoSuchKey,
    /// The specified upload does not exist
    #[error(
        "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )]
    NoSuchUpload,
    /// The bucket belongs to another account
    #[error("Access Denied")]
    AccessDenied,
    /// The bucket lives in another region
    #[error("The bucket is in the region {0}")]
    WrongRegion(String),
    /// The object is in an archive storage class
    #[error("The operation is not valid for the object's storage class")]
    InvalidObjectState,
    /// The bucket name breaks S3's naming rules
    #[error("The specified bucket is not valid.")]
    InvalidBucketName,
    /// Another account has a bucket of this name
    #[error("The requested bucket name is not available.")]
    BucketAlreadyExists,
    /// The caller has a bucket of this name
    #[error("Your previous request to create the named bucket succeeded and you already own it.")]
    BucketAlreadyOwnedByYou,
    /// The bucket still has objects or uploads
    #[error("The bucket you tried to delete is not empty")]
    BucketNotEmpty,
    /// The key is empty
    #[error("The specified key is not valid.")]
    InvalidKey,
    /// The key has more than 1024 bytes
    #[error("Your key is too long")]
    KeyTooLong,
    /// The body or the object is too large
    #[error("Your proposed upload exceeds the maximum allowed size")]
    EntityTooLarge,
    /// A part but the last is under 5 MiB
    #[error("Your proposed upload is smaller than the minimum allowed size")]
    EntityTooSmall,
    /// A part is missing or its ETag differs
    #[error(
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
    )]
    InvalidPart,
    /// The parts are not in ascending order
    #[error("The list of parts was not in ascending order. Parts must be ordered by part number.")]
    InvalidPartOrder,
    /// The part number is not in 1..=10000
    #[error("Part number must be an integer between 1 and 10000, inclusive")]
    InvalidPartNumber,
    /// A condition on the present object does not hold
    #[error("At least one of the pre-conditions you specified did not hold")]
    PreconditionFailed,
    /// The sender's stream broke or failed its own checks
    #[error("reading the body: {0}")]
    Body(#[source] BodyError),
    /// The index could not be read or written
    #[error("the object index: {0}")]
    Index(#[from] sqlx::Error),
    /// The index is of a version this program does not know
    #[error("the object index's version: {0}")]
    Version(#[from] sqlx::migrate::MigrateError),
    /// A row of the index cannot be understood
    #[error("the object index is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A blob could not be read or written
    #[error("the object's data: {0}")]
    Store(#[from] object_store::Error),
    /// The directory could not be read or written
    #[error("the object directory: {0}")]
    Io(#[from] std::io::Error),
}

impl ObjectsError {
    /// The image build's failure code for an artifact that cannot be fetched (spec section 7.1).
    pub fn build_code(&self) -> &'static str {
        match self {
            Self::NoSuchBucket | Self::InvalidBucketName => "S3_NO_SUCH_BUCKET",
            Self::NoSuchKey | Self::InvalidKey | Self::KeyTooLong => "S3_NO_SUCH_KEY",
            Self::AccessDenied => "S3_ACCESS_DENIED",
            Self::InvalidObjectState => "S3_INVALID_OBJECT",
            Self::WrongRegion(_) => "S3_CROSS_REGION_ACCESS_DENIED",
            _ => "INTERNAL_PLATFORM_ERROR",
        }
    }
}
