//! The service: what exists on this node, how it comes back after a restart, and what is cleaned up in time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use hearth_guest::{Guest, GuestRecord, Snapshot};
use hearth_state::{Changes, Table};
use hearth_storage::{disk, durable};
use hearth_token::Keyring;
use hearth_vmm::driver::Execution;
use hearth_wire::{
    ApiError, Timestamp,
    enums::{BuildState, MicrovmImageState, MicrovmImageVersionState, MicrovmImageVersionStatus},
    page::PageKey,
};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};

use crate::{
    LifecycleError,
    image::{
        record::{ImageRecord, VersionRecord},
        task,
    },
    microvm::{
        Message, Microvm, MicrovmRecord,
        activity::Activity,
        gate::{self, GateError, Passage},
        record::Stage,
        task::Task,
    },
    node::{LifecycleConfig, Node, scratch_of, suspended_of},
    tiers,
};

/// How long an answer to a suspend or resume waits for the deed (the API itself promises only that it has begun).
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

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
    pub keyring: Arc<RwLock<Keyring>>,
    pub page_key: PageKey,
    pub catalog: AsyncMutex<Catalog>,
    microvms: Mutex<HashMap<String, Microvm>>,
    /// MicroVM ids by endpoint id.
    endpoints: Mutex<HashMap<String, String>>,
    builds: Arc<Semaphore>,
    bases: AsyncMutex<Vec<hearth_wire::types::BaseItem>>,
    started_at: Timestamp,
}

/// Images by id, versions by key.
#[derive(Default)]
pub(crate) struct Catalog {
    pub images: HashMap<String, ImageRecord>,
    pub versions: HashMap<String, VersionRecord>,
}

impl Catalog {
    /// The image of an ARN.
    pub(crate) fn image(&self, arn: &hearth_wire::arn::ImageArn) -> Option<&ImageRecord> {
        self.images.values().find(|image| {
            image.name == arn.name && image.account == arn.account && image.region == arn.region
        })
    }

    /// An image's versions, newest first.
    pub(crate) fn versions_of(&self, image_id: &str) -> Vec<&VersionRecord> {
        let mut versions: Vec<_> = self
            .versions
            .values()
            .filter(|version| version.image_id == image_id)
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.number));
        versions
    }
}

impl Service {
    /// Takes over this node: finds running guests again, finishes or undoes what was half done, sweeps what belongs to
    /// nobody, and goes on with unfinished builds.
    pub async fn start(
        node: Node,
        keyring: Arc<RwLock<Keyring>>,
        page_key: PageKey,
    ) -> Result<Service, LifecycleError> {
        for name in ["images", "microvms", "scratch"] {
            let directory = node.config.directory.join(name);
            std::fs::create_dir_all(&directory)?;
            disk::give(&directory, None, None, 0o711)?;
        }
        let mut catalog = Catalog::default();
        for image in node.state.all::<ImageRecord>(Table::Images).await? {
            catalog.images.insert(image.id.clone(), image);
        }
        for version in node.state.all::<VersionRecord>(Table::Versions).await? {
            catalog.versions.insert(version.key(), version);
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
                microvms: Mutex::default(),
                endpoints: Mutex::default(),
                builds: Arc::new(Semaphore::new(concurrent_builds)),
                bases: AsyncMutex::new(bases),
                started_at: Timestamp::now(),
            }),
        };
        service.recover(records).await?;
        service.go_on_with_builds().await;
        tokio::spawn(service.clone().keep_house());
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
        let microvm_id = locked(&self.inner.endpoints).get(endpoint_id).cloned()?;
        let memory_mib = self.microvm(&microvm_id)?.record.borrow().memory_mib;
        let tier = i32::try_from(memory_mib).ok().and_then(tiers::find);
        Some(EndpointOwner {
            microvm_id,
            vcpus: tier.map_or(1, |tier| tier.vcpus),
        })
    }

    /// What a MicroVM is busy with; `None` for one that does not exist.
    pub fn activity(&self, microvm_id: &str) -> Option<Activity> {
        Some(self.microvm(microvm_id)?.traffic.activity(self.config().busy))
    }

    /// Lets a MicroVM count as busy for `time` from now on, if the operator lets leases count; none gives it back. False
    /// for one that does not exist.
    pub fn lease(&self, microvm_id: &str, time: Duration) -> bool {
        let found = self.microvm(microvm_id);
        if let Some(microvm) = &found {
            microvm.traffic.lease(time);
        }
        found.is_some()
    }

    /// Waits at the gate of a MicroVM.
    pub async fn enter(&self, microvm_id: &str) -> Result<Passage, GateError> {
        let microvm = self.microvm(microvm_id).ok_or(GateError::Closed)?;
        gate::enter(&microvm).await
    }

    pub(crate) fn microvm(&self, id: &str) -> Option<Microvm> {
        locked(&self.inner.microvms).get(id).cloned()
    }

    pub(crate) fn all_microvms(&self) -> Vec<Microvm> {
        locked(&self.inner.microvms).values().cloned().collect()
    }

    /// Starts the task of a MicroVM whose record is written.
    pub(crate) fn add_microvm(&self, record: MicrovmRecord, snapshot: Snapshot, guest: Option<Guest>) {
        let (id, endpoint_id) = (record.id.clone(), record.endpoint_id.clone());
        let microvm = Task::start(self.node().clone(), record, snapshot, guest);
        locked(&self.inner.endpoints).insert(endpoint_id, id.clone());
        locked(&self.inner.microvms).insert(id, microvm);
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
        for (record, guest) in recovered {
            if record.stage == Stage::Terminated {
                self.add_at_rest(record);
                continue;
            }
            let directory = self
                .node()
                .version_directory(&record.image_id, &record.image_version);
            match self.node().host.open_snapshot(&directory) {
                Ok(snapshot) => self.add_microvm(record, snapshot, guest),
                Err(error) => {
                    // Nothing is thrown away: an operator can bring back the VMM that the snapshot needs.
                    tracing::error!(microvm = record.id, %error, "a MicroVM cannot be used on this node now");
                    self.add_at_rest(record);
                }
            }
        }
        Ok(())
    }

    /// The guest of a record, if its process lives and is of use; else the record is set to what its files allow.
    async fn find_guest(&self, record: &mut MicrovmRecord) -> Result<Option<Guest>, LifecycleError> {
        let host = &self.node().host;
        let found = match &record.guest {
            Some(guest) if !matches!(record.stage, Stage::Terminated | Stage::Suspended) => {
                host.adopt(guest).await?
            }
            _ => None,
        };
        let directory = self.node().microvm_directory(&record.id);
        let saved = suspended_of(&directory, record.suspends);
        match (record.stage, &found) {
            (Stage::Resuming, Some(guest)) => {
                // A process that has not begun to run the guest is of no use; the files are as good as before.
                if guest
                    .vm()
                    .execution()
                    .await
                    .map_err(hearth_guest::GuestError::from)?
                    == Execution::Running
                {
                    return Ok(found);
                }
                record.stage = Stage::Suspended;
                return Ok(None);
            }
            (Stage::Resuming, None) if untouched(&directory, &saved) => record.stage = Stage::Suspended,
            (Stage::Resuming, None) => record.stage = Stage::Running,
            (Stage::Suspending, None) if saved.exists() => {
                record.suspended_at = Some(Timestamp::now());
                record.stage = Stage::Suspended;
            }
            _ => {}
        }
        Ok(found)
    }

    fn add_at_rest(&self, record: MicrovmRecord) {
        let microvm = Microvm::at_rest(record.clone());
        locked(&self.inner.endpoints).insert(record.endpoint_id, record.id.clone());
        locked(&self.inner.microvms).insert(record.id, microvm);
    }

    async fn go_on_with_builds(&self) {
        let catalog = self.inner.catalog.lock().await;
        for version in catalog.versions.values() {
            match version.state {
                MicrovmImageVersionState::Pending | MicrovmImageVersionState::InProgress => {
                    self.start_build(version.key());
                }
                _ => {}
            }
        }
        for image in catalog
            .images
            .values()
            .filter(|image| image.state == MicrovmImageState::Deleting)
        {
            let (service, id) = (self.clone(), image.id.clone());
            tokio::spawn(async move { service.finish_image_deletion(&id).await });
        }
        for version in catalog.versions.values().filter(|version| version.is_runnable()) {
            let directory = self.node().version_directory(&version.image_id, &version.version);
            let image = catalog.images.get(&version.image_id);
            let latest =
                image.is_some_and(|image| image.latest_active_version.as_ref() == Some(&version.version));
            if let (true, Ok(snapshot)) = (latest, self.node().host.open_snapshot(&directory)) {
                self.node().pool.refill(&snapshot);
            }
        }
    }

    /// Builds a version in the background.
    pub(crate) fn start_build(&self, key: String) {
        let service = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = service.inner.builds.clone().acquire_owned().await else {
                return;
            };
            if let Err(error) = service.build(&key).await {
                tracing::error!(version = key, %error, "a build's outcome could not be written down");
            }
        });
    }

    async fn build(&self, key: &str) -> Result<(), LifecycleError> {
        let begun = self.change_version(key, |_, version| {
            version.state = MicrovmImageVersionState::InProgress;
            version.build.state = BuildState::InProgress;
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
                    version.build.state = BuildState::Successful;
                    version.build.sizes = Some(made.sizes.clone());
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
                    version.build.state = BuildState::Failed;
                    version.build.reason = Some(failed.reason.clone());
                    version.build.sizes = failed.sizes.clone();
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
        if outcome.is_ok() {
            let directory = self.node().version_directory(&version.image_id, &version.version);
            if let Ok(snapshot) = self.node().host.open_snapshot(&directory) {
                self.node().pool.refill(&snapshot);
            }
        }
        Ok(())
    }

    /// Changes a version and its image together, first in the database. `None` when they are gone.
    pub(crate) async fn change_version(
        &self,
        key: &str,
        change: impl FnOnce(&mut ImageRecord, &mut VersionRecord),
    ) -> Result<Option<(ImageRecord, VersionRecord)>, LifecycleError> {
        let mut catalog = self.inner.catalog.lock().await;
        let Some(mut version) = catalog.versions.get(key).cloned() else {
            return Ok(None);
        };
        let Some(mut image) = catalog.images.get(&version.image_id).cloned() else {
            return Ok(None);
        };
        change(&mut image, &mut version);
        let changes = Changes::new()
            .put(Table::Versions, key, &version.account, &version)?
            .put(Table::Images, &image.id, &image.account, &image)?;
        self.node().state.commit(changes).await?;
        catalog.versions.insert(key.to_owned(), version.clone());
        catalog.images.insert(image.id.clone(), image.clone());
        Ok(Some((image, version)))
    }

    /// Removes the files and records of an image in DELETING.
    pub(crate) async fn finish_image_deletion(&self, image_id: &str) {
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
                .forget(&self.node().version_directory(image_id, &version.version))
                .await;
        }
        let removed = durable::remove_directory(&self.node().image_directory(image_id))
            .and_then(|()| self.node().builder.forget_cache(image_id));
        if let Err(error) = removed {
            tracing::error!(image_id, %error, "an image's files could not be removed; it stays DELETING until the next start");
            return;
        }
        let keys = versions.iter().map(VersionRecord::key);
        let changes = keys.clone().fold(Changes::new(), |changes, key| {
            changes.delete(Table::Versions, &key)
        });
        if let Err(error) = self
            .node()
            .state
            .commit(changes.delete(Table::Images, image_id))
            .await
        {
            tracing::error!(image_id, %error, "an image's deletion could not be written down");
            return;
        }
        let mut catalog = self.inner.catalog.lock().await;
        catalog.images.remove(image_id);
        keys.for_each(|key| drop(catalog.versions.remove(&key)));
    }

    async fn keep_house(self) {
        loop {
            tokio::time::sleep(HOUSEKEEPING).await;
            self.forget_terminated().await;
            self.remove_unused_versions().await;
        }
    }

    /// Forgets MicroVMs that were terminated long ago.
    async fn forget_terminated(&self) {
        let now = Timestamp::now();
        for microvm in self.all_microvms() {
            let (id, endpoint_id, old) = {
                let record = microvm.record.borrow();
                let old = record
                    .terminated_at
                    .is_some_and(|at| now.since(at) > self.config().terminated_retention);
                (
                    record.id.clone(),
                    record.endpoint_id.clone(),
                    old && record.stage == Stage::Terminated,
                )
            };
            if old
                && self
                    .node()
                    .state
                    .commit(Changes::new().delete(Table::Microvms, &id))
                    .await
                    .is_ok()
            {
                locked(&self.inner.microvms).remove(&id);
                locked(&self.inner.endpoints).remove(&endpoint_id);
            }
        }
    }

    /// Removes the files of deleted versions that no MicroVM needs any more (spec section 34, question 19).
    pub(crate) async fn remove_unused_versions(&self) {
        let catalog = self.inner.catalog.lock().await;
        for image in catalog.images.values() {
            let Ok(entries) = std::fs::read_dir(self.node().image_directory(&image.id)) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let wanted = catalog.versions.contains_key(&format!(
                    "{}:{}",
                    image.id,
                    name.trim_end_matches(".making")
                ));
                let used = self.all_microvms().iter().any(|microvm| {
                    let record = microvm.record.borrow();
                    record.image_id == image.id
                        && record.image_version == name
                        && record.stage != Stage::Terminated
                });
                if !wanted && !used {
                    self.node().pool.forget(&entry.path()).await;
                    if let Err(error) = durable::remove_directory(&entry.path()) {
                        tracing::warn!(%error, "files of a deleted version stay behind");
                    }
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

/// Whether a MicroVM's disk has not been written since its suspend was.
fn untouched(microvm_directory: &std::path::Path, saved: &std::path::Path) -> bool {
    let modified = |path: std::path::PathBuf| std::fs::metadata(path)?.modified();
    match (
        modified(scratch_of(microvm_directory)),
        modified(saved.join("delta")),
    ) {
        (Ok(disk), Ok(delta)) => disk <= delta,
        _ => false,
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
