//! What every VMM must be able to do.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{jail::Limits, process::ProcessRecord};

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// Hardware virtualization.
    Kvm,
    /// Translation in software.
    Tcg,
}

impl fmt::Display for Acceleration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Acceleration::Kvm => "KVM",
            Acceleration::Tcg => "TCG",
        })
    }
}

/// Everything that must be the same for a snapshot to load. Stored in each snapshot's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Platform {
    /// Name of the driver.
    pub driver: String,
    /// Version of the VMM.
    pub version: String,
    /// How guest code is executed.
    pub acceleration: Acceleration,
    /// The VMM's versioned machine type.
    pub machine: String,
    /// The guest's CPU model.
    pub cpu: String,
}

/// What people are told, such as `firecracker 1.12, KVM`.
impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}, {}",
            self.driver, self.version, self.acceleration
        )
    }
}

/// Guest memory: a file mapped at guest address 0.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The file; as long as the guest's memory.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// `true` while an image is made: the file holds the guest's memory once its device state was saved. `false` for its
    /// clones: their writes stay private.
    pub shared: bool,
}

/// A raw disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The file; `None` for a disk that is attached before the guest first runs.
    pub path: Option<PathBuf>,
    /// Size in bytes, as the guest sees it.
    pub bytes: u64,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Whether the guest's flushes reach the host's disk. Without them the file's content is safe from a crash of the host
    /// only once it was synced there.
    pub flushes: bool,
}

/// What a guest may move to and from each of its disks, after a burst of one second's worth; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes a second, read and written.
    pub bytes_per_second: u64,
    /// Requests a second.
    pub operations_per_second: u64,
}

/// What a cold boot starts.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Kernel image, as a boot loader takes it.
    pub image: PathBuf,
    /// The same kernel uncompressed, an ELF file.
    pub elf: PathBuf,
    /// Initial file system, with the agent.
    pub initramfs: PathBuf,
}

impl Kernel {
    /// The part of the command line that is the same for every VMM. Free pages are zeroed when they are freed instead of
    /// when they are taken, so that snapshots and deltas hold no dead data; huge pages are for who asks for them, since a clone
    /// or a delta would hold two megabytes for each byte that was touched.
    pub(crate) const COMMAND_LINE: &str = "console=ttyS0 quiet panic=1 init_on_free=1 init_on_alloc=0 transparent_hugepage=madvise random.trust_cpu=on nomodeset net.ifnames=0";
}

/// The guest's link to its network: a tap device in a network namespace of its own.
pub trait Link: fmt::Debug + Send + Sync {
    /// Opens the tap, for a VMM that takes it as a descriptor. One holder at a time.
    fn open(&self) -> io::Result<OwnedFd>;

    /// The namespace as a file, for a VMM that opens the tap itself.
    fn namespace(&self) -> PathBuf;

    /// The tap's name there.
    fn name(&self) -> &'static str;

    /// Has the kernel finish bringing the link up, after a VMM opened the tap itself: until then it drops what is sent.
    fn settle(&self) -> io::Result<()>;
}

/// One VMM process to start.
#[derive(Debug)]
pub struct Machine {
    /// Directory of the process's own files, made by the caller: control socket, saved state, log. Short (< 90 bytes).
    pub directory: PathBuf,
    /// The unprivileged user it runs as, and the number of its group; nobody else's. Owns `directory`.
    pub user_id: u32,
    /// Group that may read images and kernels.
    pub group_id: u32,
    /// What it may use.
    pub limits: Limits,
    /// Directories of its control groups, which have these limits.
    pub cgroups: Vec<PathBuf>,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// Guest memory.
    pub memory: Memory,
    /// In the guest's order: root, scratch, then more.
    pub disks: Vec<Disk>,
    /// Of each disk.
    pub disk_limits: DiskLimits,
    /// The guest's link.
    pub link: Arc<dyn Link>,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// `Some`: a cold boot. `None`: waits for [`Vm::restore`].
    pub boot: Option<Kernel>,
}

/// Why a VMM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The VMM's program could not be started.
    #[error("cannot start {program}: {cause}. Install it, or name its path in the configuration")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        cause: io::Error,
    },
    /// The VMM's program cannot be used.
    #[error("{program} cannot be used: {cause}")]
    Unsupported {
        /// The program.
        program: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// The VMM process ended; the text is the end of its log.
    #[error("the VMM process ended: {0}")]
    Ended(String),
    /// The VMM refused a command.
    #[error("the VMM refused {command}: {cause}")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// The VMM's own words.
        cause: String,
    },
    /// A snapshot of another platform.
    #[error("snapshot was made by {found:?}, this node has {expected:?}; build the image again")]
    Platform {
        /// In the snapshot.
        found: Box<Platform>,
        /// On this node.
        expected: Box<Platform>,
    },
    /// A file that is not what it should be.
    #[error("{path}: {cause}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The system refused.
    #[error("{context}: {cause}")]
    Io {
        /// What was tried.
        context: String,
        /// The system's error.
        cause: io::Error,
    },
}

impl VmmError {
    /// Wraps why a program could not be started.
    pub(crate) fn start(program: &Path) -> impl Fn(io::Error) -> VmmError + use<> {
        let program = program.display().to_string();
        move |cause| VmmError::Start {
            program: program.clone(),
            cause,
        }
    }

    /// Wraps a system error with what was tried.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> VmmError {
        let context = context.into();
        move |cause| VmmError::Io { context, cause }
    }

    /// Whether the disk is full: the one failure of a suspend that the operator can mend.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, VmmError::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull)
    }
}

/// Longest wait for a process that starts and takes its configuration: a fraction of a second on a quiet machine.
pub(crate) const STARTED: Duration = Duration::from_secs(60);

/// What a VMM answers, or an error when it does not within `limit`.
pub async fn in_time<T, E: From<VmmError>>(
    limit: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = |_| Err(VmmError::io("waiting for a VMM's answer")(io::ErrorKind::TimedOut.into()).into());
    tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
}

/// One VMM.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// What snapshots made by this driver depend on.
    fn platform(&self) -> &Platform;

    /// Starts a process. A cold boot runs at once; otherwise the process is ready for [`Vm::restore`].
    async fn start(&self, machine: Machine) -> Result<Arc<dyn Vm>, VmmError>;
}

/// Whether the guest's CPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// They run.
    Running,
    /// They stand still; memory and device state do not change.
    Paused,
}

/// One VMM process and its guest.
#[async_trait]
pub trait Vm: Send + Sync + 'static {
    /// Pid and start time, to be written down before the guest runs.
    fn process(&self) -> &ProcessRecord;

    /// Gives a disk that was started without a file its file.
    async fn attach_disk(&self, index: usize, path: &Path) -> Result<(), VmmError>;

    /// Writes the delta (if any) into guest memory, loads device state and lets the guest run. Returns when it runs.
    async fn restore(&self, device_state: &Path, delta: Option<&Path>) -> Result<(), VmmError>;

    /// Stops the CPUs and waits until no device writes any more.
    async fn pause(&self) -> Result<(), VmmError>;

    /// Lets the CPUs run on.
    async fn resume(&self) -> Result<(), VmmError>;

    /// Whether the CPUs run.
    async fn execution(&self) -> Result<Execution, VmmError>;

    /// Saves the device state of a paused guest to a new file at `to`, durably. The memory file of a guest that was booted
    /// is then complete, too.
    async fn save_device_state(&self, to: &Path) -> Result<(), VmmError>;

    /// Saves the pages a paused guest has written since it was restored from `base` to a new file at `to`, durably.
    async fn save_delta(&self, base: &Path, to: &Path) -> Result<crate::memory::DeltaSummary, VmmError>;

    /// The words of the VMM and, of a cold boot, its guest's console: the end of the first 64 KiB.
    async fn last_words(&self) -> String;

    /// Returns when the process has ended.
    async fn ended(&self);

    /// Ends the process and waits until it is gone.
    async fn kill(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_named_in_few_words() {
        let platform = Platform {
            driver: "firecracker".into(),
            version: "1.12".into(),
            acceleration: Acceleration::Kvm,
            machine: "state format v6.0.0".into(),
            cpu: "x".into(),
        };
        assert_eq!(platform.to_string(), "firecracker 1.12, KVM");
    }
}
