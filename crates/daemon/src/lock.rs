//! One daemon for a data directory: the pid file is locked for as long as the daemon lives.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held by the running daemon; released by the kernel however it ends.
pub(crate) struct DataLock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

/// How long the lock of a daemon that was killed may outlive it: a child that it was starting holds a copy until it has
/// become its program.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Locks the data directory, waiting for as long as `patience`, and writes the pid.
pub(crate) fn take(data: &Path, patience: Duration) -> anyhow::Result<DataLock> {
    let path = data.join("hearthd.pid");
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + patience;
    let mut free = file;
    let mut lock = loop {
        match Flock::lock(free, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((file, _)) if Instant::now() < deadline => free = file,
            Err(_) => bail!(
                "another hearthd already uses {}. Stop it first: hearth down",
                data.display()
            ),
        }
        std::thread::sleep(PAUSE);
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
        let first = take(data.path(), Duration::ZERO).expect("free");
        let error = take(data.path(), Duration::ZERO)
            .err()
            .expect("taken")
            .to_string();
        assert!(error.contains("hearth down"), "{error}");
        drop(first);
        take(data.path(), Duration::ZERO).expect("free again");
    }
}
