//! The words of a VMM process and of its guest's console: bounded, whoever floods them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// Bytes kept: the first ones. What led to an end is said before the flood.
const CAPACITY_BYTES: u64 = 64 << 10;
/// Bytes of it that are told to others.
const TOLD_BYTES: usize = 4096;

/// A log in memory whose size is sealed: a write past its end fails. It lives as long as somebody has it open, and its
/// memory is charged to the control group of who writes it.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// An empty log.
    pub fn new() -> io::Result<Log> {
        let file = File::from(memfd_create(
            c"vmm-log",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?);
        file.set_len(CAPACITY_BYTES)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Log(file))
    }

    /// What a process that outlived its daemon has as its standard error.
    pub fn of(pid: i32) -> io::Result<Log> {
        File::open(format!("/proc/{pid}/fd/2")).map(Log)
    }

    /// For the writer: starts at the beginning and cannot read.
    pub fn writer(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd());
        Ok(File::options().write(true).open(path)?.into())
    }

    /// The last of it, as text.
    pub fn tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let file = File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?;
            file.take(CAPACITY_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        // What was never written is zero.
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let told = &bytes[end.saturating_sub(TOLD_BYTES)..end];
        String::from_utf8_lossy(told).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_first_is_kept_and_a_flood_ends_at_its_size() {
        let log = Log::new().expect("a log");
        let mut writer = File::from(log.writer().expect("a writer"));
        assert_eq!(log.tail(), "");
        writer.write_all(b"the cause\n").expect("written");
        assert_eq!(log.tail(), "the cause");
        let line = [b'x'; 1000];
        while writer.write(&line).is_ok_and(|written| written > 0) {}
        assert!(writer.set_len(CAPACITY_BYTES + 1).is_err() && writer.set_len(0).is_err());
        assert_eq!(log.0.metadata().expect("there").len(), CAPACITY_BYTES);
        assert_eq!(log.tail().len(), TOLD_BYTES);
    }
}
