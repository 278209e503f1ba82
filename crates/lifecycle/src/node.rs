//! What every image and MicroVM of this node uses.

use std::{
    collections::HashMap,
    io,
    net::SocketAddrV4,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hearth_audit::Audit;
use hearth_builder::Builder;
use hearth_external_s3::ExternalS3;
use hearth_guest::{Host, Pool};
use hearth_iam::Iam;
use hearth_logs::Logs;
use hearth_metadata::{Lease, Listeners, Metadata, Serving, Subject};
use hearth_network::{API_ADDRESS, API_PORT, METADATA_ADDRESS, METADATA_PORT, Slot};
use hearth_state::State;
use hearth_storage::objects::Objects;
use hearth_usage::Usage;

use crate::{Quotas, connector::NetworkMap, image::base::BaseVersion, microvm::activity::BusyRules};

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
    /// Versions of the managed base image, newest first.
    pub base_versions: Vec<BaseVersion>,
    /// Chipset generations that every image version is built for, newest first.
    pub chipset_generations: Vec<String>,
    /// What subnets and security groups mean.
    pub network: NetworkMap,
    /// What an account may have.
    pub quotas: Quotas,
    /// What single accounts may have instead.
    pub quotas_of_accounts: HashMap<String, Quotas>,
    /// What keeps a MicroVM from being idle, beside traffic.
    pub busy: BusyRules,
    /// Ports that MicroVMs may open to everybody, without a token; none by default.
    pub public_ports: Vec<RangeInclusive<u16>>,
}

impl LifecycleConfig {
    /// What `account` may have.
    pub(crate) fn quotas(&self, account: &str) -> &Quotas {
        self.quotas_of_accounts.get(account).unwrap_or(&self.quotas)
    }
}

/// The parts that the lifecycle drives.
pub struct Node {
    /// The database.
    pub state: State,
    /// Artifacts.
    pub objects: Objects,
    /// Artifacts of somebody else's S3 service.
    pub external_s3: Option<ExternalS3>,
    /// Build and runtime logs.
    pub logs: Logs,
    /// Keys, and the roles that builds and MicroVMs act for.
    pub iam: Iam,
    /// What is used.
    pub usage: Usage,
    /// What was changed, and by whom.
    pub audit: Audit,
    /// Guests.
    pub host: Host,
    /// Processes started ahead.
    pub pool: Pool,
    /// Tells guests who they are.
    pub metadata: Metadata,
    /// Builds root disks.
    pub builder: Builder,
    /// Limits and names.
    pub config: LifecycleConfig,
}

impl Node {
    /// Serves a guest's metadata in its slot. A guest for which it cannot be served runs without it.
    pub(crate) fn serve_metadata(
        &self,
        slot: &Slot,
        subject: Subject,
        lease: Option<Arc<dyn Lease>>,
    ) -> Option<Serving> {
        let listen = |address, port| slot.listen(SocketAddrV4::new(address, port));
        let listeners = || -> io::Result<Listeners> {
            let api = subject.role_arn.as_ref().map(|_| listen(API_ADDRESS, API_PORT));
            Ok(Listeners {
                metadata: listen(METADATA_ADDRESS, METADATA_PORT)?,
                api: api.transpose()?,
            })
        };
        match listeners() {
            Ok(listeners) => Some(self.metadata.serve(listeners, subject, lease)),
            Err(error) => {
                tracing::error!(guest = subject.id, %error, "a guest has no metadata service");
                None
            }
        }
    }

    /// Directory of an image's versions.
    pub(crate) fn image_directory(&self, image_id: &str) -> PathBuf {
        self.config.directory.join("images").join(image_id)
    }

    /// Directory of a version's snapshot; see [`crate::image::record::VersionRecord::snapshot`].
    pub(crate) fn snapshot_directory(&self, image_id: &str, name: &str) -> PathBuf {
        self.image_directory(image_id).join(name)
    }

    /// Directory of a MicroVM's own files.
    pub(crate) fn microvm_directory(&self, microvm_id: &str) -> PathBuf {
        self.config.directory.join("microvms").join(microvm_id)
    }

    /// Directory of empty scratch disks, one a size.
    pub(crate) fn scratch_directory(&self) -> PathBuf {
        self.config.directory.join("scratch")
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

/// Whether a suspend is complete and the MicroVM's disk has not been written since.
pub(crate) fn untouched(microvm_directory: &Path, suspended: &Path) -> bool {
    written_since(microvm_directory, suspended) == Some(false)
}

/// Whether the MicroVM's disk has been written since a suspend; `None` where either is not to be found.
pub(crate) fn written_since(microvm_directory: &Path, suspended: &Path) -> Option<bool> {
    let modified = |path: PathBuf| std::fs::metadata(path).ok()?.modified().ok();
    let disk = modified(scratch_of(microvm_directory))?;
    Some(disk > modified(suspended.join("delta"))?)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    #[test]
    fn a_suspend_counts_when_it_is_complete_and_the_disk_has_not_moved_on() {
        let directory = tempfile::tempdir().expect("temp dir");
        let (disk, suspended) = (scratch_of(directory.path()), suspended_of(directory.path(), 1));
        fs::write(&disk, "disk").expect("written");
        assert!(!untouched(directory.path(), &suspended), "not there");
        assert_eq!(written_since(directory.path(), &suspended), None);
        fs::create_dir(&suspended).expect("made");
        fs::write(suspended.join("delta"), "delta").expect("written");
        assert!(untouched(directory.path(), &suspended));
        let later = SystemTime::now() + Duration::from_secs(1);
        let disk = fs::File::options().write(true).open(disk).expect("opens");
        disk.set_modified(later).expect("set");
        assert!(!untouched(directory.path(), &suspended), "the guest went on");
        assert_eq!(written_since(directory.path(), &suspended), Some(true));
    }
}
