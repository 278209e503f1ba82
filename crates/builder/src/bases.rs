//! The disk of container bases, which every build has read-only: the prepared one, until an operator imports a base; then
//! this node's own. A disk is never changed in place: an import works on a clone and then takes its place, so that running
//! builds keep the disk they started with.

use std::{
    io,
    path::{Path, PathBuf},
};

use hearth_guest::{Boot, DiskShape};
use hearth_storage::{disk, durable};
use serde::Deserialize;

use super::{BASES_BYTES, BuildError, Builder, MAX_CONTEXT_BYTES, shape, stretch};
use crate::job::{Job, Outcome};

/// An archive that becomes a container base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseArchive {
    /// The file; it is made as long as the disk that the guest takes it for.
    pub path: PathBuf,
    /// Length of its content.
    pub bytes: u64,
    /// `docker-archive` or `oci-archive`.
    pub kind: String,
    /// What `FROM` says; the first is its name, the others are aliases.
    pub names: Vec<String>,
}

/// An entry of the index of the bases that this node made.
#[derive(Debug, Deserialize)]
struct IndexEntry {
    names: Vec<String>,
}

impl Builder {
    /// Tells the operator when builds do not see the newest prepared bases.
    pub(super) fn look_at_bases(&self) -> io::Result<()> {
        let (own, prepared) = (self.own_bases_disk(), &self.inner.config.bases_disk);
        if own.exists() && own.metadata()?.modified()? < prepared.metadata()?.modified()? {
            tracing::warn!(
                "builds use the container bases of {}, made before those of {}: to change over, remove it and import again what was imported",
                own.display(),
                prepared.display()
            );
        }
        Ok(())
    }

    /// Names of the container bases that this node made.
    pub fn own_bases(&self) -> io::Result<Vec<String>> {
        Ok(self.index()?.into_iter().flat_map(|entry| entry.names).collect())
    }

    fn index(&self) -> io::Result<Vec<IndexEntry>> {
        let text = std::fs::read(self.inner.config.containers.join("index.json"))?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    /// Adds a container base; it is there for builds that start after this returned.
    pub async fn import_base(&self, archive: BaseArchive) -> Result<(), BuildError> {
        let _alone = self.inner.bases.lock().await;
        self.add_to_bases(&archive).await
    }

    /// What builds read.
    pub(super) fn bases_disk(&self) -> PathBuf {
        let own = self.own_bases_disk();
        match own.exists() {
            true => own,
            false => self.inner.config.bases_disk.clone(),
        }
    }

    /// There as soon as a base was imported.
    fn own_bases_disk(&self) -> PathBuf {
        self.inner.config.directory.join("bases.img")
    }

    async fn add_to_bases(&self, archive: &BaseArchive) -> Result<(), BuildError> {
        tracing::info!(names = ?archive.names, "adding a container base");
        let making = tempfile::tempdir_in(&self.inner.config.directory)?;
        let bases = making.path().join("bases.img");
        disk::clone(&self.bases_disk(), &bases)?;
        let directory = making.path().join("guest");
        std::fs::create_dir(&directory)?;
        // The VMM's user has to find its way in; the files themselves say who may read them.
        disk::give(making.path(), None, None, 0o711)?;
        self.add_base(&directory, &bases, archive).await?;
        self.publish_bases(&bases)
    }

    fn publish_bases(&self, bases: &Path) -> Result<(), BuildError> {
        std::fs::File::open(bases)?.sync_all()?;
        std::fs::rename(bases, self.own_bases_disk())?;
        Ok(durable::sync_directory(&self.inner.config.directory)?)
    }

    /// Boots a builder that may write the bases disk, and has it add one archive.
    async fn add_base(
        &self,
        directory: &Path,
        bases: &Path,
        archive: &BaseArchive,
    ) -> Result<(), BuildError> {
        let shape = shape(self.inner.config.vcpus, DiskShape::writable(BASES_BYTES));
        if archive.bytes > MAX_CONTEXT_BYTES {
            return Err(BuildError::ArchiveInvalid(format!(
                "the archive has more than {MAX_CONTEXT_BYTES} bytes"
            )));
        }
        stretch(&archive.path)?;
        let mut disks = self.empty_disks(directory, &shape)?;
        disks[2] = bases.to_owned();
        std::fs::remove_file(&disks[3])?;
        disks[3] = archive.path.clone();
        let guest = self
            .boot(&Boot {
                directory,
                shape: &shape,
                more_disks: &disks,
                egress: &hearth_network::Egress::internet(),
            })
            .await?;
        let mut argv = vec![
            "/usr/lib/hearth/add-base".to_owned(),
            "--kind".into(),
            archive.kind.clone(),
        ];
        argv.extend(
            archive
                .names
                .iter()
                .flat_map(|name| ["--as".to_owned(), name.clone()]),
        );
        let job = Job {
            argv,
            env: vec![format!("ARCHIVE_BYTES={}", archive.bytes)],
        };
        let outcome = self
            .in_time(guest.while_it_lives(job.run(guest.agent(), None)))
            .await;
        guest.destroy().await;
        match outcome? {
            Outcome::Done => Ok(()),
            Outcome::Failed(error) => Err(error),
        }
    }
}
