//! What every image and MicroVM of this node uses.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hearth_builder::Builder;
use hearth_guest::{Host, Pool};
use hearth_logs::Logs;
use hearth_state::State;
use hearth_storage::objects::Objects;

use crate::microvm::activity::BusyRules;

/// Limits and names that the operator chooses.
#[derive(Debug, Clone)]
pub struct LifecycleConfig {
    /// Directory of images and MicroVMs.
    pub directory: PathBuf,
    /// What follows the endpoint's id, e.g. `microvm.localhost`, with `:port` when it is not 443.
    pub endpoint_domain: String,
    /// Builds at a time; more wait.
    pub concurrent_builds: usize,
    /// How long an image without a ready hook may take until something listens; then its snapshot is taken anyway.
    pub listen_timeout: Duration,
    /// How long a terminated MicroVM stays readable.
    pub terminated_retention: Duration,
    /// Memory of all MicroVMs of an account that are not terminated, baseline, in MiB.
    pub memory_quota_mib: u64,
    /// What keeps a MicroVM from being idle, beside traffic.
    pub busy: BusyRules,
}

/// The parts that the lifecycle drives.
pub struct Node {
    /// The database.
    pub state: State,
    /// Artifacts.
    pub objects: Objects,
    /// Build and runtime logs.
    pub logs: Logs,
    /// Guests.
    pub host: Host,
    /// Processes started ahead.
    pub pool: Pool,
    /// Builds root disks.
    pub builder: Builder,
    /// Limits and names.
    pub config: LifecycleConfig,
}

impl Node {
    /// Directory of an image's versions.
    pub(crate) fn image_directory(&self, image_id: &str) -> PathBuf {
        self.config.directory.join("images").join(image_id)
    }

    /// Directory of a version's snapshot.
    pub(crate) fn version_directory(&self, image_id: &str, version: &str) -> PathBuf {
        self.image_directory(image_id).join(version)
    }

    /// Directory of a MicroVM's own files.
    pub(crate) fn microvm_directory(&self, microvm_id: &str) -> PathBuf {
        self.config.directory.join("microvms").join(microvm_id)
    }

    /// Empty scratch disks, one a size, made once.
    pub(crate) fn scratch_template(&self, bytes: u64) -> PathBuf {
        self.config
            .directory
            .join("scratch")
            .join(format!("{}gb.img", bytes >> 30))
    }
}

/// The scratch disk of a MicroVM.
pub(crate) fn scratch_of(microvm_directory: &Path) -> PathBuf {
    microvm_directory.join("scratch.img")
}

/// Device state and delta of a MicroVM's `number`th suspend; there only when complete. Each suspend has a directory of
/// its own, so that what a cancelled one left behind is never taken for the truth.
pub(crate) fn suspended_of(microvm_directory: &Path, number: u64) -> PathBuf {
    microvm_directory.join(format!("suspended-{number}"))
}
