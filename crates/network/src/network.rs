use std::{
    collections::{HashSet, VecDeque},
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Mutex as AsyncMutex, oneshot},
    task::spawn_blocking,
};

use crate::{
    Egress, NetworkConfig, NetworkError, Slot, build, core::Core, error::While, forwarding,
    namespace::Namespace, nft, rules, uplink,
};

/// The machine's network for MicroVMs: the host's rules and a pool of ready slots. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    pool: Mutex<Pool>,
    /// Held by whoever fills the pool.
    filling: AsyncMutex<()>,
}

#[derive(Default)]
struct Pool {
    ready: VecDeque<Slot>,
    stopped: bool,
}

impl Network {
    /// Sets up the host's side: rules, and forwarding on the uplinks. It may be repeated after a crash. The pool is
    /// filled by [`Network::prefill`] or the first [`Network::acquire`].
    pub async fn start(config: NetworkConfig) -> Result<Network, NetworkError> {
        config.check()?;
        let netlink = build::netlink()?;
        let uplinks = uplink::find(&netlink, &config).await?;
        let mtu = uplink::mtu(&uplinks);
        let core = blocking(move || {
            let directory = &config.state_directory;
            fs::create_dir_all(directory).during(|| format!("making {}", directory.display()))?;
            nft::apply(&rules::host(&config))?;
            for uplink in &uplinks {
                forwarding::claim(&uplink.name, &config.prefix)?;
            }
            let home = Namespace::current().during(|| "opening the host's namespace".into())?;
            Core::new(config, home, netlink, mtu)
        });
        let inner = Inner {
            core: Arc::new(core.await?),
            pool: Mutex::default(),
            filling: AsyncMutex::default(),
        };
        Ok(Network(Arc::new(inner)))
    }

    /// A slot for one VMM process: a ready one, or one made now. Another is made in the background to replace it.
    pub async fn acquire(&self) -> Result<Slot, NetworkError> {
        let ready = {
            let mut pool = self.0.pool();
            if pool.stopped {
                return Err(NetworkError::Stopped);
            }
            pool.ready.pop_front()
        };
        let slot = match ready {
            Some(slot) => Ok(slot),
            None => self.make().await,
        };
        let inner = self.0.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.fill().await {
                tracing::warn!(%error, "the pool of network slots could not be refilled");
            }
        });
        slot
    }

    /// Makes a slot in a task of its own, so that none is lost when the caller gives up waiting.
    async fn make(&self) -> Result<Slot, NetworkError> {
        let (send, receive) = oneshot::channel();
        let inner = self.0.clone();
        tokio::spawn(async move {
            if let Err(Ok(unclaimed)) = send.send(inner.core.create().await) {
                inner.put(unclaimed).await;
            }
        });
        receive.await.map_err(|_| NetworkError::WorkerLost)?
    }

    /// Fills the pool and waits until it is full.
    pub async fn prefill(&self) -> Result<(), NetworkError> {
        let inner = self.0.clone();
        tokio::spawn(async move { inner.fill().await })
            .await
            .map_err(|_| NetworkError::WorkerLost)?
    }

    /// Takes over the namespace of a VM that outlived an earlier daemon: brings its rules up to date, which never open
    /// more than `egress` on the way, and starts its resolver. Call it before [`Network::sweep`].
    pub async fn adopt(&self, name: &str, egress: Egress) -> Result<Slot, NetworkError> {
        let (core, name) = (self.0.core.clone(), name.to_owned());
        tokio::spawn(async move { core.adopt(&name, egress).await })
            .await
            .map_err(|_| NetworkError::WorkerLost)?
    }

    /// Removes every namespace, link and mount of ours that no slot of this process holds and `keep` does not name.
    /// Returns how many slots were removed.
    pub async fn sweep(&self, keep: &HashSet<String>) -> Result<usize, NetworkError> {
        self.0.core.sweep(keep).await
    }

    /// Destroys the ready slots. When no slot is left on the machine, the host's rules go too, and forwarding is as it
    /// was; otherwise both stay for the MicroVMs that still run.
    pub async fn stop(&self) -> Result<(), NetworkError> {
        self.0.pool().stopped = true;
        let _no_more = self.0.filling.lock().await;
        loop {
            let Some(slot) = self.0.pool().ready.pop_front() else {
                break;
            };
            slot.release().await?;
        }
        let core = self.0.core.clone();
        blocking(move || {
            if !core.is_empty() {
                return Ok(());
            }
            nft::apply(&rules::host_removal(&core.config))?;
            forwarding::release(&core.config.prefix)
        })
        .await
    }
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fill(&self) -> Result<(), NetworkError> {
        let _alone = self.filling.lock().await;
        loop {
            {
                let pool = self.pool();
                if pool.stopped || pool.ready.len() >= self.core.config.pool_size {
                    return Ok(());
                }
            }
            let slot = self.core.create().await?;
            self.put(slot).await;
        }
    }

    /// Adds a slot to the pool, or destroys it when the pool is closed.
    async fn put(&self, slot: Slot) {
        {
            let mut pool = self.pool();
            if !pool.stopped {
                pool.ready.push_back(slot);
                return;
            }
        }
        if let Err(error) = slot.release().await {
            tracing::warn!(%error, "a network slot could not be removed");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    spawn_blocking(work).await.map_err(|_| NetworkError::WorkerLost)?
}
