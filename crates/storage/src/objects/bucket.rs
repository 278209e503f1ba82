//! Buckets.

use sqlx::{Row, sqlite::SqliteRow};

use super::{Objects, ObjectsError, index::owned, types};

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The name, unique on this node
    pub name: String,
    /// The region it was created in
    pub region: String,
    /// Unix time in milliseconds
    pub created_ms: i64,
}

impl Bucket {
    pub(super) fn from_row(row: &SqliteRow) -> Result<Self, ObjectsError> {
        Ok(Self {
            name: row.try_get("name")?,
            region: row.try_get("region")?,
            created_ms: row.try_get("created_ms")?,
        })
    }
}

impl Objects {
    /// Creates a bucket for `account`.
    pub async fn create_bucket(&self, account: &str, name: &str, region: &str) -> Result<(), ObjectsError> {
        types::check_bucket_name(name)?;
        let mut tx = self.index.write().await?;
        match owned(&mut *tx, account, name).await {
            Err(ObjectsError::NoSuchBucket) => {}
            Err(ObjectsError::AccessDenied) => return Err(ObjectsError::BucketAlreadyExists),
            Err(error) => return Err(error),
            Ok(_) => return Err(ObjectsError::BucketAlreadyOwnedByYou),
        }
        sqlx::query("INSERT INTO buckets (name, account, region, created_ms) VALUES (?, ?, ?, ?)")
            .bind(name)
            .bind(account)
            .bind(region)
            .bind(types::now_ms())
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Deletes an empty bucket; unfinished uploads in it are aborted.
    pub async fn delete_bucket(&self, account: &str, name: &str) -> Result<(), ObjectsError> {
        let mut tx = self.index.write().await?;
        owned(&mut *tx, account, name).await?;
        if sqlx::query("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1")
            .bind(name)
            .fetch_optional(&mut *tx)
            .await?
            .is_some()
        {
            return Err(ObjectsError::BucketNotEmpty);
        }
        let parts = sqlx::query("SELECT blob FROM parts JOIN uploads ON upload = id WHERE bucket = ?");
        let blobs: Result<Vec<String>, _> = parts
            .bind(name)
            .fetch_all(&mut *tx)
            .await?
            .iter()
            .map(|row| row.try_get("blob"))
            .collect();
        sqlx::query("DELETE FROM uploads WHERE bucket = ?")
            .bind(name)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM buckets WHERE name = ?")
            .bind(name)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.blobs.discard(blobs?).await;
        Ok(())
    }

    /// The bucket, if it is the account's.
    pub async fn head_bucket(&self, account: &str, name: &str) -> Result<Bucket, ObjectsError> {
        owned(self.index.pool(), account, name).await
    }

    /// The account's buckets by name.
    pub async fn list_buckets(&self, account: &str) -> Result<Vec<Bucket>, ObjectsError> {
        let rows =
            sqlx::query("SELECT name, region, created_ms FROM buckets WHERE account = ? ORDER BY name")
                .bind(account)
                .fetch_all(self.index.pool())
                .await?;
        rows.iter().map(Bucket::from_row).collect()
    }
}
