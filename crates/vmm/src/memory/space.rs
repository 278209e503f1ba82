//! A VMM process's mapping of guest memory, read and written from outside.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::pagemap::{PageRun, written_pages};

/// Guest memory inside a VMM process.
#[derive(Debug)]
pub struct GuestSpace {
    pid: i32,
    start: u64,
    bytes: u64,
    memory: File,
}

impl GuestSpace {
    /// Finds the one mapping of `file` in the process.
    pub fn find(pid: i32, file: &Path) -> io::Result<GuestSpace> {
        let wanted = std::fs::metadata(file)?;
        let maps = procfs::process::Process::new(pid)
            .and_then(|process| process.maps())
            .map_err(io::Error::other)?;
        // Neighbouring pieces of one mapping (the kernel may split it by protection) count as one.
        let mut range: Option<(u64, u64)> = None;
        for map in maps.iter().filter(|map| map.inode == wanted.ino()) {
            match &mut range {
                None => range = Some(map.address),
                Some((_, end)) if *end == map.address.0 => *end = map.address.1,
                Some(_) => return Err(io::Error::other("guest memory is mapped more than once")),
            }
        }
        let (start, end) = range.ok_or_else(|| io::Error::other("guest memory is not mapped"))?;
        if end - start != wanted.len() {
            return Err(io::Error::other("guest memory is mapped in part"));
        }
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        Ok(GuestSpace {
            pid,
            start,
            bytes: wanted.len(),
            memory,
        })
    }

    /// Size of guest memory in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages written since the process mapped the file.
    pub fn written(&self) -> io::Result<Vec<PageRun>> {
        written_pages(self.pid, self.start, self.bytes)
    }

    /// Reads guest memory at a guest-physical offset.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.check(into.len(), offset)?;
        self.memory.read_exact_at(into, self.start + offset)
    }

    /// Writes guest memory at a guest-physical offset.
    pub fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.check(from.len(), offset)?;
        self.memory.write_all_at(from, self.start + offset)
    }

    fn check(&self, length: usize, offset: u64) -> io::Result<()> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(io::Error::other("beyond the end of guest memory")),
        }
    }
}
