//! Multipart uploads: parts are blobs; completing one names them all in a single row.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use sqlx::{Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    Checksum, MAX_OBJECT_BYTES, NewObject, ObjectInfo, Objects, ObjectsError, Precondition, Staged,
    blobs::hex,
    index::{Segment, owned},
    object::{describe, replace},
    types,
};

/// The least size of a part that is not the last (S3: 5 MiB).
const MIN_PART_BYTES: u64 = 5 << 20;

/// An upload nobody has touched for a week is abandoned.
const ABANDONED_MS: i64 = 7 * 24 * 3600 * 1000;

/// An upload in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id
    pub id: String,
    /// The key it is for
    pub key: String,
    /// What the object will be
    pub new: NewObject,
    /// Unix time in milliseconds
    pub created_ms: i64,
}

/// An uploaded part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10000
    pub number: u16,
    /// The MD5 in hex, without quotes
    pub etag: String,
    /// Bytes
    pub size: u64,
    /// Unix time in milliseconds
    pub modified_ms: i64,
    /// The checksum it was sent with
    pub checksum: Option<Checksum>,
}

/// A part as the completing caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// 1 to 10000
    pub number: u16,
    /// Without quotes
    pub etag: String,
}

impl Objects {
    /// Begins an upload and returns its id.
    pub async fn create_upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        new: &NewObject,
    ) -> Result<String, ObjectsError> {
        types::check_key(key)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut tx = self.index.write().await?;
        owned(&mut *tx, account, bucket).await?;
        sqlx::query("INSERT INTO uploads (id, bucket, key, storage_class, attributes, created_ms) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&id)
            .bind(bucket)
            .bind(key)
            .bind(new.storage_class())
            .bind(serde_json::to_string(&new.attributes)?)
            .bind(types::now_ms())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(id)
    }

    /// The upload of this id for this key.
    pub async fn upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Upload, ObjectsError> {
        let mut db = self.index.pool().acquire().await?;
        find(&mut db, account, bucket, key, id).await
    }

    /// Makes a staged body part `number` of an upload, in place of any before it.
    #[expect(clippy::too_many_arguments, reason = "S3 addresses a part by all of these")]
    pub async fn put_part(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        id: &str,
        number: u16,
        staged: Staged,
        checksum: Option<Checksum>,
    ) -> Result<Part, ObjectsError> {
        if !(1..=10_000).contains(&number) {
            return Err(ObjectsError::InvalidPartNumber);
        }
        let part = Part {
            number,
            etag: staged.etag(),
            size: staged.size(),
            modified_ms: types::now_ms(),
            checksum,
        };
        let mut tx = self.index.write().await?;
        find(&mut tx, account, bucket, key, id).await?;
        let old: Option<String> =
            sqlx::query_scalar("SELECT blob FROM parts WHERE upload = ? AND number = ?")
                .bind(id)
                .bind(number)
                .fetch_optional(&mut *tx)
                .await?;
        sqlx::query(
            "INSERT OR REPLACE INTO parts (upload, number, etag, size, modified_ms, checksum, blob) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(number)
        .bind(&part.etag)
        .bind(types::signed(part.size))
        .bind(part.modified_ms)
        .bind(serde_json::to_string(&part.checksum)?)
        .bind(staged.blob())
        .execute(&mut *tx)
        .await?;
        staged.keep();
        tx.commit().await?;
        self.blobs.discard(old).await;
        Ok(part)
    }

    /// All parts of an upload by number.
    pub async fn list_parts(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Vec<Part>, ObjectsError> {
        let mut db = self.index.pool().acquire().await?;
        find(&mut db, account, bucket, key, id).await?;
        Ok(parts(&mut db, id)
            .await?
            .into_values()
            .map(|(part, _)| part)
            .collect())
    }

    /// The uploads in progress whose key begins with `prefix`, by key and id.
    pub async fn list_uploads(
        &self,
        account: &str,
        bucket: &str,
        prefix: &str,
    ) -> Result<Vec<Upload>, ObjectsError> {
        self.head_bucket(account, bucket).await?;
        let rows = sqlx::query("SELECT * FROM uploads WHERE bucket = ? ORDER BY key, id")
            .bind(bucket)
            .fetch_all(self.index.pool())
            .await?;
        let uploads: Result<Vec<Upload>, _> = rows.iter().map(upload).collect();
        Ok(uploads?
            .into_iter()
            .filter(|upload| upload.key.starts_with(prefix))
            .collect())
    }

    /// Makes the named parts the object, with `checksum` as its checksum.
    #[expect(clippy::too_many_arguments, reason = "S3 addresses an upload by all of these")]
    pub async fn complete_upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        id: &str,
        wanted: &[CompletedPart],
        checksum: Option<Checksum>,
        condition: &Precondition,
    ) -> Result<ObjectInfo, ObjectsError> {
        let mut tx = self.index.write().await?;
        let mut upload = find(&mut tx, account, bucket, key, id).await?;
        let mut present = parts(&mut tx, id).await?;
        let (segments, etag) = choose(&mut present, wanted)?;
        upload.new.attributes.checksum = checksum;
        let size = segments.iter().map(|(_, size)| size).sum();
        if size > MAX_OBJECT_BYTES {
            return Err(ObjectsError::EntityTooLarge);
        }
        let info = describe(key, etag, size, &upload.new)?;
        let old = replace(&mut tx, bucket, &info, &segments, condition).await?;
        sqlx::query("DELETE FROM uploads WHERE id = ?")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.blobs
            .discard(old.into_iter().chain(present.into_values().map(|(_, blob)| blob)))
            .await;
        Ok(info)
    }

    /// Ends an upload and deletes its parts.
    pub async fn abort_upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<(), ObjectsError> {
        let mut tx = self.index.write().await?;
        find(&mut tx, account, bucket, key, id).await?;
        let present = parts(&mut tx, id).await?;
        sqlx::query("DELETE FROM uploads WHERE id = ?")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.blobs
            .discard(present.into_values().map(|(_, blob)| blob))
            .await;
        Ok(())
    }

    /// Forgets abandoned uploads; their blobs are swept after.
    pub(super) async fn expire_uploads(&self) -> Result<(), ObjectsError> {
        let mut tx = self.index.write().await?;
        sqlx::query(
            "DELETE FROM uploads WHERE max(created_ms, \
             coalesce((SELECT max(modified_ms) FROM parts WHERE upload = id), 0)) < ?",
        )
        .bind(types::now_ms() - ABANDONED_MS)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

/// Takes the wanted parts out of the present ones: their blobs in order, and the object's ETag.
fn choose(
    present: &mut BTreeMap<u16, (Part, String)>,
    wanted: &[CompletedPart],
) -> Result<(Vec<Segment>, String), ObjectsError> {
    if wanted.is_empty() {
        return Err(ObjectsError::InvalidPart);
    }
    if !wanted.is_sorted_by(|a, b| a.number < b.number) {
        return Err(ObjectsError::InvalidPartOrder);
    }
    let mut md5 = Md5::new();
    let mut segments: Vec<Segment> = Vec::new();
    for (at, want) in wanted.iter().enumerate() {
        let (part, blob) = present.remove(&want.number).ok_or(ObjectsError::InvalidPart)?;
        if part.etag != want.etag {
            return Err(ObjectsError::InvalidPart);
        }
        if part.size < MIN_PART_BYTES && at + 1 < wanted.len() {
            return Err(ObjectsError::EntityTooSmall);
        }
        md5.update(unhex(&part.etag));
        segments.push((blob, part.size));
    }
    let digest: [u8; 16] = md5.finalize().into();
    Ok((segments, format!("{}-{}", hex(&digest), wanted.len())))
}

async fn find(
    db: &mut SqliteConnection,
    account: &str,
    bucket: &str,
    key: &str,
    id: &str,
) -> Result<Upload, ObjectsError> {
    owned(&mut *db, account, bucket).await?;
    let row = sqlx::query::<Sqlite>("SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?")
        .bind(id)
        .bind(bucket)
        .bind(key)
        .fetch_optional(db)
        .await?
        .ok_or(ObjectsError::NoSuchUpload)?;
    upload(&row)
}

fn upload(row: &SqliteRow) -> Result<Upload, ObjectsError> {
    Ok(Upload {
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        new: NewObject {
            storage_class: Some(row.try_get("storage_class")?),
            attributes: serde_json::from_str(row.try_get("attributes")?)?,
        },
        created_ms: row.try_get("created_ms")?,
    })
}

/// The parts of an upload and their blobs.
async fn parts(db: &mut SqliteConnection, id: &str) -> Result<BTreeMap<u16, (Part, String)>, ObjectsError> {
    let rows = sqlx::query("SELECT * FROM parts WHERE upload = ? ORDER BY number")
        .bind(id)
        .fetch_all(db)
        .await?;
    let mut parts = BTreeMap::new();
    for row in rows {
        let part = Part {
            number: row.try_get("number")?,
            etag: row.try_get("etag")?,
            size: types::unsigned(&row, "size")?,
            modified_ms: row.try_get("modified_ms")?,
            checksum: serde_json::from_str(row.try_get("checksum")?)?,
        };
        parts.insert(part.number, (part, row.try_get("blob")?));
    }
    Ok(parts)
}

/// The bytes of our own hex.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| (pair[0] << 4) | pair[1])
        .collect()
}
