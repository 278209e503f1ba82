//! The disk of container bases, which every build has read-only. It is never changed in place: an import works on a
//! clone and then takes its place, so that running builds keep the disk they started with.

use std::{
    io,
    path::{Path, PathBuf},
};

use hearth_guest::{Boot, DiskShape};
use hearth_storage::{disk, durable};
use serde::Deserialize;

use super::{BASES_BYTES, BuildError, Builder, MAX_CONTEXT_BYTES, shape};
use crate::job::{Job, Outcome};

/// An archive that becomes a container base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseArchive {
    /// The file.
    pub path: PathBuf,
    /// `rootfs`, `docker-archive` or `oci-archive`.
    pub kind: String,
    /// What `FROM` says; the first is its name, the others are aliases.
    pub names: Vec<String>,
    /// Environment of a `rootfs`, `KEY=VALUE`.
    pub env: Vec<String>,
    /// Command of a `rootfs`.
    pub cmd: Vec<String>,
}

/// An entry of the index of the bases that this node made.
#[derive(Debug, Deserialize)]
struct IndexEntry {
    file: String,
    names: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
}

impl Builder {
    /// Makes the bases disk from the bases of this node, unless it is there.
    pub(super) async fn prepare_bases(&self) -> Result<(), BuildError> {
        let _alone = self.inner.bases.lock().await;
        if self.bases_disk().exists() {
            return Ok(());
        }
        let archives = self.index()?.into_iter().map(|entry| BaseArchive {
            path: self.inner.config.containers.join(entry.file),
            kind: "rootfs".into(),
            names: entry.names,
            env: entry.env,
            cmd: entry.cmd,
        });
        self.replace_bases_disk(&archives.collect::<Vec<_>>()).await
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
        self.prepare_bases().await?;
        let _alone = self.inner.bases.lock().await;
        self.replace_bases_disk(&[archive]).await
    }

    pub(super) fn bases_disk(&self) -> PathBuf {
        self.inner.config.directory.join("bases.img")
    }

    async fn replace_bases_disk(&self, archives: &[BaseArchive]) -> Result<(), BuildError> {
        let making = tempfile::tempdir_in(&self.inner.config.directory)?;
        let bases = making.path().join("bases.img");
        match self.bases_disk().exists() {
            true => disk::clone(&self.bases_disk(), &bases)?,
            false => drop(disk::create(&bases, BASES_BYTES)?),
        }
        for (index, archive) in archives.iter().enumerate() {
            tracing::info!(names = ?archive.names, "adding a container base");
            let directory = making.path().join(format!("guest{index}"));
            std::fs::create_dir(&directory)?;
            self.add_base(&directory, &bases, archive).await?;
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::File::open(&bases)?.sync_all()?;
        std::fs::rename(&bases, self.bases_disk())?;
        durable::sync_directory(&self.inner.config.directory)?;
        Ok(())
    }

    /// Boots a builder that may write the bases disk, and has it add one archive.
    async fn add_base(&self, directory: &Path, bases: &Path, archive: &BaseArchive) -> Result<(), BuildError> {
        let shape = shape(self.inner.config.vcpus, DiskShape::writable(BASES_BYTES));
        let archive_bytes = std::fs::metadata(&archive.path)?.len();
        if archive_bytes > MAX_CONTEXT_BYTES {
            return Err(BuildError::ArchiveInvalid(format!("the archive has more than {MAX_CONTEXT_BYTES} bytes")));
        }
        let mut disks = self.empty_disks(directory, &shape)?;
        disks[2] = bases.to_owned();
        disks[3] = directory.join("archive");
        // A copy, since the VMM's user must be able to read it; shared with the original where the file system can.
        disk::clone(&archive.path, &disks[3]).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        let guest = self.boot(&Boot { directory, shape: &shape, more_disks: &disks }).await?;
        let flags = |flag: &str, values: &[String]| -> Vec<String> {
            values.iter().flat_map(|value| [flag.to_owned(), value.clone()]).collect()
        };
        let mut argv = vec!["/usr/lib/hearth/add-base".to_owned(), "--kind".into(), archive.kind.clone()];
        argv.extend(flags("--as", &archive.names));
        argv.extend(flags("--env", &archive.env));
        argv.extend(flags("--cmd", &archive.cmd));
        let job = Job { argv, env: vec![format!("ARCHIVE_BYTES={archive_bytes}")] };
        let outcome = job.run(guest.agent(), None).await;
        guest.destroy().await;
        match outcome? {
            Outcome::Done => Ok(()),
            Outcome::Failed(error) => Err(error),
        }
    }
}
