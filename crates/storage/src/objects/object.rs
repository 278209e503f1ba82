//! Single objects: put, get, head, copy, delete.

use std::ops::Range;

use bytes::Bytes;
use futures::Stream;
use sqlx::{Row, Sqlite, SqliteConnection};

use super::{
    BodyError, MAX_PUT_BYTES, NewObject, ObjectInfo, Objects, ObjectsError, Precondition, Staged,
    blobs::Pinned,
    index::{self, Segment, owned},
    types,
};

/// An object open for reading: it stays readable as it was, whatever happens to its key.
#[derive(Debug)]
pub struct Object {
    /// What it is
    pub info: ObjectInfo,
    /// The sizes of its parts; empty for an object put in one piece
    pub parts: Vec<u64>,
    pinned: Pinned,
}

impl Object {
    /// Its bytes, or those of a range within `0..info.size`.
    pub fn stream(
        self,
        range: Option<Range<u64>>,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static {
        let range = range.unwrap_or(0..self.info.size);
        self.pinned.stream(range.start, range.end)
    }
}

impl Objects {
    /// Writes a body to disk, to be named by [`Objects::commit`] or [`Objects::put_part`].
    pub async fn stage<S, E>(&self, body: S) -> Result<Staged, ObjectsError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<BodyError>,
    {
        self.blobs.stage(body, MAX_PUT_BYTES).await
    }

    /// Stores an object in one go.
    pub async fn put<S, E>(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        body: S,
        new: &NewObject,
    ) -> Result<ObjectInfo, ObjectsError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<BodyError>,
    {
        types::check_key(key)?;
        self.head_bucket(account, bucket).await?;
        let staged = self.stage(body).await?;
        self.commit(account, bucket, key, staged, new, &Precondition::Always)
            .await
    }

    /// Makes a staged body the object at `key`, in place of any before it.
    pub async fn commit(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        staged: Staged,
        new: &NewObject,
        condition: &Precondition,
    ) -> Result<ObjectInfo, ObjectsError> {
        let info = describe(key, staged.etag(), staged.size(), new)?;
        let mut tx = self.index.write().await?;
        owned(&mut *tx, account, bucket).await?;
        let old = replace(
            &mut tx,
            bucket,
            &info,
            &[(staged.blob().to_owned(), staged.size())],
            condition,
        )
        .await?;
        // Before, not after: a caller gone in mid-commit must not take the blob of a committed row along.
        staged.keep();
        tx.commit().await?;
        self.blobs.discard(old).await;
        Ok(info)
    }

    /// What is at `key`.
    pub async fn head(&self, account: &str, bucket: &str, key: &str) -> Result<ObjectInfo, ObjectsError> {
        Ok(self.row(account, bucket, key).await?.0)
    }

    /// Opens the object at `key` for reading.
    pub async fn get(&self, account: &str, bucket: &str, key: &str) -> Result<Object, ObjectsError> {
        loop {
            let (info, segments) = self.row(account, bucket, key).await?;
            let pinned = self.blobs.pin(segments);
            // Replaced between reading the row and pinning? Then these blobs may be gone: look again.
            let (now, segments) = self.row(account, bucket, key).await?;
            if segments == pinned.segments {
                let multipart = info.etag.contains('-');
                let parts = segments
                    .iter()
                    .filter(|_| multipart)
                    .map(|(_, size)| *size)
                    .collect();
                return Ok(Object {
                    info: now,
                    parts,
                    pinned,
                });
            }
        }
    }

    /// Opens an artifact for the image build; [`ObjectsError::build_code`] names what is wrong.
    /// With a `region`, a bucket of another one is refused as S3 does.
    pub async fn fetch(
        &self,
        account: &str,
        region: Option<&str>,
        bucket: &str,
        key: &str,
    ) -> Result<Object, ObjectsError> {
        let found = self.head_bucket(account, bucket).await?;
        if region.is_some_and(|region| region != found.region) {
            return Err(ObjectsError::WrongRegion(found.region));
        }
        let object = self.get(account, bucket, key).await?;
        match object.info.storage_class.as_str() {
            "GLACIER" | "DEEP_ARCHIVE" => Err(ObjectsError::InvalidObjectState),
            _ => Ok(object),
        }
    }

    /// Deletes what is at `key`, if anything is and it meets the condition.
    pub async fn delete(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        condition: &Precondition,
    ) -> Result<(), ObjectsError> {
        let mut tx = self.index.write().await?;
        owned(&mut *tx, account, bucket).await?;
        let old = present(&mut tx, bucket, key, condition).await?;
        sqlx::query("DELETE FROM objects WHERE bucket = ? AND key = ?")
            .bind(bucket)
            .bind(key)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.blobs.discard(old).await;
        Ok(())
    }

    /// Copies an open object to `key`; no byte is moved. The caller says what the copy is.
    pub async fn copy(
        &self,
        account: &str,
        source: Object,
        bucket: &str,
        key: &str,
        new: &NewObject,
        condition: &Precondition,
    ) -> Result<ObjectInfo, ObjectsError> {
        let info = describe(key, source.info.etag.clone(), source.info.size, new)?;
        self.head_bucket(account, bucket).await?;
        let mut linked: Vec<Segment> = Vec::new();
        let copied = async {
            for (blob, size) in &source.pinned.segments {
                linked.push((self.blobs.copy(blob).await?, *size));
            }
            let mut tx = self.index.write().await?;
            owned(&mut *tx, account, bucket).await?;
            let old = replace(&mut tx, bucket, &info, &linked, condition).await?;
            tx.commit().await?;
            Ok(old)
        };
        let copied: Result<Vec<String>, ObjectsError> = copied.await;
        match copied {
            Ok(old) => self.blobs.discard(old).await,
            Err(error) => {
                self.blobs.discard(linked.into_iter().map(|(blob, _)| blob)).await;
                return Err(error);
            }
        }
        Ok(info)
    }

    async fn row(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
    ) -> Result<(ObjectInfo, Vec<Segment>), ObjectsError> {
        owned(self.index.pool(), account, bucket).await?;
        let row = sqlx::query("SELECT * FROM objects WHERE bucket = ? AND key = ?")
            .bind(bucket)
            .bind(key)
            .fetch_optional(self.index.pool())
            .await?
            .ok_or(ObjectsError::NoSuchKey)?;
        Ok((index::info(&row)?, index::segments(&row)?))
    }
}

/// The new object's description, dated now.
pub(super) fn describe(
    key: &str,
    etag: String,
    size: u64,
    new: &NewObject,
) -> Result<ObjectInfo, ObjectsError> {
    types::check_key(key)?;
    Ok(ObjectInfo {
        key: key.to_owned(),
        etag,
        size,
        modified_ms: types::now_ms(),
        storage_class: new.storage_class().to_owned(),
        attributes: new.attributes.clone(),
    })
}

/// Writes an object's row and returns the blobs it no longer needs.
pub(super) async fn replace(
    db: &mut SqliteConnection,
    bucket: &str,
    info: &ObjectInfo,
    segments: &[Segment],
    condition: &Precondition,
) -> Result<Vec<String>, ObjectsError> {
    let old = present(db, bucket, &info.key, condition).await?;
    sqlx::query::<Sqlite>(
        "INSERT OR REPLACE INTO objects (bucket, key, etag, size, modified_ms, storage_class, attributes, blobs) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(bucket)
    .bind(&info.key)
    .bind(&info.etag)
    .bind(types::signed(info.size))
    .bind(info.modified_ms)
    .bind(&info.storage_class)
    .bind(serde_json::to_string(&info.attributes)?)
    .bind(serde_json::to_string(segments)?)
    .execute(db)
    .await?;
    Ok(old)
}

/// The blobs of the object now at `key`, having checked the condition on it.
async fn present(
    db: &mut SqliteConnection,
    bucket: &str,
    key: &str,
    condition: &Precondition,
) -> Result<Vec<String>, ObjectsError> {
    let row = sqlx::query("SELECT etag, blobs FROM objects WHERE bucket = ? AND key = ?")
        .bind(bucket)
        .bind(key)
        .fetch_optional(db)
        .await?;
    let Some(row) = row else {
        condition.check(None)?;
        return Ok(Vec::new());
    };
    condition.check(Some(row.try_get("etag")?))?;
    Ok(index::segments(&row)?.into_iter().map(|(blob, _)| blob).collect())
}
