//! The one writer: takes what waits, appends it, syncs once, and tells everybody.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{Arc, mpsc::Receiver},
};

use crate::{AuditConfig, Line};

/// Lines that share one sync at most.
const BATCH: usize = 1024;

/// The log, open for appending.
pub(crate) struct Writer {
    config: Arc<AuditConfig>,
    file: File,
    bytes: u64,
}

impl Writer {
    pub(crate) fn open(config: Arc<AuditConfig>) -> io::Result<Writer> {
        fs::create_dir_all(&config.directory)?;
        let file = config.append()?;
        let bytes = file.metadata()?.len();
        let mut writer = Writer { config, file, bytes };
        // A line that a crash cut off must not swallow the next.
        if !writer.ends_with_newline()? {
            writer.put(b"\n")?;
        }
        Ok(writer)
    }

    /// Writes until nobody can send any more.
    pub(crate) fn run(mut self, lines: &Receiver<Line>) {
        while let Ok(first) = lines.recv() {
            let batch: Vec<Line> = std::iter::once(first)
                .chain(lines.try_iter().take(BATCH - 1))
                .collect();
            let outcome = self.write(&batch);
            if let Err(error) = &outcome {
                tracing::error!(%error, calls = batch.len(), "calls could not be written to the audit log");
            }
            for line in batch {
                let copy = outcome.as_ref().copied();
                let copy = copy.map_err(|error| io::Error::new(error.kind(), error.to_string()));
                // A caller that went away has no use for it.
                let _ = line.written.send(copy);
            }
        }
    }

    fn write(&mut self, batch: &[Line]) -> io::Result<()> {
        for line in batch {
            if self.bytes > 0 && self.bytes + line.text.len() as u64 > self.config.file_bytes {
                self.file.sync_data()?;
                self.config.rotate()?;
                self.file = self.config.append()?;
                self.bytes = 0;
            }
            self.put(&line.text)?;
        }
        self.file.sync_data()
    }

    /// Appends all of it or nothing: a disk that is full must not leave a half line before the next.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn ends_with_newline(&self) -> io::Result<bool> {
        let mut last = [b'\n'];
        if self.bytes > 0 {
            File::open(self.config.file(0))?.read_exact_at(&mut last, self.bytes - 1)?;
        }
        Ok(last == [b'\n'])
    }
}
