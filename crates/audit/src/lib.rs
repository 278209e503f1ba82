//! The audit log: one JSON object a line, appended only; a full file makes way for a new one and the oldest is removed.
//!
//! A line that was written has reached the disk: a call's answer can wait for it. Calls that end at the same time share
//! one sync.
#![forbid(unsafe_code)]

mod files;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
};

use hearth_wire::types::AuditItem;
use tokio::sync::oneshot;

pub use read::{Found, Outcome, Position, Query};

/// Where the audit log lies and how much of it is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The directory; the current file in it is `audit.log`, older ones `audit.log.1`, `audit.log.2`, ….
    pub directory: PathBuf,
    /// How large a file grows.
    pub file_bytes: u64,
    /// How many older files are kept.
    pub older_files: u32,
}

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    config: Arc<AuditConfig>,
    lines: mpsc::Sender<Line>,
}

/// A line and who waits for it.
#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

impl Audit {
    /// Opens the log for appending.
    pub fn open(config: AuditConfig) -> io::Result<Audit> {
        let config = Arc::new(config);
        let writer = write::Writer::open(config.clone())?;
        let (lines, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&waiting))?;
        Ok(Audit { config, lines })
    }

    /// Writes down a call that has ended; when this returns its line survives a power cut.
    pub async fn write(&self, item: &AuditItem) -> io::Result<()> {
        let mut text = serde_json::to_vec(item)?;
        text.push(b'\n');
        let (written, outcome) = oneshot::channel();
        let gone = || io::Error::other("the audit log's writer has ended");
        self.lines.send(Line { text, written }).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// What the log says, oldest first.
    pub async fn read(&self, query: Query) -> io::Result<Found> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || read::read(&config, &query))
            .await
            .map_err(io::Error::other)?
    }
}
