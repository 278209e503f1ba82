//! Directories of groups and streams: a hash for a name, the name itself in `meta.json` inside.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a group's or a stream's directory says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The layout's version; another one is refused
    version: u32,
    /// Empty for a stream
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) created_ms: i64,
    /// How long a group keeps its events; `None` leaves it to [`crate::Limits::retention_days`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_days: Option<u32>,
}

const VERSION: u32 = 1;
const META: &str = "meta.json";

impl Meta {
    pub(crate) fn new(account: &str, name: &str) -> Self {
        Self {
            version: VERSION,
            account: account.to_owned(),
            name: name.to_owned(),
            created_ms: crate::now_ms(),
            retention_days: None,
        }
    }
}

/// The directory of a name.
pub(crate) fn place(parent: &Path, account: &str, name: &str) -> PathBuf {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{account}\0{name}").as_bytes());
    parent.join(hex(&digest.as_ref()[..20]))
}

/// Creates a directory whole or not at all.
pub(crate) fn create(place: &Path, meta: &Meta) -> io::Result<()> {
    let parent = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let new = parent.join(format!(
        ".new-{}",
        place.file_name().unwrap_or_default().to_string_lossy()
    ));
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    let file = fs::File::create(new.join(META))?;
    serde_json::to_writer(&file, meta)?;
    file.sync_all()?;
    sync(&new)?;
    fs::rename(&new, place)?;
    sync(parent)
}

/// Changes what a directory says of itself, wholly or not at all.
pub(crate) fn rewrite(place: &Path, meta: &Meta) -> io::Result<()> {
    let new = place.join(".meta.json");
    let file = fs::File::create(&new)?;
    serde_json::to_writer(&file, meta)?;
    file.sync_all()?;
    fs::rename(&new, place.join(META))?;
    sync(place)
}

/// Removes a directory; a crash in between leaves nothing that counts.
pub(crate) fn remove(place: &Path) -> io::Result<()> {
    let parent = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let doomed = parent.join(format!(
        ".old-{}",
        place.file_name().unwrap_or_default().to_string_lossy()
    ));
    if doomed.exists() {
        fs::remove_dir_all(&doomed)?;
    }
    fs::rename(place, &doomed)?;
    sync(parent)?;
    fs::remove_dir_all(&doomed)
}

/// The complete directories in `parent`; half-made and half-removed ones are swept.
pub(crate) fn children(parent: &Path) -> io::Result<Vec<(PathBuf, Meta)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            fs::remove_dir_all(entry.path())?;
            continue;
        }
        let meta: Meta = serde_json::from_slice(&fs::read(entry.path().join(META))?)?;
        if meta.version != VERSION {
            let text = format!(
                "{} has version {}, not {VERSION}",
                entry.path().display(),
                meta.version
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        found.push((entry.path(), meta));
    }
    Ok(found)
}

/// Makes a directory's entries durable.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
