//! One daemon for a data directory: the pid file is locked for as long as the daemon lives.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held by the running daemon; released by the kernel however it ends.
pub(crate) struct DataLock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

/// Locks the data directory and writes the pid.
pub(crate) fn take(data: &Path) -> anyhow::Result<DataLock> {
    let path = data.join("hearthd.pid");
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        bail!(
            "another hearthd already uses {}. Stop it first: hearth down",
            data.display()
        );
    };
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())?;
    lock.sync_all()?;
    Ok(DataLock(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_with_a_cure() {
        let data = tempfile::tempdir().expect("temp dir");
        let first = take(data.path()).expect("free");
        let error = take(data.path()).err().expect("taken").to_string();
        assert!(error.contains("hearth down"), "{error}");
        drop(first);
        take(data.path()).expect("free again");
    }
}
