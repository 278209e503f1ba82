//! The index: which account owns which bucket, and which blobs make up an object.

use std::{collections::HashSet, path::Path, time::Duration};

use sqlx::{
    Row, SqlSafeStr, Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{ObjectsError, types};

/// Every step of the schema, in order; a step that was released never changes.
const STEPS: [(&str, &str); 1] = [("objects", include_str!("migrations/0001_objects.sql"))];

/// The migrations. The library's macro for them would compile the whole database engine a second time.
fn schema() -> Migrator {
    let steps = (1..).zip(STEPS).map(|(version, (name, sql))| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(steps.collect())
}

/// A blob and its size in bytes.
pub(super) type Segment = (String, u64);

#[derive(Clone, Debug)]
pub(super) struct Index {
    pool: SqlitePool,
}

impl Index {
    pub(super) async fn open(dir: &Path) -> Result<Self, ObjectsError> {
        std::fs::create_dir_all(dir)?;
        let options = SqliteConnectOptions::new()
            .filename(dir.join("index.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        schema().run(&pool).await?;
        std::fs::File::open(dir)?.sync_all()?;
        Ok(Self { pool })
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// A transaction that holds the write lock from its start, so what it reads stays true.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>, ObjectsError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Every blob that a row names.
    pub(super) async fn blobs(&self) -> Result<HashSet<String>, ObjectsError> {
        let mut named = HashSet::new();
        for row in sqlx::query("SELECT blobs FROM objects")
            .fetch_all(&self.pool)
            .await?
        {
            named.extend(segments(&row)?.into_iter().map(|(blob, _)| blob));
        }
        for row in sqlx::query("SELECT blob FROM parts")
            .fetch_all(&self.pool)
            .await?
        {
            named.insert(row.try_get("blob")?);
        }
        Ok(named)
    }
}

/// Refuses a bucket that is not there or not the account's.
pub(super) async fn owned<'c>(
    db: impl sqlx::Executor<'c, Database = Sqlite>,
    account: &str,
    bucket: &str,
) -> Result<super::Bucket, ObjectsError> {
    let row = sqlx::query("SELECT name, account, region, created_ms FROM buckets WHERE name = ?")
        .bind(bucket)
        .fetch_optional(db)
        .await?
        .ok_or(ObjectsError::NoSuchBucket)?;
    let owner: String = row.try_get("account")?;
    if owner != account {
        return Err(ObjectsError::AccessDenied);
    }
    super::Bucket::from_row(&row)
}

/// The `blobs` column of an object.
pub(super) fn segments(row: &SqliteRow) -> Result<Vec<Segment>, ObjectsError> {
    Ok(serde_json::from_str(row.try_get("blobs")?)?)
}

/// An object's row, with its attributes.
pub(super) fn info(row: &SqliteRow) -> Result<super::ObjectInfo, ObjectsError> {
    Ok(super::ObjectInfo {
        attributes: serde_json::from_str(row.try_get("attributes")?)?,
        ..listed(row)?
    })
}

/// An object's row, as listings have it.
pub(super) fn listed(row: &SqliteRow) -> Result<super::ObjectInfo, ObjectsError> {
    Ok(super::ObjectInfo {
        key: row.try_get("key")?,
        etag: row.try_get("etag")?,
        size: types::unsigned(row, "size")?,
        modified_ms: row.try_get("modified_ms")?,
        storage_class: row.try_get("storage_class")?,
        attributes: super::Attributes::default(),
    })
}
