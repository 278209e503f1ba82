//! From a zip with a Dockerfile to a root disk, inside a builder MicroVM.
//!
//! The host fetches and measures bytes; whatever looks into a tenant's archive, Dockerfile or file system runs in the
//! guest, by the job scripts of the builder's root disk. Their answers are hostile input.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | the container's configuration, as the guest reports it |
//! | `bases` | the disk of container bases: made, extended, never changed in place |
//! | `job` | one command in the builder, its log and its outcome |
#![forbid(unsafe_code)]

mod bases;
pub mod config;
mod job;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hearth_guest::{Boot, DiskShape, GuestError, Host, Pool, Restore, Shape, Snapshot, snapshot};
use hearth_logs::LogWriter;
use hearth_network::Egress;
use hearth_storage::{disk, durable};
use tokio::{
    sync::{Mutex, OnceCell},
    time::timeout,
};

pub use bases::BaseArchive;
pub use config::ContainerConfig;
use job::{Job, Outcome};

/// Largest context archive in bytes.
pub const MAX_CONTEXT_BYTES: u64 = 8 << 30;
/// Memory of a builder: its tools and a page cache.
const MEMORY_BYTES: u64 = 4 << 30;
const SCRATCH_BYTES: u64 = 40 << 30;
const CACHE_BYTES: u64 = 64 << 30;
/// The largest root disk any tier has room for (spec section 10).
const IMAGE_BYTES: u64 = 34 << 30;
const BASES_BYTES: u64 = 32 << 30;

/// Where the builder's files are.
#[derive(Debug, Clone)]
pub struct BuilderConfig {
    /// The builder's root disk.
    pub root_disk: PathBuf,
    /// Directory of the container bases made by this node, with their `index.json`.
    pub containers: PathBuf,
    /// The prepared disk of those bases; read until an operator imports others.
    pub bases_disk: PathBuf,
    /// Directory of the builder's own snapshot, its layer caches, and the bases disk with what was imported.
    pub directory: PathBuf,
    /// Certificates that builds trust besides the container base's own; empty for none.
    pub trusted_certificates: String,
    /// Virtual CPUs of a builder.
    pub vcpus: u32,
    /// The longest that one build may take.
    pub longest_build: Duration,
}

/// One image to build.
#[derive(Debug)]
pub struct Build<'a> {
    /// Whose layers may be reused: builds of one key share a cache.
    pub cache_key: &'a str,
    /// The zip.
    pub context: &'a Path,
    /// Largest root disk in bytes.
    pub limit_bytes: u64,
    /// Where the root disk is to be made.
    pub root_disk: &'a Path,
    /// What the build may reach.
    pub egress: &'a Egress,
}

/// Why a build has no result. The texts are for the build's log.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The artifact is no zip, or one that must not be unpacked.
    #[error("ARCHIVE_INVALID: {0}")]
    ArchiveInvalid(String),
    /// There is no Dockerfile at the zip's root.
    #[error("ARCHIVE_DOCKERFILE_NOT_FOUND: {0}")]
    DockerfileNotFound(String),
    /// A step of the Dockerfile failed.
    #[error("CONTAINER_BUILD_FAILED: {0}")]
    Failed(String),
    /// It does not end.
    #[error(
        "CONTAINER_BUILD_FAILED: the build took longer than {0} s (build_timeout_seconds in hearthd.toml)"
    )]
    TooLong(u64),
    /// The result does not fit.
    #[error("DISK_STORAGE_FULL: {0}")]
    DiskFull(String),
    /// The builder itself failed.
    #[error("INTERNAL_PLATFORM_ERROR: {0}")]
    Internal(String),
}

impl From<GuestError> for BuildError {
    fn from(error: GuestError) -> BuildError {
        BuildError::Internal(error.to_string())
    }
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> BuildError {
        BuildError::Internal(error.to_string())
    }
}

/// The node's builder. Cheap to clone.
#[derive(Clone)]
pub struct Builder {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    pool: Pool,
    config: BuilderConfig,
    snapshot: OnceCell<Snapshot>,
    /// Held while the bases disk is replaced.
    bases: Mutex<()>,
}

impl Builder {
    /// A builder whose snapshot is made when it is first needed, or by [`Builder::prepare`].
    pub fn new(host: Host, pool: Pool, config: BuilderConfig) -> io::Result<Builder> {
        std::fs::create_dir_all(config.directory.join("caches"))?;
        disk::give(&config.directory, None, None, 0o711)?;
        durable::remove_temporary(&config.directory)?;
        let inner = Inner {
            host,
            pool,
            config,
            snapshot: OnceCell::new(),
            bases: Mutex::new(()),
        };
        Ok(Builder {
            inner: Arc::new(inner),
        })
    }

    /// Makes the builder's snapshot, unless it is there.
    pub async fn prepare(&self) -> Result<(), BuildError> {
        self.look_at_bases()?;
        self.snapshot().await?;
        Ok(())
    }

    /// Builds a root disk; the guest's output goes to the log.
    pub async fn build(
        &self,
        build: &Build<'_>,
        log: Option<&mut LogWriter>,
    ) -> Result<ContainerConfig, BuildError> {
        let snapshot = self.snapshot().await?;
        let directory = tempfile::tempdir_in(&self.inner.config.directory)?;
        disk::give(directory.path(), None, None, 0o711)?;
        let (scratch, image) = (directory.path().join("scratch"), directory.path().join("image"));
        let cache = self.cache(build.cache_key);
        let context_bytes = stretch(build.context)?;
        disk::clone(&snapshot.scratch(), &scratch)?;
        disk::create(&image, IMAGE_BYTES)?;
        if !cache.exists() {
            disk::create(&cache, CACHE_BYTES)?;
        }
        let bases = self.bases_disk();
        let context = Some(build.context.to_owned());
        let disks = vec![
            Some(scratch),
            Some(cache),
            Some(image.clone()),
            Some(bases),
            context,
        ];
        let guest = self
            .inner
            .pool
            .take(snapshot)
            .await?
            .restore(&Restore {
                disks,
                suspended: None,
                egress: build.egress.clone(),
            })
            .await?;
        let trust = if self.inner.config.trusted_certificates.is_empty() {
            "0"
        } else {
            "1"
        };
        let job = Job {
            argv: vec!["/usr/lib/hearth/build".into()],
            env: vec![
                format!("CONTEXT_BYTES={context_bytes}"),
                format!("LIMIT_BYTES={}", build.limit_bytes),
                format!("TRUST_HOST_CA={trust}"),
            ],
        };
        let result = async {
            guest.agent().thaw(true).await?;
            match job.run(guest.agent(), log).await? {
                Outcome::Done => job::result(guest.agent()).await,
                Outcome::Failed(error) => Err(error),
            }
        };
        let result = self.in_time(guest.while_it_lives(result)).await;
        guest.destroy().await;
        let result = result?;
        self.keep_root_disk(&image, result.image_bytes, build)?;
        Ok(result.config)
    }

    /// What a builder is asked for; an error when it takes too long.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, BuildError>>) -> Result<T, BuildError> {
        let longest = self.inner.config.longest_build;
        timeout(longest, work)
            .await
            .unwrap_or_else(|_| Err(BuildError::TooLong(longest.as_secs())))
    }

    /// Takes the disk the guest wrote for the root disk. Its content is the guest's; its length is checked here.
    fn keep_root_disk(&self, image: &Path, claimed_bytes: u64, build: &Build<'_>) -> Result<(), BuildError> {
        let bytes = claimed_bytes.next_multiple_of(4096);
        if bytes == 0
            || bytes > build.limit_bytes
            || disk::allocated_bytes(image)? > build.limit_bytes + (64 << 20)
        {
            return Err(BuildError::DiskFull(format!(
                "the image takes more than {} bytes",
                build.limit_bytes
            )));
        }
        let file = std::fs::File::options().write(true).open(image)?;
        file.set_len(bytes)?;
        file.sync_all()?;
        disk::rename(image, build.root_disk)?;
        Ok(())
    }

    /// Forgets the layers of a deleted image.
    pub fn forget_cache(&self, cache_key: &str) -> io::Result<()> {
        durable::remove_file(&self.cache(cache_key))
    }

    fn cache(&self, key: &str) -> PathBuf {
        self.inner.config.directory.join("caches").join(key)
    }

    async fn snapshot(&self) -> Result<&Snapshot, BuildError> {
        self.inner
            .snapshot
            .get_or_try_init(|| self.open_or_make_snapshot())
            .await
    }

    async fn open_or_make_snapshot(&self) -> Result<Snapshot, BuildError> {
        let directory = self.inner.config.directory.join("snapshot");
        if self.is_current(&directory) {
            match self.inner.host.open_to_launch(&directory) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => tracing::info!(%error, "the builder's snapshot is made again"),
            }
        }
        durable::remove_directory(&directory)?;
        tracing::info!("making the builder's snapshot");
        let making = tempfile::tempdir_in(&self.inner.config.directory)?;
        let shape = shape(self.inner.config.vcpus, DiskShape::read_only(BASES_BYTES));
        let empty = self.empty_disks(making.path(), &shape)?;
        let boot = Boot {
            directory: making.path(),
            shape: &shape,
            more_disks: &empty,
            egress: &Egress::internet(),
        };
        let guest = self.boot(&boot).await?;
        let freeze = hearth_agent_protocol::Freeze { for_image: true };
        if let Err(error) = guest.while_it_lives(guest.agent().freeze(freeze)).await {
            guest.destroy().await;
            return Err(error.into());
        }
        let snapshot = self.inner.host.snapshot(guest, &boot).await?;
        for disk in empty {
            durable::remove_file(&disk)?;
        }
        std::fs::write(making.path().join(INPUTS), self.inputs()?)?;
        durable::publish_directory(&making.keep(), &directory)?;
        Ok(snapshot.moved_to(&directory))
    }

    /// Whether the snapshot was made from the present root disk and certificates.
    fn is_current(&self, directory: &Path) -> bool {
        let recorded = std::fs::read_to_string(directory.join(INPUTS)).ok();
        recorded.is_some() && recorded == self.inputs().ok()
    }

    fn inputs(&self) -> io::Result<String> {
        use std::os::unix::fs::MetadataExt;
        let root = std::fs::metadata(&self.inner.config.root_disk)?;
        let trusted = fingerprint(&self.inner.config.trusted_certificates);
        Ok(format!(
            "root disk {}.{} {}; certificates {trusted}",
            root.mtime(),
            root.mtime_nsec(),
            root.len()
        ))
    }

    /// Boots a builder from scratch in a directory of its own and starts its (idle) application.
    async fn boot(&self, boot: &Boot<'_>) -> Result<hearth_guest::Guest, BuildError> {
        disk::give(boot.directory, None, None, 0o711)?;
        disk::link(&self.inner.config.root_disk, &snapshot::root_path(boot.directory))?;
        disk::create_ext4(&snapshot::scratch_path(boot.directory), SCRATCH_BYTES)?;
        let guest = self.inner.host.boot(boot).await?;
        let application = hearth_agent_protocol::Application {
            argv: vec!["/bin/sleep".into(), "infinity".into()],
            all_capabilities: true,
            extra_certificates: self.inner.config.trusted_certificates.clone(),
            wall_clock_ns: hearth_guest::agent::wall_clock_ns(),
            ..Default::default()
        };
        match guest.while_it_lives(guest.agent().start(application)).await {
            Ok(()) => Ok(guest),
            Err(error) => {
                guest.destroy().await;
                Err(error.into())
            }
        }
    }

    /// Disks without content after the scratch disk.
    fn empty_disks(&self, directory: &Path, shape: &Shape) -> io::Result<Vec<PathBuf>> {
        let disks = shape.disks.iter().enumerate().skip(1);
        disks
            .map(|(index, disk)| {
                let path = directory.join(format!("empty{index}"));
                disk::create(&path, disk.bytes).map(|_| path)
            })
            .collect()
    }
}

/// Makes a file as long as the disk that the guest takes it for (the rest is a hole): a guest reads ahead of what it
/// needs. Returns the length of its content.
fn stretch(file: &Path) -> io::Result<u64> {
    let file = std::fs::File::options().write(true).open(file)?;
    let bytes = file.metadata()?.len();
    file.set_len(MAX_CONTEXT_BYTES)?;
    Ok(bytes)
}

const INPUTS: &str = "inputs";

/// Disks in the order that the job scripts expect: scratch, cache, image, bases, context.
fn shape(vcpus: u32, bases: DiskShape) -> Shape {
    let context = DiskShape::read_only(MAX_CONTEXT_BYTES);
    let disks = vec![
        DiskShape::writable(SCRATCH_BYTES),
        DiskShape::writable(CACHE_BYTES),
        DiskShape::writable(IMAGE_BYTES),
        bases,
        context,
    ];
    Shape {
        memory_bytes: MEMORY_BYTES,
        vcpus,
        disks,
    }
}

/// Tells two texts apart; not against somebody who wants them to look alike (the operator's own configuration).
fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
