//! Processes started before they are needed: the largest part of a launch's and a resume's time, done ahead.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::task::TaskTracker;

use crate::{GuestError, Host, Idle, Snapshot};

/// How many processes wait.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// For each hot snapshot.
    pub per_snapshot: usize,
    /// For all snapshots together; the snapshot used longest ago gives its up first.
    pub total: usize,
}

/// Idle processes by snapshot. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    host: Host,
    config: PoolConfig,
    shelves: Arc<Mutex<Shelves>>,
    /// What starts processes.
    starting: TaskTracker,
}

#[derive(Default)]
struct Shelves {
    by_snapshot: HashMap<PathBuf, Shelf>,
    clock: u64,
    stopped: bool,
}

#[derive(Default)]
struct Shelf {
    idle: VecDeque<Idle>,
    /// Processes that are being started.
    coming: usize,
    used_at: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(host: Host, config: PoolConfig) -> Pool {
        Pool {
            host,
            config,
            shelves: Arc::default(),
            starting: TaskTracker::new(),
        }
    }

    /// A process for this snapshot: a waiting one, or one started now. To start others is [`Pool::refill`]'s, once the
    /// taken one is on its way: it would only slow that one down.
    pub async fn take(&self, snapshot: &Snapshot) -> Result<Idle, GuestError> {
        match self.waiting(snapshot).await {
            Some(idle) => Ok(idle),
            None => self.host.prepare(snapshot).await,
        }
    }

    /// The same for a launch: with a clone of the snapshot's scratch disk at `scratch`.
    pub async fn take_with_scratch(&self, snapshot: &Snapshot, scratch: &Path) -> Result<Idle, GuestError> {
        let mut idle = self.take(snapshot).await?;
        match idle.put_scratch(scratch).await {
            Ok(()) => Ok(idle),
            Err(error) => {
                idle.discard().await;
                Err(GuestError::io("cloning the scratch disk")(error))
            }
        }
    }

    async fn waiting(&self, snapshot: &Snapshot) -> Option<Idle> {
        loop {
            let idle = self.take_waiting(snapshot)?;
            if !idle.has_ended() {
                return Some(idle);
            }
            idle.discard().await;
        }
    }

    fn take_waiting(&self, snapshot: &Snapshot) -> Option<Idle> {
        self.with(|shelves| {
            shelves.clock += 1;
            let clock = shelves.clock;
            let shelf = shelves
                .by_snapshot
                .entry(snapshot.directory().to_owned())
                .or_default();
            shelf.used_at = clock;
            shelf.idle.pop_front()
        })
    }

    /// Starts processes in the background until the snapshot has its number, if it is still there.
    pub fn refill(&self, snapshot: &Snapshot) {
        if !snapshot.directory().exists() {
            return;
        }
        let missing = self.with(|shelves| {
            if shelves.stopped {
                return 0;
            }
            let shelf = shelves
                .by_snapshot
                .entry(snapshot.directory().to_owned())
                .or_default();
            let missing = self
                .config
                .per_snapshot
                .saturating_sub(shelf.idle.len() + shelf.coming);
            shelf.coming += missing;
            missing
        });
        for _ in 0..missing {
            let (pool, snapshot) = (self.clone(), snapshot.clone());
            self.starting.spawn(async move { pool.add(&snapshot).await });
        }
    }

    async fn add(&self, snapshot: &Snapshot) {
        let mut started = self.host.prepare(snapshot).await;
        if let Ok(idle) = &mut started
            && let Err(error) = idle.clone_scratch_ahead().await
        {
            tracing::warn!(%error, "no scratch disk could be cloned ahead");
        }
        let superfluous = self.with(|shelves| {
            let gone = shelves.stopped;
            let Some(shelf) = shelves.by_snapshot.get_mut(snapshot.directory()) else {
                return started.ok();
            };
            shelf.coming = shelf.coming.saturating_sub(1);
            match started {
                Ok(idle) if gone => Some(idle),
                Ok(idle) => {
                    shelf.idle.push_back(idle);
                    shelves.evict(self.config.total)
                }
                Err(error) => {
                    tracing::warn!(%error, "no process could be started ahead");
                    None
                }
            }
        });
        if let Some(idle) = superfluous {
            idle.discard().await;
        }
    }

    /// Ends the waiting processes of a snapshot that is to be deleted.
    pub async fn forget(&self, snapshot_directory: &Path) {
        let shelf = self.with(|shelves| shelves.by_snapshot.remove(snapshot_directory));
        for idle in shelf.into_iter().flat_map(|shelf| shelf.idle) {
            idle.discard().await;
        }
    }

    /// Ends all waiting processes, those just being started included; no more are started.
    pub async fn stop(&self) {
        let shelves = self.with(|shelves| {
            shelves.stopped = true;
            std::mem::take(&mut shelves.by_snapshot)
        });
        for idle in shelves.into_values().flat_map(|shelf| shelf.idle) {
            idle.discard().await;
        }
        self.starting.close();
        self.starting.wait().await;
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Shelves) -> T) -> T {
        use_it(&mut self.shelves.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shelves {
    /// When there are too many, one process of the snapshot used longest ago.
    fn evict(&mut self, total: usize) -> Option<Idle> {
        if self
            .by_snapshot
            .values()
            .map(|shelf| shelf.idle.len())
            .sum::<usize>()
            <= total
        {
            return None;
        }
        let oldest = self
            .by_snapshot
            .values_mut()
            .filter(|shelf| !shelf.idle.is_empty())
            .min_by_key(|shelf| shelf.used_at);
        oldest?.idle.pop_front()
    }
}
