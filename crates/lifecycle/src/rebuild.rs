//! Snapshots that this node cannot load any more, made again in the background.
//!
//! A snapshot belongs to the VMM, the processor and the agent's protocol that made it. When one of them changes, the
//! version's root disk is booted anew: what the user built stays as it was. Until then a launch is refused by name. The old
//! snapshot stays for as long as a MicroVM is suspended on it. One that only holds another guest kernel than the base image
//! serves on until the new one is there.

use hearth_guest::{GuestError, Snapshot};
use hearth_wire::{
    ApiError, Timestamp,
    enums::{BuildState, MicrovmImageVersionState},
    texts,
    types::SnapshotBuild,
};

use crate::{
    LifecycleError, Service,
    image::{
        record::{BuildRecord, ImageRecord, VersionRecord},
        task,
    },
};

/// What this node can do with a version's snapshots.
enum Standing {
    /// It loads this one, which holds the base image's kernel.
    Current(String, Snapshot),
    /// It loads one with another kernel.
    Dated(Snapshot),
    /// It loads none.
    Unusable(GuestError),
}

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
        let latest = image.latest_active_version.as_ref() == Some(&version.version);
        let refill = |snapshot: &Snapshot| {
            if latest {
                self.node().pool.refill(snapshot);
            }
        };
        match self.standing(&version) {
            Standing::Current(name, snapshot) => {
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
                    self.launch_from(key, name, sizes).await?;
                }
                refill(&snapshot);
            }
            Standing::Dated(snapshot) => {
                refill(&snapshot);
                self.rebuild(key, "it holds another guest kernel than the base image", false)
                    .await?;
            }
            Standing::Unusable(error) if error.is_foreign() => {
                self.rebuild(key, &error.to_string(), true).await?;
            }
            Standing::Unusable(error) => {
                tracing::error!(version = key, %error, "a snapshot cannot be used");
            }
        }
        Ok(())
    }

    async fn settled_version(&self, key: &str) -> Option<(ImageRecord, VersionRecord)> {
        let catalog = self.inner.catalog.lock().await;
        let version = catalog.version(key)?;
        let image = catalog.image_by_id(&version.image_id)?;
        (version.state == MicrovmImageVersionState::Successful).then(|| (image.clone(), version.clone()))
    }

    fn standing(&self, version: &VersionRecord) -> Standing {
        let host = &self.node().host;
        let own = format!("{}@", version.version);
        let directory = self.node().image_directory(&version.image_id);
        let others = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let others = others
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            // Not one that is being made or removed.
            .filter(|name| {
                let id = name.strip_prefix(&own);
                *name == version.version || id.is_some_and(|id| !id.contains('.'))
            });
        let (mut dated, mut unusable) = (None, None);
        for name in std::iter::once(version.snapshot().to_owned()).chain(others) {
            let directory = self.node().snapshot_directory(&version.image_id, &name);
            match host.open_snapshot(&directory) {
                Ok(snapshot) if host.is_of_base(&snapshot) => return Standing::Current(name, snapshot),
                // Only the one that serves already: there is no going back to an older kernel.
                Ok(snapshot) if name == version.snapshot() => dated = Some(snapshot),
                Ok(_) => {}
                Err(error) => unusable = unusable.or(Some(error)),
            }
        }
        match (dated, unusable) {
            (None, Some(error)) => Standing::Unusable(error),
            (Some(snapshot), _) => Standing::Dated(snapshot),
            (None, None) => Standing::Unusable(GuestError::io("opening the snapshot")(
                std::io::ErrorKind::NotFound.into(),
            )),
        }
    }

    /// Boots the version's root disk and takes a new snapshot. `refused`: the old one does not load here.
    async fn rebuild(&self, key: &str, cause: &str, refused: bool) -> Result<(), LifecycleError> {
        if refused {
            self.show(key, BuildState::InProgress, Some(cause)).await?;
        }
        let Ok(_turn) = self.inner.builds.clone().acquire_owned().await else {
            return Ok(());
        };
        let _files = self.inner.files.read().await;
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
                self.launch_from(key, name, Some(sizes)).await?;
                self.node().pool.forget(&former).await;
            }
            Err(failed) => {
                tracing::error!(
                    version = key,
                    reason = failed.reason,
                    "a snapshot could not be made again"
                );
                if refused {
                    self.show(key, BuildState::Failed, Some(&failed.reason)).await?;
                }
            }
        }
        Ok(())
    }

    /// Launches go from this snapshot now.
    async fn launch_from(
        &self,
        key: &str,
        name: String,
        sizes: Option<SnapshotBuild>,
    ) -> Result<(), LifecycleError> {
        let changed = self.change_version(key, |_, version| {
            version.snapshot = Some(name);
            version.updated_at = Timestamp::now();
            version.each_build(|build: &mut BuildRecord| {
                build.state = BuildState::Successful;
                build.reason = None;
                build.sizes = sizes.clone();
            });
        });
        changed.await.map(drop)
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
