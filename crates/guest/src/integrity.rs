//! Whether files are what they were when they were written.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hearth_vmm::memory;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{GuestError, Snapshot};

/// Length and checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FileSum {
    bytes: u64,
    crc32: u32,
}

impl FileSum {
    /// Of a file as it is now. Holes cost nothing.
    pub(crate) fn of(path: &Path) -> io::Result<FileSum> {
        let file = File::open(path)?;
        Ok(FileSum {
            bytes: file.metadata()?.len(),
            crc32: memory::checksum(&file)?,
        })
    }

    /// Whether the file is still the same; the error names it and what is wrong.
    pub(crate) fn verify(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bad = |cause: String| io::Error::new(io::ErrorKind::InvalidData, format!("{name} {cause}"));
        let bytes = fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
        if bytes != self.bytes {
            return Err(bad(format!(
                "has {bytes} bytes where {} were written",
                self.bytes
            )));
        }
        let found = FileSum::of(path).map_err(|error| bad(error.to_string()))?;
        match found.crc32 == self.crc32 {
            true => Ok(()),
            false => Err(bad(
                "was altered since it was written: its checksum is wrong".into()
            )),
        }
    }
}

/// Member of a manifest's text that holds the checksum of all others.
const CHECKSUM: &str = "checksum";

/// The text of a manifest, with a checksum of itself.
pub(crate) fn seal(manifest: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_value(manifest)?;
    let sum = crc32fast::hash(&serde_json::to_vec(&text)?);
    text[CHECKSUM] = sum.into();
    Ok(serde_json::to_vec_pretty(&text)?)
}

/// A manifest of [`seal`]'s, or the text of an older one, whose format (a member) is below `since` and which has no checksum.
pub(crate) fn unseal<T: DeserializeOwned>(mut manifest: serde_json::Value, since: u64) -> io::Result<T> {
    let bad = |cause: &str| io::Error::new(io::ErrorKind::InvalidData, cause);
    let sum = manifest
        .as_object_mut()
        .and_then(|members| members.remove(CHECKSUM));
    match sum {
        None if manifest["format"].as_u64().is_some_and(|format| format < since) => {}
        None => return Err(bad("its checksum is missing")),
        Some(sum) if sum != crc32fast::hash(&serde_json::to_vec(&manifest)?) => {
            return Err(bad("it was altered since it was written: its checksum is wrong"));
        }
        Some(_) => {}
    }
    Ok(serde_json::from_value(manifest)?)
}

/// What a file looked like when its content was last compared.
type Look = [(u64, u64, i64, i64); 2];

/// Snapshots whose content was compared by this daemon, so that a launch pays for it once: a file that looks the same is
/// not read again.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    seen: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<Option<Look>>>>>,
}

impl Verified {
    /// Compares a snapshot's content with its manifest unless that was done before. Others wait meanwhile.
    pub(crate) async fn check(&self, snapshot: &Snapshot) -> Result<(), GuestError> {
        let entry = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Those of deleted snapshots.
            seen.retain(|directory, _| directory.exists());
            seen.entry(snapshot.directory().to_owned()).or_default().clone()
        };
        let mut last = entry.lock().await;
        let look = look(snapshot).map_err(|error| GuestError::Snapshot {
            path: snapshot.directory().to_owned(),
            cause: error.to_string(),
        })?;
        if *last == Some(look) {
            return Ok(());
        }
        let compared = snapshot.clone();
        tokio::task::spawn_blocking(move || compared.verify())
            .await
            .map_err(|error| GuestError::io("comparing a snapshot")(io::Error::other(error)))??;
        *last = Some(look);
        Ok(())
    }
}

fn look(snapshot: &Snapshot) -> io::Result<Look> {
    let of = |path: PathBuf| {
        let found = fs::metadata(path)?;
        io::Result::Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    Ok([of(snapshot.memory())?, of(snapshot.device_state())?])
}
