//! The database: what must survive the daemon. SQLite by default; one schema, plain enough for PostgreSQL.
//!
//! Rooms above keep their working state in memory and write every transition here before they act on it. A record is
//! JSON whose shape belongs to the room that owns the resource; changes that belong together are committed together.
#![forbid(unsafe_code)]

use std::path::Path;

use futures::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    SqlSafeStr, Sqlite, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database engine.
    #[error("the state database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the state database's schema: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A record is not what this version of hearth writes.
    #[error("record {id} of table {table} cannot be read: {cause}")]
    Record {
        /// The table.
        table: &'static str,
        /// The record's id.
        id: String,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

impl StateError {
    /// Whether the database was closed, because the daemon stops.
    pub fn is_closed(&self) -> bool {
        matches!(self, StateError::Database(sqlx::Error::PoolClosed))
    }
}

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// MicroVM images.
    Images,
    /// Image versions with their builds.
    Versions,
    /// MicroVMs.
    Microvms,
    /// Network connectors with their versions.
    Connectors,
    /// Container bases.
    Bases,
    /// Access keys.
    AccessKeys,
    /// Roles.
    Roles,
    /// What was used, an hour a record.
    Usage,
    /// The node's own secrets and settings.
    Settings,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Table::Images => "images",
            Table::Versions => "versions",
            Table::Microvms => "microvms",
            Table::Connectors => "connectors",
            Table::Bases => "bases",
            Table::AccessKeys => "access_keys",
            Table::Roles => "roles",
            Table::Usage => "usage",
            Table::Settings => "settings",
        }
    }

    /// Statements are fixed texts: nothing from outside ever becomes part of one.
    const fn statements(self) -> Statements {
        macro_rules! of {
            ($table:literal) => {
                Statements {
                    put: concat!(
                        "INSERT INTO ",
                        $table,
                        " (id, account, record) VALUES ($1, $2, $3) ",
                        "ON CONFLICT (id) DO UPDATE SET account = excluded.account, record = excluded.record"
                    ),
                    delete: concat!("DELETE FROM ", $table, " WHERE id = $1"),
                    select: concat!("SELECT id, record FROM ", $table),
                    select_range: concat!(
                        "SELECT id, record FROM ",
                        $table,
                        " WHERE id >= $1 AND id < $2 ORDER BY id"
                    ),
                    delete_range: concat!("DELETE FROM ", $table, " WHERE id >= $1 AND id < $2"),
                }
            };
        }
        match self {
            Table::Images => of!("images"),
            Table::Versions => of!("versions"),
            Table::Microvms => of!("microvms"),
            Table::Connectors => of!("connectors"),
            Table::Bases => of!("bases"),
            Table::AccessKeys => of!("access_keys"),
            Table::Roles => of!("roles"),
            Table::Usage => of!("usage"),
            Table::Settings => of!("settings"),
        }
    }
}

/// Every step of the schema, in order; a step that was released never changes.
const STEPS: [(&str, &str); 3] = [
    ("records", include_str!("../migrations/0001_records.sql")),
    (
        "roles_and_usage",
        include_str!("../migrations/0002_roles_and_usage.sql"),
    ),
    ("connectors", include_str!("../migrations/0003_connectors.sql")),
];

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

struct Statements {
    put: &'static str,
    delete: &'static str,
    select: &'static str,
    select_range: &'static str,
    delete_range: &'static str,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub struct Changes(Vec<Change>);

#[derive(Debug)]
struct Change {
    table: Table,
    id: String,
    /// Account and JSON text; `None` deletes.
    record: Option<(String, String)>,
}

impl Change {
    fn query(&self) -> Query<'_, Sqlite, SqliteArguments> {
        let statements = self.table.statements();
        match &self.record {
            Some((account, text)) => sqlx::query(statements.put)
                .bind(&self.id)
                .bind(account)
                .bind(text),
            None => sqlx::query(statements.delete).bind(&self.id),
        }
    }
}

impl Changes {
    /// No change yet.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// Writes a record, new or not.
    pub fn put(
        mut self,
        table: Table,
        id: &str,
        account: &str,
        record: &impl Serialize,
    ) -> Result<Changes, StateError> {
        let text = serde_json::to_string(record).map_err(|cause| StateError::Record {
            table: table.name(),
            id: id.to_owned(),
            cause,
        })?;
        self.0.push(Change {
            table,
            id: id.to_owned(),
            record: Some((account.to_owned(), text)),
        });
        Ok(self)
    }

    /// Deletes a record; none there is fine.
    pub fn delete(mut self, table: Table, id: &str) -> Changes {
        self.0.push(Change {
            table,
            id: id.to_owned(),
            record: None,
        });
        self
    }
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    pool: SqlitePool,
}

impl State {
    /// Opens (or makes) the database and brings its schema up to date.
    pub fn open(path: &Path) -> BoxFuture<'_, Result<State, StateError>> {
        Self::open_file(path).boxed()
    }

    async fn open_file(path: &Path) -> Result<State, StateError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was answered must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(30));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        schema().run(&pool).await?;
        Ok(State { pool })
    }

    /// Carries out all changes, or none; when this returns they survive a power cut.
    pub fn commit(&self, changes: Changes) -> BoxFuture<'_, Result<(), StateError>> {
        self.carry_out(changes).boxed()
    }

    async fn carry_out(&self, changes: Changes) -> Result<(), StateError> {
        // A statement is a transaction by itself.
        if let [change] = &changes.0[..] {
            change.query().execute(&self.pool).await?;
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        for change in &changes.0 {
            change.query().execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Writes one record.
    pub async fn put(
        &self,
        table: Table,
        id: &str,
        account: &str,
        record: &impl Serialize,
    ) -> Result<(), StateError> {
        self.commit(Changes::new().put(table, id, account, record)?).await
    }

    /// All records of a table. One that cannot be read is an error: state is never dropped in silence.
    pub async fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, StateError> {
        read(table, self.rows(table.statements().select, &[]).await?)
    }

    /// The records whose ids sort from `first` on and before `end`, in that order.
    pub async fn range<T: DeserializeOwned>(
        &self,
        table: Table,
        first: &str,
        end: &str,
    ) -> Result<Vec<T>, StateError> {
        let rows = self.rows(table.statements().select_range, &[first, end]).await?;
        read(table, rows)
    }

    /// Deletes what [`State::range`] gives.
    pub async fn remove_range(&self, table: Table, first: &str, end: &str) -> Result<(), StateError> {
        self.rows(table.statements().delete_range, &[first, end]).await?;
        Ok(())
    }

    /// The ids and texts that a statement gives.
    fn rows<'a>(
        &'a self,
        statement: &'static str,
        bounds: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, StateError>> {
        async move {
            let query = bounds
                .iter()
                .fold(sqlx::query_as(statement), |query, bound| query.bind(*bound));
            Ok(query.fetch_all(&self.pool).await?)
        }
        .boxed()
    }

    /// Closes the database after its last commit.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn read<T: DeserializeOwned>(table: Table, rows: Vec<(String, String)>) -> Result<Vec<T>, StateError> {
    rows.into_iter()
        .map(|(id, text)| {
            serde_json::from_str(&text).map_err(|cause| StateError::Record {
                table: table.name(),
                id,
                cause,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_survive_a_new_start_and_deleted_ones_do_not() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("state.db");
        let state = State::open(&path).await.expect("opens");
        state
            .put(Table::Images, "a", "1", &"first")
            .await
            .expect("written");
        state
            .put(Table::Images, "a", "1", &"second")
            .await
            .expect("replaced");
        let changes = Changes::new()
            .put(Table::Versions, "v", "1", &1)
            .expect("json")
            .delete(Table::Images, "none");
        state.commit(changes).await.expect("committed");
        state.close().await;
        let state = State::open(&path).await.expect("opens again");
        assert_eq!(
            state.all::<String>(Table::Images).await.expect("read"),
            ["second"]
        );
        assert_eq!(state.all::<u32>(Table::Versions).await.expect("read"), [1]);
        state
            .commit(Changes::new().delete(Table::Images, "a"))
            .await
            .expect("deleted");
        assert!(state.all::<String>(Table::Images).await.expect("read").is_empty());
    }

    #[tokio::test]
    async fn a_record_of_another_shape_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().expect("temp dir");
        let state = State::open(&directory.path().join("state.db"))
            .await
            .expect("opens");
        state
            .put(Table::Microvms, "m-1", "1", &"text")
            .await
            .expect("written");
        let error = state
            .all::<u32>(Table::Microvms)
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.contains("m-1") && error.contains("microvms"), "{error}");
    }

    #[tokio::test]
    async fn a_range_is_read_and_removed_without_its_end() {
        let directory = tempfile::tempdir().expect("temp dir");
        let state = State::open(&directory.path().join("state.db"))
            .await
            .expect("opens");
        for id in ["c", "a", "b", "d"] {
            state.put(Table::Usage, id, "1", &id).await.expect("written");
        }
        let range = async || state.range::<String>(Table::Usage, "b", "d").await.expect("read");
        assert_eq!(range().await, ["b", "c"]);
        state.remove_range(Table::Usage, "b", "d").await.expect("removed");
        assert!(range().await.is_empty());
        assert_eq!(state.all::<String>(Table::Usage).await.expect("read").len(), 2);
    }
}
