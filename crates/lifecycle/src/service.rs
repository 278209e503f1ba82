//! The service: what exists on this node, how it comes back after a restart, and what is cleaned up in time.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock as SyncRwLock},
    time::Duration,
};

use hearth_guest::{Guest, GuestError, GuestRecord, Snapshot};
use hearth_state::{Changes, StateError, Table};
use hearth_storage::{disk, durable};
use hearth_token::Keyring;
use hearth_vmm::driver::Execution;
use hearth_wire::{
    ApiError, Timestamp,
    enums::{BuildState, MicrovmImageState, MicrovmImageVersionState, MicrovmImageVersionStatus},
    page::PageKey,
};
use tokio::sync::{Mutex as AsyncMutex, RwLock, oneshot};

use crate::{
    LifecycleError,
    catalog::Catalog,
    connector::record::ConnectorRecord,
    image::{
        record::{BuildRecord, ImageRecord, VersionRecord},
        task,
    },
    microvm::{
        Message, Microvm, MicrovmRecord,
        activity::Activity,
        gate::{self, GateError, Passage},
        meter, public,
        record::Stage,
        task::Task,
    },
    node::{LifecycleConfig, Node, suspended_of, untouched},
    registry::Registry,
    tiers,
    turns::Turns,
};

/// How long an answer to a suspend or resume waits for the deed (the API itself promises only that it has begun).
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Pause before what could not be written down is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// The lifecycle of everything on this node. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(crate) inner: Arc<Inner>,
}

/// Whose endpoint a host name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOwner {
    /// The MicroVM's id.
    pub microvm_id: String,
    /// Virtual CPUs of its size.
    pub vcpus: u32,
}

pub(crate) struct Inner {
    pub node: Arc<Node>,
    pub keyring: Arc<SyncRwLock<Keyring>>,
    pub page_key: PageKey,
    pub catalog: AsyncMutex<Catalog>,
    registry: Mutex<Registry>,
    pub builds: Turns,
    /// Held for reading while a snapshot is made again, for writing while files of images are removed.
    pub files: RwLock<()>,
    /// Snapshots that will be launched from as soon as that is written down.
    chosen: Mutex<HashSet<PathBuf>>,
    bases: AsyncMutex<Vec<hearth_wire::types::BaseItem>>,
    started_at: Timestamp,
}

impl Service {
    /// Takes over this node: finds running guests again, finishes or undoes what was half done, sweeps what belongs to
    /// nobody, and goes on with unfinished builds.
    pub async fn start(
        node: Node,
        keyring: Arc<SyncRwLock<Keyring>>,
        page_key: PageKey,
    ) -> Result<Service, LifecycleError> {
        for name in ["images", "microvms", "scratch"] {
            let directory = node.config.directory.join(name);
            std::fs::create_dir_all(&directory)?;
            disk::give(&directory, None, None, 0o711)?;
            durable::remove_temporary(&directory)?;
        }
        durable::remove_temporary(&node.config.directory)?;
        let mut catalog = Catalog::default();
        for image in node.state.all::<ImageRecord>(Table::Images).await? {
            catalog.put_image(image);
        }
        for version in node.state.all::<VersionRecord>(Table::Versions).await? {
            catalog.put_version(version);
        }
        for connector in node.state.all::<ConnectorRecord>(Table::Connectors).await? {
            catalog.connectors.insert(connector.id.clone(), connector);
        }
        let bases = node.state.all(Table::Bases).await?;
        let records = node.state.all::<MicrovmRecord>(Table::Microvms).await?;
        let concurrent_builds = node.config.concurrent_builds;
        let service = Service {
            inner: Arc::new(Inner {
                node: Arc::new(node),
                keyring,
                page_key,
                catalog: AsyncMutex::new(catalog),
                registry: Mutex::default(),
                builds: Turns::new(concurrent_builds),
                files: RwLock::default(),
                chosen: Mutex::default(),
                bases: AsyncMutex::new(bases),
                started_at: Timestamp::now(),
            }),
        };
        service.recover(records).await?;
        service.go_on_with_builds().await;
        tokio::spawn(service.clone().keep_house());
        tokio::spawn(service.clone().keep_meters());
        Ok(service)
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    pub(crate) fn config(&self) -> &LifecycleConfig {
        &self.inner.node.config
    }

    /// The MicroVM whose endpoint this is.
    pub fn find_endpoint(&self, endpoint_id: &str) -> Option<EndpointOwner> {
        let microvm_id = self.registry().endpoint(endpoint_id).cloned()?;
        let memory_mib = self.microvm(&microvm_id)?.record.borrow().memory_mib;
        let tier = i32::try_from(memory_mib).ok().and_then(tiers::find);
        Some(EndpointOwner {
            microvm_id,
            vcpus: tier.map_or(1, |tier| tier.vcpus),
        })
    }

    /// The ARN of the image that an account's MicroVM was launched from.
    pub fn image_of(&self, account: &str, microvm_id: &str) -> Option<String> {
        let microvm = self.microvm(microvm_id)?;
        let record = microvm.record.borrow();
        (record.account == account).then(|| record.image_arn.clone())
    }

    /// What runs each MicroVM, by its id, as far as it is known.
    pub fn vmms(&self) -> BTreeMap<String, String> {
        let registry = self.registry();
        let records = registry.all().map(|microvm| microvm.record.borrow());
        records
            .filter_map(|record| Some((record.id.clone(), record.vmm.clone()?)))
            .collect()
    }

    /// What a MicroVM is busy with; `None` for one that does not exist.
    pub fn activity(&self, microvm_id: &str) -> Option<Activity> {
        Some(self.microvm(microvm_id)?.traffic.activity(self.config().busy))
    }

    /// The public port of an endpoint that a request without a token may go to; see [`crate::microvm`].
    pub fn public_port(&self, endpoint_id: &str, asked: Option<u16>) -> Option<u16> {
        let allowed = &self.config().public_ports;
        if allowed.is_empty() {
            return None;
        }
        let microvm_id = self.registry().endpoint(endpoint_id).cloned()?;
        let microvm = self.microvm(&microvm_id)?;
        let ingress = &microvm.record.borrow().ingress;
        public::port(ingress, allowed, asked)
    }

    /// Waits at the gate of a MicroVM.
    pub async fn enter(&self, microvm_id: &str) -> Result<Passage, GateError> {
        let microvm = self.microvm(microvm_id).ok_or(GateError::Closed)?;
        gate::enter(&microvm).await
    }

    /// Waits at the gate of a MicroVM, for a shell.
    pub async fn enter_shell(&self, microvm_id: &str) -> Result<Passage, GateError> {
        let microvm = self.microvm(microvm_id).ok_or(GateError::Closed)?;
        gate::enter_shell(&microvm).await
    }

    pub(crate) fn microvm(&self, id: &str) -> Option<Microvm> {
        self.registry().get(id).cloned()
    }

    /// The MicroVMs; never held across an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn chosen(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.inner.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a MicroVM whose record is written.
    pub(crate) fn add_microvm(
        &self,
        record: MicrovmRecord,
        snapshot: Option<Snapshot>,
        guest: Option<Guest>,
    ) {
        let microvm = Task::start(self.node().clone(), record, snapshot, guest);
        self.registry().insert(microvm);
    }

    /// Sends a request to a MicroVM's task and waits a while for the deed.
    pub(crate) async fn ask(
        &self,
        microvm: &Microvm,
        message: impl FnOnce(oneshot::Sender<Result<(), ApiError>>) -> Message,
    ) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        // A task that is gone has terminated its MicroVM.
        if microvm.mailbox.send(message(reply)).await.is_err() {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    async fn recover(&self, records: Vec<MicrovmRecord>) -> Result<(), LifecycleError> {
        let mut recovered = Vec::new();
        let mut kept: Vec<GuestRecord> = Vec::new();
        for mut record in records {
            let guest = self.find_guest(&mut record).await?;
            kept.extend(guest.as_ref().map(Guest::record));
            recovered.push((record, guest));
        }
        self.node().host.sweep(&kept).await?;
        for (mut record, guest) in recovered {
            if record.stage == Stage::Terminated {
                self.add_at_rest(record);
                continue;
            }
            let directory = self
                .node()
                .snapshot_directory(&record.image_id, record.snapshot());
            match self.node().host.open_snapshot(&directory) {
                Ok(snapshot) => {
                    record.vmm = Some(snapshot.platform().to_string());
                    self.add_microvm(record, Some(snapshot), guest);
                }
                Err(error) => {
                    // Nothing is thrown away: an operator can bring back the VMM that the snapshot needs.
                    tracing::error!(microvm = record.id, %error, "a MicroVM's snapshot does not load on this node now");
                    self.add_microvm(record, None, guest);
                }
            }
        }
        Ok(())
    }

    /// The guest of a record, if its process lives, answers and is of use; else the record is set to what its files allow.
    async fn find_guest(&self, record: &mut MicrovmRecord) -> Result<Option<Guest>, LifecycleError> {
        let host = &self.node().host;
        let mut found = match &record.guest {
            Some(guest) if !matches!(record.stage, Stage::Terminated | Stage::Suspended) => {
                let egress = self.config().network.egress(&record.ways);
                match host.adopt(guest, egress).await {
                    Err(GuestError::Vmm(error)) => {
                        tracing::error!(microvm = record.id, %error, "a MicroVM's VMM is lost");
                        None
                    }
                    found => found?,
                }
            }
            _ => None,
        };
        let directory = self.node().microvm_directory(&record.id);
        let saved = suspended_of(&directory, record.suspends);
        if let (Stage::Resuming, Some(guest)) = (record.stage, &found) {
            match guest.execution().await {
                Ok(Execution::Running) => return Ok(found),
                // It has run and was stopped to be suspended again, which was not written down: that is undone.
                Ok(Execution::Paused) if !untouched(&directory, &saved) => {
                    record.stage = Stage::Suspending;
                    return Ok(found);
                }
                // A process that has not begun to run the guest is of no use.
                Ok(Execution::Paused) => {}
                Err(error) => tracing::error!(microvm = record.id, %error, "a MicroVM's VMM is lost"),
            }
            // Before its files are looked at: it may still write its disk.
            guest.vm().kill().await;
            found = None;
        }
        match (record.stage, &found) {
            (Stage::Resuming, None) if untouched(&directory, &saved) => record.stage = Stage::Suspended,
            (Stage::Resuming, None) => record.stage = Stage::Running,
            (Stage::Suspending, None) if untouched(&directory, &saved) => {
                record.suspended_at = Some(Timestamp::now());
                record.stage = Stage::Suspended;
            }
            _ => {}
        }
        Ok(found)
    }

    fn add_at_rest(&self, record: MicrovmRecord) {
        self.registry().insert(Microvm::at_rest(record));
    }

    async fn go_on_with_builds(&self) {
        let catalog = self.inner.catalog.lock().await;
        for id in catalog.connectors.keys() {
            self.settle_connector(id.clone());
        }
        for version in catalog.versions() {
            match version.state {
                MicrovmImageVersionState::Pending | MicrovmImageVersionState::InProgress => {
                    self.start_build(version.key());
                }
                _ => {}
            }
        }
        for image in catalog
            .images()
            .filter(|image| image.state == MicrovmImageState::Deleting)
        {
            let (service, id) = (self.clone(), image.id.clone());
            tokio::spawn(async move { service.finish_image_deletion(&id).await });
        }
        for version in catalog.versions().filter(|version| version.is_runnable()) {
            self.settle_snapshot(version.key());
        }
    }

    /// Builds a version in the background.
    pub(crate) fn start_build(&self, key: String) {
        let service = self.clone();
        tokio::spawn(async move {
            let account = |catalog: &Catalog| Some(catalog.version(&key)?.account.clone());
            let Some(account) = account(&*service.inner.catalog.lock().await) else {
                return;
            };
            let _turn = service.inner.builds.take(&account).await;
            if let Err(error) = service.build(&key).await {
                tracing::error!(version = key, %error, "a build's outcome could not be written down");
            }
        });
    }

    async fn build(&self, key: &str) -> Result<(), LifecycleError> {
        let begun = self.change_version(key, |_, version| {
            version.state = MicrovmImageVersionState::InProgress;
            version.each_build(|build| build.state = BuildState::InProgress);
        });
        let Some((image, version)) = begun.await? else {
            return Ok(());
        };
        let outcome = task::build(self.node(), &image.arn(), &version).await;
        let settled = self.change_version(key, |image, version| {
            let first = version.number == 1;
            version.updated_at = Timestamp::now();
            image.updated_at = version.updated_at;
            match &outcome {
                Ok(made) => {
                    version.state = MicrovmImageVersionState::Successful;
                    version.status = MicrovmImageVersionStatus::Active;
                    version.each_build(|build: &mut BuildRecord| {
                        build.state = BuildState::Successful;
                        build.sizes = Some(made.sizes.clone());
                    });
                    version.container = Some(made.container.clone());
                    image.latest_active_version = Some(version.version.clone());
                    image.state = if first {
                        MicrovmImageState::Created
                    } else {
                        MicrovmImageState::Updated
                    };
                }
                Err(failed) => {
                    version.state = MicrovmImageVersionState::Failed;
                    version.each_build(|build: &mut BuildRecord| {
                        build.state = BuildState::Failed;
                        build.reason = Some(failed.reason.clone());
                        build.sizes = failed.sizes.clone();
                    });
                    image.latest_failed_version = Some(version.version.clone());
                    image.state = if first {
                        MicrovmImageState::CreateFailed
                    } else {
                        MicrovmImageState::UpdateFailed
                    };
                }
            }
        });
        settled.await?;
        if let Ok(made) = &outcome {
            meter::built(self.node(), &version, made.bytes());
            let directory = self
                .node()
                .snapshot_directory(&version.image_id, version.snapshot());
            if let Ok(snapshot) = self.node().host.open_snapshot(&directory) {
                self.node().pool.refill(&snapshot);
            }
        }
        Ok(())
    }

    /// Changes a version and its image together, first in the database, as soon as there is room. `None` when they are gone.
    pub(crate) async fn change_version(
        &self,
        key: &str,
        change: impl Fn(&mut ImageRecord, &mut VersionRecord),
    ) -> Result<Option<(ImageRecord, VersionRecord)>, LifecycleError> {
        until_written(|| self.try_to_change_version(key, &change)).await
    }

    async fn try_to_change_version(
        &self,
        key: &str,
        change: &impl Fn(&mut ImageRecord, &mut VersionRecord),
    ) -> Result<Option<(ImageRecord, VersionRecord)>, LifecycleError> {
        let mut catalog = self.inner.catalog.lock().await;
        let Some(mut version) = catalog.version(key).cloned() else {
            return Ok(None);
        };
        let Some(mut image) = catalog.image_by_id(&version.image_id).cloned() else {
            return Ok(None);
        };
        change(&mut image, &mut version);
        let changes = Changes::new()
            .put(Table::Versions, key, &version.account, &version)?
            .put(Table::Images, &image.id, &image.account, &image)?;
        self.node().state.commit(changes).await?;
        catalog.put_version(version.clone());
        catalog.put_image(image.clone());
        Ok(Some((image, version)))
    }

    /// Removes the files and records of an image in DELETING.
    pub(crate) async fn finish_image_deletion(&self, image_id: &str) {
        let files = self.inner.files.write().await;
        let versions: Vec<VersionRecord> = self
            .inner
            .catalog
            .lock()
            .await
            .versions_of(image_id)
            .into_iter()
            .cloned()
            .collect();
        for version in &versions {
            self.node()
                .pool
                .forget(&self.node().snapshot_directory(image_id, version.snapshot()))
                .await;
        }
        let directory = self.node().image_directory(image_id);
        let removed = tokio::task::spawn_blocking(move || durable::remove_directory(&directory)).await;
        let removed = removed
            .map_err(std::io::Error::other)
            .flatten()
            .and_then(|()| self.node().builder.forget_cache(image_id));
        drop(files);
        if let Err(error) = removed {
            tracing::error!(image_id, %error, "an image's files could not be removed; its deletion can be asked for again");
            return self.deletion_failed(image_id).await;
        }
        let deleted = || {
            let keys = versions.iter().map(VersionRecord::key);
            let changes = keys.fold(Changes::new(), |changes, key| {
                changes.delete(Table::Versions, &key)
            });
            changes.delete(Table::Images, image_id)
        };
        let written = until_written(|| async { Ok(self.node().state.commit(deleted()).await?) });
        if let Err(error) = written.await {
            tracing::error!(image_id, %error, "an image's deletion could not be written down; it is tried again at the next start");
            return;
        }
        self.inner.catalog.lock().await.remove_image(image_id);
    }

    /// DELETING → DELETE_FAILED.
    async fn deletion_failed(&self, image_id: &str) {
        let written = until_written(|| async {
            let mut catalog = self.inner.catalog.lock().await;
            let Some(mut image) = catalog.image_by_id(image_id).cloned() else {
                return Ok(());
            };
            image.state = MicrovmImageState::DeleteFailed;
            image.updated_at = Timestamp::now();
            let state = &self.node().state;
            state.put(Table::Images, image_id, &image.account, &image).await?;
            catalog.put_image(image);
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::error!(image_id, %error, "a failed deletion could not be written down; it is tried again at the next start");
        }
    }

    async fn keep_house(self) {
        loop {
            tokio::time::sleep(HOUSEKEEPING).await;
            self.forget_terminated().await;
            self.remove_unused_snapshots().await;
        }
    }

    /// Forgets MicroVMs that were terminated long ago.
    async fn forget_terminated(&self) {
        let now = Timestamp::now();
        let is_old = |record: &MicrovmRecord| {
            let over = record.terminated_at.map(|at| now.since(at));
            record.stage == Stage::Terminated
                && over.is_some_and(|over| over > self.config().terminated_retention)
        };
        let old: Vec<String> = self
            .registry()
            .all()
            .map(|microvm| microvm.record.borrow())
            .filter(|record| is_old(record))
            .map(|record| record.id.clone())
            .collect();
        for id in old {
            let forgotten = Changes::new().delete(Table::Microvms, &id);
            if self.node().state.commit(forgotten).await.is_ok() {
                self.registry().remove(&id);
            }
        }
    }

    /// Removes the files of deleted versions and of former snapshots that no MicroVM needs any more (spec section 34,
    /// question 19).
    pub(crate) async fn remove_unused_snapshots(&self) {
        let _files = self.inner.files.write().await;
        let catalog = self.inner.catalog.lock().await;
        let mut used: HashSet<PathBuf> = self
            .registry()
            .all()
            .map(|microvm| microvm.record.borrow())
            .filter(|record| record.stage != Stage::Terminated)
            .map(|record| {
                self.node()
                    .snapshot_directory(&record.image_id, record.snapshot())
            })
            .collect();
        for version in catalog.versions() {
            let directory = self
                .node()
                .snapshot_directory(&version.image_id, version.snapshot());
            used.insert(task::making(&directory));
            used.insert(directory);
        }
        used.extend(self.chosen().iter().cloned());
        for image in catalog.images() {
            let Ok(entries) = std::fs::read_dir(self.node().image_directory(&image.id)) else {
                continue;
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if used.contains(&path) {
                    continue;
                }
                self.node().pool.forget(&path).await;
                if let Err(error) = durable::remove_directory(&path) {
                    tracing::warn!(%error, "files of an unused snapshot stay behind");
                }
            }
        }
    }

    /// When this daemon started.
    pub(crate) fn started_at(&self) -> Timestamp {
        self.inner.started_at
    }

    pub(crate) fn bases(&self) -> &AsyncMutex<Vec<hearth_wire::types::BaseItem>> {
        &self.inner.bases
    }
}

/// Tries until it is written or the database is closed: what has been done is not forgotten because the disk was full.
async fn until_written<T, F: Future<Output = Result<T, LifecycleError>>>(
    write: impl Fn() -> F,
) -> Result<T, LifecycleError> {
    loop {
        match write().await {
            Err(LifecycleError::State(error @ StateError::Database(_))) if !error.is_closed() => {
                tracing::error!(%error, "what was done could not be written down; it is tried again");
            }
            written => return written,
        }
        tokio::time::sleep(WRITE_AGAIN).await;
    }
}
