//! The log's files: the current one and the older ones.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

use crate::AuditConfig;

impl AuditConfig {
    /// The file with `number`; 0 is the current one, greater ones are older.
    pub(crate) fn file(&self, number: u32) -> PathBuf {
        self.directory.join(match number {
            0 => "audit.log".to_owned(),
            number => format!("audit.log.{number}"),
        })
    }

    /// Opens the current file for appending.
    pub(crate) fn append(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.file(0))?;
        File::open(&self.directory)?.sync_all()?;
        Ok(file)
    }

    /// Makes way for a new current file.
    pub(crate) fn rotate(&self) -> io::Result<()> {
        for number in (0..self.older_files).rev() {
            match fs::rename(self.file(number), self.file(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.older_files == 0 {
            fs::remove_file(self.file(0))?;
        }
        Ok(())
    }

    /// Every file, open for reading, oldest first.
    pub(crate) fn all(&self) -> io::Result<Vec<File>> {
        let mut files: Vec<File> = Vec::new();
        // The newest first: one that becomes older meanwhile comes twice, and none is missed.
        for number in 0..=self.older_files {
            let file = match File::open(self.file(number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_known = |known: &File| Ok(known.metadata()?.ino() == file.metadata()?.ino());
            if !files.last().map_or(io::Result::Ok(false), is_known)? {
                files.push(file);
            }
        }
        files.reverse();
        Ok(files)
    }
}
