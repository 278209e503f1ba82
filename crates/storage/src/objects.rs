//! Buckets and objects of several accounts on one node.
//!
//! An object is a row in an index (SQLite) that names its blobs: immutable files of random names
//! behind the `object_store` crate. Keys never become file names, so every S3 key works, and a
//! listing is a range scan in S3's own order.
//!
//! Blobs are written and synced first, the row is committed second, and only then are the blobs it
//! replaced deleted. A crash at any line leaves the old object or the new one; blobs that no row
//! names are swept by [`Objects::open`]. One process at a time may have a directory open.

mod blobs;
mod bucket;
mod error;
mod index;
mod list;
mod multipart;
mod object;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;

use blobs::Blobs;
use futures::{FutureExt, future::BoxFuture};
use index::Index;

pub use blobs::{BodyError, Staged};
pub use bucket::Bucket;
pub use error::ObjectsError;
pub use list::{ListQuery, Listing};
pub use multipart::{CompletedPart, Part, Upload};
pub use object::Object;
pub use types::{Attributes, Checksum, NewObject, ObjectInfo, Precondition};

/// The largest body one PutObject or UploadPart may carry (S3: 5 GiB).
pub const MAX_PUT_BYTES: u64 = 5 << 30;

/// The largest object (S3: 5 TiB).
pub const MAX_OBJECT_BYTES: u64 = 5 << 40;

/// The object store of one node; clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    index: Index,
    blobs: Blobs,
}

impl Objects {
    /// Opens or creates the store in `dir`, dropping what a crash or an abandoned upload left.
    pub fn open(dir: &Path) -> BoxFuture<'_, Result<Self, ObjectsError>> {
        Self::open_dir(dir).boxed()
    }

    async fn open_dir(dir: &Path) -> Result<Self, ObjectsError> {
        let index = Index::open(dir).await?;
        let blobs = Blobs::open(dir)?;
        let objects = Self { index, blobs };
        objects.expire_uploads().await?;
        let named = objects.index.blobs().await?;
        objects.blobs.sweep(named).await?;
        Ok(objects)
    }
}
