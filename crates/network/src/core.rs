use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rtnetlink::Handle;
use tokio::task::spawn_blocking;

use crate::{
    Egress, NetworkConfig, NetworkError, build,
    error::While,
    namespace::{self, Namespace, on_own_thread},
    nft,
    resolver::Resolver,
    rules,
    slot::Slot,
    uplink,
};

/// What the pool and every slot share.
pub(crate) struct Core {
    pub(crate) config: Arc<NetworkConfig>,
    /// The host's namespace.
    pub(crate) home: Arc<Namespace>,
    pub(crate) netlink: Handle,
    /// MTU of every link we make, in bytes.
    pub(crate) mtu: u32,
    indices: Mutex<Indices>,
}

/// Which slots exist.
#[derive(Debug, Default)]
struct Indices {
    /// Held by this process: ready, in use, or just being made or destroyed.
    live: BTreeSet<u16>,
    /// Left on the machine by an earlier daemon, or by a removal that failed; neither reused nor forgotten.
    left: BTreeSet<u16>,
    /// For which the host's table has rules of their own.
    opened: BTreeSet<u16>,
    /// Where the search for a free one starts: an address rests as long as possible before it is used again.
    next: u32,
}

impl Indices {
    fn take(&mut self, capacity: u32) -> Option<u16> {
        let candidates = (0..capacity).map(|offset| ((self.next + offset) % capacity) as u16);
        let index = candidates
            .into_iter()
            .find(|index| !self.live.contains(index) && !self.left.contains(index))?;
        self.live.insert(index);
        self.next = u32::from(index) + 1;
        Some(index)
    }
}

impl Core {
    pub(crate) fn new(
        config: NetworkConfig,
        home: Namespace,
        netlink: Handle,
        mtu: u32,
    ) -> Result<Self, NetworkError> {
        let left = on_disk(&config)?;
        Ok(Self {
            config: Arc::new(config),
            home: Arc::new(home),
            netlink,
            mtu,
            indices: Mutex::new(Indices {
                left,
                ..Indices::default()
            }),
        })
    }

    fn indices(&self) -> MutexGuard<'_, Indices> {
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no namespace of ours is left on the machine.
    pub(crate) fn is_empty(&self) -> bool {
        let indices = self.indices();
        indices.live.is_empty() && indices.left.is_empty()
    }

    /// Makes a new slot.
    pub(crate) async fn create(self: &Arc<Self>) -> Result<Slot, NetworkError> {
        let capacity = self.config.capacity();
        let index = self
            .indices()
            .take(capacity)
            .ok_or(NetworkError::Exhausted(capacity))?;
        let (config, home, mtu) = (self.config.clone(), self.home.clone(), self.mtu);
        match on_own_thread(move || build::make(&config, &home, index, mtu)).await {
            Ok(built) => Ok(self.slot(index, built, Egress::internet())),
            Err(error) => {
                if let Err(left_over) = self.destroy(index).await {
                    tracing::warn!(slot = index, error = %left_over, "a half-made network slot could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Takes over the namespace `name` of a VM that still runs.
    pub(crate) async fn adopt(self: &Arc<Self>, name: &str, egress: Egress) -> Result<Slot, NetworkError> {
        let index = self
            .config
            .index(name)
            .ok_or_else(|| NetworkError::Unknown(name.into()))?;
        {
            let mut indices = self.indices();
            if !indices.live.insert(index) {
                return Err(NetworkError::InUse(name.into()));
            }
            indices.left.remove(&index);
        }
        let (config, owned, wanted) = (self.config.clone(), name.to_owned(), egress.clone());
        let adopted = async {
            let built = on_own_thread(move || build::adopt(&config, &owned, &wanted)).await?;
            self.open_host(index, &egress).await?;
            Ok(built)
        };
        match adopted.await {
            Ok(built) => Ok(self.slot(index, built, egress)),
            Err(error) => {
                let mut indices = self.indices();
                indices.live.remove(&index);
                if !matches!(error, NetworkError::Unknown(_)) || self.config.mount(name).exists() {
                    indices.left.insert(index);
                }
                Err(error)
            }
        }
    }

    /// Counts a slot that is no longer held, but not destroyed, among the leftovers.
    pub(crate) fn abandon(&self, index: u16) {
        let mut indices = self.indices();
        indices.live.remove(&index);
        indices.left.insert(index);
    }

    fn slot(self: &Arc<Self>, index: u16, built: build::Built, egress: Egress) -> Slot {
        let namespace = Arc::new(built.namespace);
        let resolver = Resolver::start(
            built.sockets,
            self.config.resolvers.clone(),
            namespace.clone(),
            &egress,
        );
        Slot::new(self.clone(), index, namespace, resolver, egress)
    }

    /// Gives a slot's namespace other rules, all at once, and the host's table what they need.
    pub(crate) async fn apply(
        &self,
        index: u16,
        namespace: Arc<Namespace>,
        egress: Egress,
    ) -> Result<(), NetworkError> {
        self.open_host(index, &egress).await?;
        let config = self.config.clone();
        on_own_thread(move || {
            namespace
                .enter()
                .during(|| "entering a slot's namespace".into())?;
            nft::apply(&rules::namespace(&config, &egress))
        })
        .await
    }

    /// The host's rules of one slot: none for the default, whose rules are there for all.
    async fn open_host(&self, index: u16, egress: &Egress) -> Result<(), NetworkError> {
        self.close_host(index).await?;
        if *egress == Egress::internet() {
            return Ok(());
        }
        self.on_the_host(rules::host_slot(&self.config, index, egress))
            .await?;
        self.indices().opened.insert(index);
        Ok(())
    }

    async fn close_host(&self, index: u16) -> Result<(), NetworkError> {
        if self.indices().opened.contains(&index) {
            self.on_the_host(rules::host_slot_removal(&self.config, index))
                .await?;
            self.indices().opened.remove(&index);
        }
        Ok(())
    }

    async fn on_the_host(&self, batch: String) -> Result<(), NetworkError> {
        let home = self.home.clone();
        on_own_thread(move || {
            home.enter().during(|| "entering the host's namespace".into())?;
            nft::apply(&batch)
        })
        .await
    }

    /// Removes a slot's link and namespace, or what exists of them, and frees its index.
    pub(crate) async fn destroy(&self, index: u16) -> Result<(), NetworkError> {
        let result = self.remove(index).await;
        let mut indices = self.indices();
        indices.live.remove(&index);
        match result {
            Ok(()) => indices.left.remove(&index),
            Err(_) => indices.left.insert(index),
        };
        result
    }

    async fn remove(&self, index: u16) -> Result<(), NetworkError> {
        self.close_host(index).await?;
        let name = self.config.name(index);
        // The link goes first and by itself: a namespace lingers while any socket in it is open.
        if let Some(link) = uplink::link(&self.netlink, &name).await? {
            uplink::remove(&self.netlink, link).await?;
        }
        let path = self.config.mount(&name);
        let unmounted = spawn_blocking(move || namespace::unmount(&path))
            .await
            .map_err(|_| NetworkError::WorkerLost)?;
        unmounted.during(|| format!("removing the namespace {name}"))
    }

    /// Removes every slot on the machine that is neither held by this process nor named in `keep`.
    pub(crate) async fn sweep(&self, keep: &HashSet<String>) -> Result<usize, NetworkError> {
        let links = uplink::links(&self.netlink).await?;
        let mut found: BTreeSet<u16> = links
            .iter()
            .filter_map(|link| self.config.index(&link.name))
            .collect();
        found.extend(on_disk(&self.config)?);
        let mut removed = 0;
        for index in found {
            if keep.contains(&self.config.name(index)) || !self.claim(index) {
                continue;
            }
            self.destroy(index).await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Holds a leftover for its removal; false when it is in use.
    fn claim(&self, index: u16) -> bool {
        let mut indices = self.indices();
        indices.left.remove(&index);
        indices.live.insert(index)
    }
}

/// Slots whose mount points exist.
fn on_disk(config: &NetworkConfig) -> Result<BTreeSet<u16>, NetworkError> {
    let directory = &config.state_directory;
    let names = || -> io::Result<Vec<_>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    };
    let names = names().during(|| format!("listing {}", directory.display()))?;
    Ok(names
        .iter()
        .filter_map(|name| config.index(name.to_str()?))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_rests_until_all_others_had_their_turn() {
        let mut indices = Indices::default();
        let first: Vec<_> = (0..3).map(|_| indices.take(4)).collect();
        assert_eq!(first, [Some(0), Some(1), Some(2)]);
        indices.live.remove(&1);
        assert_eq!(indices.take(4), Some(3));
        assert_eq!(indices.take(4), Some(1));
        assert_eq!(indices.take(4), None);
    }

    #[test]
    fn a_leftover_of_an_earlier_daemon_is_not_given_out() {
        let mut indices = Indices {
            left: [0, 1].into(),
            ..Indices::default()
        };
        assert_eq!(indices.take(3), Some(2));
        assert_eq!(indices.take(3), None);
    }
}
