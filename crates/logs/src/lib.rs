//! Log groups and streams on the local disk, in the shape of CloudWatch Logs.
//!
//! A stream is a directory of append-only segments, one JSON event a line. What was written survives
//! `kill -9`; a line torn by a power cut is dropped at the next open. Disk use is bounded: a stream
//! keeps its newest segments, a group evicts its oldest, and a writer over its rate loses lines, which
//! the log itself then says. Names never become file names.

#![forbid(unsafe_code)]

mod disk;
mod error;
mod filter;
mod group;
mod pattern;
mod pending;
mod read;
mod service;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::Duration,
};

use group::Group;
use serde::Deserialize;
use stream::Stream;
use tokio::sync::Notify;

pub use error::LogsError;
pub use read::{Event, Follower, From, Page, Position, ReadQuery};
pub use service::LogsService;
pub use writer::LogWriter;

/// Longest message of one event; longer lines become several events.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// How long a line may wait in memory.
const FLUSH_EVERY: Duration = Duration::from_millis(150);

/// How often old events are dropped.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// What keeps logs from filling the disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A stream keeps about this much of its newest events
    pub stream_bytes: u64,
    /// A group keeps about this much over all its streams
    pub group_bytes: u64,
    /// For how many days a group keeps events that has no retention of its own; 0 keeps them for ever
    pub retention_days: u32,
    /// How many groups an account may have; no setting
    #[serde(skip)]
    pub groups_per_account: usize,
    /// What a stream may take in over time
    pub bytes_per_second: u64,
    /// What a stream may take in at once after a pause
    pub burst_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_bytes: 64 << 20,
            group_bytes: 1 << 30,
            retention_days: 0,
            groups_per_account: 10_000,
            bytes_per_second: 1 << 20,
            burst_bytes: 8 << 20,
        }
    }
}

/// The logs of one node; clones share them.
#[derive(Clone, Debug)]
pub struct Logs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    root: PathBuf,
    limits: Limits,
    /// By account and name.
    groups: RwLock<BTreeMap<(String, String), Arc<Group>>>,
    dirty: Mutex<Vec<(Arc<Group>, Arc<Stream>)>>,
    wake: Arc<Notify>,
}

impl Logs {
    /// Opens or creates the logs in `dir`. Call it within a Tokio runtime.
    pub async fn open(dir: &Path) -> Result<Self, LogsError> {
        Self::open_with(dir, Limits::default()).await
    }

    /// As [`Logs::open`], with limits of one's own.
    pub async fn open_with(dir: &Path, limits: Limits) -> Result<Self, LogsError> {
        let root = dir.to_owned();
        let loaded = limits.clone();
        let groups = blocking(move || group::load(&root, &loaded)).await?;
        let wake = Arc::new(Notify::new());
        let inner = Arc::new(Inner {
            root: dir.to_owned(),
            limits,
            groups: RwLock::new(groups),
            dirty: Mutex::default(),
            wake: Arc::clone(&wake),
        });
        tokio::spawn(flush_in_turn(Arc::downgrade(&inner), wake));
        tokio::spawn(expire_in_turn(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// A writer to a stream, which is created, with its group, where it is missing.
    pub async fn writer(&self, account: &str, group: &str, stream: &str) -> Result<LogWriter, LogsError> {
        let (logs, names) = (
            self.clone(),
            [account.to_owned(), group.to_owned(), stream.to_owned()],
        );
        let (group, stream) = blocking(move || logs.inner.ensure_stream(&names)).await?;
        Ok(LogWriter::new(
            self.clone(),
            [account.to_owned(), group.name.clone(), stream.name.clone()],
            group,
            stream,
        ))
    }

    /// Creates a group.
    pub async fn create_group(&self, account: &str, group: &str) -> Result<(), LogsError> {
        let (logs, account, group) = (self.clone(), account.to_owned(), group.to_owned());
        blocking(move || logs.inner.create_group(&account, &group).map(drop)).await
    }

    /// Deletes a group and its streams.
    pub async fn delete_group(&self, account: &str, group: &str) -> Result<(), LogsError> {
        let (logs, account, group) = (self.clone(), account.to_owned(), group.to_owned());
        blocking(move || logs.inner.delete_group(&account, &group)).await
    }

    /// Creates a stream in a group.
    pub async fn create_stream(&self, account: &str, group: &str, stream: &str) -> Result<(), LogsError> {
        let (logs, account, group, stream) = (
            self.clone(),
            account.to_owned(),
            group.to_owned(),
            stream.to_owned(),
        );
        blocking(move || {
            logs.inner
                .group(&account, &group)?
                .create_stream(&stream)
                .map(drop)
        })
        .await
    }

    /// Deletes a stream.
    pub async fn delete_stream(&self, account: &str, group: &str, stream: &str) -> Result<(), LogsError> {
        let (logs, account, group, stream) = (
            self.clone(),
            account.to_owned(),
            group.to_owned(),
            stream.to_owned(),
        );
        blocking(move || logs.inner.group(&account, &group)?.delete_stream(&stream)).await
    }

    /// A page of a stream's events in the order they were written.
    pub async fn read(
        &self,
        account: &str,
        group: &str,
        stream: &str,
        query: ReadQuery,
    ) -> Result<Page, LogsError> {
        let (logs, account, group, stream) = (
            self.clone(),
            account.to_owned(),
            group.to_owned(),
            stream.to_owned(),
        );
        blocking(move || logs.inner.read(&account, &group, &stream, &query)).await
    }

    /// Follows a stream from a position on (or from its head, or from now).
    pub async fn follow(
        &self,
        account: &str,
        group: &str,
        stream: &str,
        from: From,
    ) -> Result<Follower, LogsError> {
        let (logs, account, group, stream) = (
            self.clone(),
            account.to_owned(),
            group.to_owned(),
            stream.to_owned(),
        );
        let (group, stream) = blocking(move || logs.inner.stream(&account, &group, &stream)).await?;
        Follower::new(self.clone(), group, stream, from).await
    }
}

impl Inner {
    /// Notes that a stream has lines in memory.
    pub(crate) fn mark_dirty(&self, group: &Arc<Group>, stream: &Arc<Stream>) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push((Arc::clone(group), Arc::clone(stream)));
        self.wake.notify_one();
    }

    /// Writes a stream's waiting lines out; with `sync`, through to the disk. Then holds the group to
    /// its limit.
    pub(crate) fn flush(
        &self,
        group: &Arc<Group>,
        stream: &Arc<Stream>,
        sync: bool,
    ) -> Result<(), LogsError> {
        group.add(stream.flush(&self.limits, sync)?);
        group.evict(self.limits.group_bytes);
        Ok(())
    }

    /// A page of a stream, with what waited in memory.
    pub(crate) fn read(
        &self,
        account: &str,
        group: &str,
        stream: &str,
        query: &ReadQuery,
    ) -> Result<Page, LogsError> {
        let (group, stream) = self.stream(account, group, stream)?;
        self.flush(&group, &stream, false)?;
        Ok(read::page(&stream, query)?)
    }

    /// Drops what is older than its group keeps.
    pub(crate) fn expire(&self, now_ms: i64) {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let groups: Vec<_> = {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.values().cloned().collect()
        };
        for group in groups {
            match group.retention_days().unwrap_or(self.limits.retention_days) {
                0 => {}
                days => group.expire(now_ms - i64::from(days) * DAY_MS),
            }
        }
    }

    fn flush_dirty(&self) {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        for (group, stream) in dirty {
            if let Err(error) = self.flush(&group, &stream, false) {
                tracing::warn!(group = %group.name, stream = %stream.name, %error, "log lines were lost");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush_dirty();
        self.wake.notify_one();
    }
}

/// Writes waiting lines out a moment after the first of them came.
async fn flush_in_turn(logs: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        tokio::time::sleep(FLUSH_EVERY).await;
        let Some(inner) = logs.upgrade() else { return };
        let _ = tokio::task::spawn_blocking(move || inner.flush_dirty()).await;
    }
}

/// Drops old events every hour.
async fn expire_in_turn(logs: Weak<Inner>) {
    loop {
        let Some(inner) = logs.upgrade() else { return };
        let _ = tokio::task::spawn_blocking(move || inner.expire(now_ms())).await;
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}

/// Runs disk work off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogsError> + Send + 'static,
) -> Result<T, LogsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
