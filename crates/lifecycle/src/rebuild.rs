//! Snapshots that this node launches nothing from any more, made again in the background.
//!
//! A snapshot belongs to the VMM, the processor, the agent's protocol and the guest kernel that made it. When one of them
//! changes, the version's root disk is booted anew: what the user built stays as it was. Until then a launch is refused by
//! name. The old snapshot stays for as long as a MicroVM is suspended on it, which resumes if only its kernel is another.

use hearth_guest::{GuestError, Snapshot};
use hearth_wire::{
    ApiError, Timestamp,
    enums::{BuildState, MicrovmImageState, MicrovmImageVersionState},
    texts,
    types::SnapshotBuild,
};
use tokio::sync::RwLockReadGuard;

use crate::{
    LifecycleError, Service,
    image::{
        record::{BuildRecord, ImageRecord, VersionRecord},
        task,
    },
};

impl Service {
    /// Makes sure that a version has a snapshot that this node loads.
    pub(crate) fn settle_snapshot(&self, key: String) {
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.settle_now(&key).await {
                tracing::error!(version = key, %error, "a snapshot's state could not be written down");
            }
        });
    }

    async fn settle_now(&self, key: &str) -> Result<(), LifecycleError> {
        let Some((image, version)) = self.settled_version(key).await else {
            return Ok(());
        };
        let files = self.inner.files.read().await;
        match self.launchable(&version) {
            Ok((name, snapshot)) => {
                let sizes = version.sizes().map(|sizes| SnapshotBuild {
                    vmm: Some(snapshot.platform().to_string()),
                    ..sizes.clone()
                });
                let is_known = version.snapshot() == name
                    && version.sizes() == sizes.as_ref()
                    && version
                        .builds
                        .iter()
                        .all(|build| build.state == BuildState::Successful);
                if !is_known {
                    self.launch_from(&version, name, sizes, files).await?;
                }
                if image.latest_active_version.as_ref() == Some(&version.version) {
                    self.node().pool.refill(&snapshot);
                }
            }
            Err(error) if error.is_foreign() => {
                drop(files);
                self.rebuild(key, &version.account, &error.to_string()).await?;
            }
            Err(error) => {
                tracing::error!(version = key, %error, "a snapshot cannot be used");
            }
        }
        Ok(())
    }

    async fn settled_version(&self, key: &str) -> Option<(ImageRecord, VersionRecord)> {
        let catalog = self.inner.catalog.lock().await;
        let version = catalog.version(key)?;
        let image = catalog.image_by_id(&version.image_id)?;
        let is_settled = version.state == MicrovmImageVersionState::Successful
            && image.state != MicrovmImageState::Deleting;
        is_settled.then(|| (image.clone(), version.clone()))
    }

    /// The version's snapshot that this node launches from; else what is wrong with the one it launched from so far.
    fn launchable(&self, version: &VersionRecord) -> Result<(String, Snapshot), GuestError> {
        let host = &self.node().host;
        let open = |name: &str| host.open_to_launch(&self.node().snapshot_directory(&version.image_id, name));
        let wrong = match open(version.snapshot()) {
            Ok(snapshot) => return Ok((version.snapshot().to_owned(), snapshot)),
            Err(error) => error,
        };
        let own = format!("{}@", version.version);
        let directory = self.node().image_directory(&version.image_id);
        let all = std::fs::read_dir(directory).into_iter().flatten().flatten();
        all.map(|entry| entry.file_name().to_string_lossy().into_owned())
            // Not one that is being made or removed.
            .filter(|name| {
                let id = name.strip_prefix(&own);
                *name == version.version || id.is_some_and(|id| !id.contains('.'))
            })
            .find_map(|name| open(&name).ok().map(|snapshot| (name, snapshot)))
            .ok_or(wrong)
    }

    /// Boots the version's root disk and takes a new snapshot.
    async fn rebuild(&self, key: &str, account: &str, cause: &str) -> Result<(), LifecycleError> {
        self.show(key, BuildState::InProgress, Some(cause)).await?;
        let _turn = self.inner.builds.take(account).await;
        let files = self.inner.files.read().await;
        let Some((image, version)) = self.settled_version(key).await else {
            return Ok(());
        };
        tracing::info!(version = key, cause, "a snapshot is made again");
        let id = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{}@{}", version.version, &id[..8]);
        match task::rebuild(self.node(), &image.arn(), &version, &name, cause).await {
            Ok(sizes) => {
                let former = self
                    .node()
                    .snapshot_directory(&version.image_id, version.snapshot());
                self.launch_from(&version, name, Some(sizes), files).await?;
                self.node().pool.forget(&former).await;
            }
            Err(failed) => {
                drop(files);
                tracing::error!(
                    version = key,
                    reason = failed.reason,
                    "a snapshot could not be made again"
                );
                self.show(key, BuildState::Failed, Some(&failed.reason)).await?;
            }
        }
        Ok(())
    }

    /// Launches go from this snapshot now. It is not removed before that is written down, which may take until the disk has room.
    async fn launch_from(
        &self,
        version: &VersionRecord,
        name: String,
        sizes: Option<SnapshotBuild>,
        files: RwLockReadGuard<'_, ()>,
    ) -> Result<(), LifecycleError> {
        let directory = self.node().snapshot_directory(&version.image_id, &name);
        self.chosen().insert(directory.clone());
        drop(files);
        let key = version.key();
        let changed = self.change_version(&key, |_, version| {
            version.snapshot = Some(name.clone());
            version.updated_at = Timestamp::now();
            version.each_build(|build: &mut BuildRecord| {
                build.state = BuildState::Successful;
                build.reason = None;
                build.sizes = sizes.clone();
            });
        });
        let changed = changed.await;
        self.chosen().remove(&directory);
        changed.map(drop)
    }

    async fn show(&self, key: &str, state: BuildState, reason: Option<&str>) -> Result<(), LifecycleError> {
        let changed = self.change_version(key, |_, version| {
            version.each_build(|build: &mut BuildRecord| {
                build.state = state;
                build.reason = reason.map(str::to_owned);
            });
        });
        changed.await.map(drop)
    }
}

/// The answer to a launch from a snapshot that does not open.
pub(crate) fn refusal(version: &VersionRecord, error: &GuestError) -> ApiError {
    let build = version.builds.first();
    let reason = build.and_then(|build| build.reason.as_deref());
    match build.map(|build| build.state) {
        Some(BuildState::Failed) => {
            texts::snapshot_not_rebuilt(&version.image_arn, &version.version, reason.unwrap_or("unknown"))
        }
        _ if error.is_foreign() => texts::snapshot_being_rebuilt(&version.image_arn, &version.version, error),
        _ => {
            tracing::error!(version = version.key(), %error, "a snapshot cannot be used");
            ApiError::internal()
        }
    }
}
