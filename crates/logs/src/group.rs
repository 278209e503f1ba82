//! Groups: the streams of an account under one name, held to one limit.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{
    Inner, Limits, LogsError,
    disk::{self, Meta},
    stream::Stream,
};

/// What an empty stream costs on disk: a directory and its `meta.json`.
const STREAM_COST: i64 = 8 << 10;

type Streams = BTreeMap<String, Arc<Stream>>;

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) created_ms: i64,
    meta: Mutex<Meta>,
    dir: PathBuf,
    streams: RwLock<Streams>,
    bytes: AtomicI64,
}

/// Reads what is on disk.
pub(crate) fn load(
    root: &Path,
    limits: &Limits,
) -> Result<BTreeMap<(String, String), Arc<Group>>, LogsError> {
    fs::create_dir_all(root)?;
    let mut groups = BTreeMap::new();
    for (dir, meta) in disk::children(root)? {
        let key = (meta.account.clone(), meta.name.clone());
        let group = Group::new(dir, meta);
        for (dir, meta) in disk::children(&group.dir)? {
            let stream = Stream::load(dir, meta)?;
            group.add(stream.bytes() + STREAM_COST);
            group.streams_mut().insert(stream.name.clone(), Arc::new(stream));
        }
        group.evict(limits.group_bytes);
        groups.insert(key, Arc::new(group));
    }
    Ok(groups)
}

impl Group {
    fn new(dir: PathBuf, meta: Meta) -> Self {
        Self {
            name: meta.name.clone(),
            created_ms: meta.created_ms,
            meta: Mutex::new(meta),
            dir,
            streams: RwLock::default(),
            bytes: AtomicI64::new(0),
        }
    }

    pub(crate) fn streams(&self) -> RwLockReadGuard<'_, Streams> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams_mut(&self) -> RwLockWriteGuard<'_, Streams> {
        self.streams.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, LogsError> {
        self.streams().get(name).cloned().ok_or_else(LogsError::no_stream)
    }

    pub(crate) fn create_stream(&self, name: &str) -> Result<Arc<Stream>, LogsError> {
        check_stream_name(name)?;
        let mut streams = self.streams_mut();
        if streams.contains_key(name) {
            return Err(LogsError::exists("log stream"));
        }
        let meta = Meta::new("", name);
        let dir = disk::place(&self.dir, "", name);
        disk::create(&dir, &meta)?;
        let stream = Arc::new(Stream::load(dir, meta)?);
        streams.insert(name.to_owned(), Arc::clone(&stream));
        self.add(STREAM_COST);
        Ok(stream)
    }

    pub(crate) fn delete_stream(&self, name: &str) -> Result<(), LogsError> {
        let mut streams = self.streams_mut();
        let stream = streams.remove(name).ok_or_else(LogsError::no_stream)?;
        self.add(-stream.bytes() - STREAM_COST);
        Ok(stream.delete()?)
    }

    /// Bytes on disk over all streams.
    pub(crate) fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How long the group keeps its events, where that was set.
    pub(crate) fn retention_days(&self) -> Option<u32> {
        self.meta
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retention_days
    }

    /// Sets how long the group keeps its events, durably.
    pub(crate) fn set_retention(&self, days: Option<u32>) -> Result<(), LogsError> {
        let mut meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = meta.clone();
        changed.retention_days = days;
        disk::rewrite(&self.dir, &changed)?;
        *meta = changed;
        Ok(())
    }

    /// Drops the segments to which nothing was written since `before`.
    pub(crate) fn expire(&self, before_ms: i64) {
        let streams: Vec<_> = self.streams().values().cloned().collect();
        for stream in streams {
            while stream.bytes() > 0 && stream.oldest_ms() < before_ms {
                let freed = stream.drop_oldest();
                self.add(-freed);
                if freed == 0 {
                    break;
                }
            }
        }
    }

    /// Drops the oldest segments, and streams left empty by that, until the group is within its limit.
    pub(crate) fn evict(&self, limit: u64) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        while self.bytes() > limit {
            let oldest = self
                .streams()
                .values()
                .min_by_key(|stream| stream.oldest_ms())
                .cloned();
            let Some(oldest) = oldest else { return };
            let freed = oldest.drop_oldest();
            self.add(-freed);
            let empty = freed == 0 || oldest.bytes() == 0;
            if empty && let Err(error) = self.delete_stream(&oldest.name) {
                tracing::warn!(stream = %oldest.name, %error, "a log stream could not be evicted");
                return;
            }
        }
    }
}

impl Inner {
    pub(crate) fn group(&self, account: &str, name: &str) -> Result<Arc<Group>, LogsError> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups
            .get(&(account.to_owned(), name.to_owned()))
            .cloned()
            .ok_or_else(LogsError::no_group)
    }

    pub(crate) fn stream(
        &self,
        account: &str,
        group: &str,
        name: &str,
    ) -> Result<(Arc<Group>, Arc<Stream>), LogsError> {
        let group = self.group(account, group)?;
        let stream = group.stream(name)?;
        Ok((group, stream))
    }

    /// The account's groups by name.
    pub(crate) fn groups(&self, account: &str) -> Vec<Arc<Group>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let of_account = groups.range((account.to_owned(), String::new())..);
        of_account
            .take_while(|((owner, _), _)| owner == account)
            .map(|(_, group)| Arc::clone(group))
            .collect()
    }

    pub(crate) fn create_group(&self, account: &str, name: &str) -> Result<Arc<Group>, LogsError> {
        check_group_name(name)?;
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), name.to_owned());
        if groups.contains_key(&key) {
            return Err(LogsError::exists("log group"));
        }
        if groups.keys().filter(|(owner, _)| owner == account).count() >= self.limits.groups_per_account {
            return Err(LogsError::too_many("Resource limit exceeded."));
        }
        let meta = Meta::new(account, name);
        let dir = disk::place(&self.root, account, name);
        disk::create(&dir, &meta)?;
        let group = Arc::new(Group::new(dir, meta));
        groups.insert(key, Arc::clone(&group));
        Ok(group)
    }

    pub(crate) fn delete_group(&self, account: &str, name: &str) -> Result<(), LogsError> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), name.to_owned());
        let group = groups.remove(&key).ok_or_else(LogsError::no_group)?;
        group
            .streams_mut()
            .values()
            .for_each(|stream| stream.mark_deleted());
        Ok(disk::remove(&group.dir)?)
    }

    /// The stream of these names (account, group, stream), created where it is missing.
    pub(crate) fn ensure_stream(
        &self,
        [account, group, stream]: &[String; 3],
    ) -> Result<(Arc<Group>, Arc<Stream>), LogsError> {
        // Another caller may create or delete in between: then look again.
        loop {
            let found = match self.group(account, group) {
                Ok(found) => found,
                Err(_) => match self.create_group(account, group) {
                    Err(error) if error.type_name == "ResourceAlreadyExistsException" => continue,
                    created => created?,
                },
            };
            if let Ok(stream) = found.stream(stream) {
                return Ok((found, stream));
            }
            match found.create_stream(stream) {
                Err(error) if error.type_name == "ResourceAlreadyExistsException" => {}
                created => return created.map(|stream| (found, stream)),
            }
        }
    }
}

/// The service model's pattern for group names.
fn check_group_name(name: &str) -> Result<(), LogsError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/#".contains(&b);
    if (1..=512).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(LogsError::invalid(
        "Value at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: \
         [\\.\\-_/#A-Za-z0-9]+ and have length between 1 and 512",
    ))
}

/// The service model's pattern for stream names.
fn check_stream_name(name: &str) -> Result<(), LogsError> {
    if (1..=512).contains(&name.chars().count()) && !name.contains([':', '*']) {
        return Ok(());
    }
    Err(LogsError::invalid(
        "Value at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: \
         [^:*]* and have length between 1 and 512",
    ))
}
