//! Stopping everything but the agent: the cgroup v2 freezer.
//!
//! The agent lives in the root cgroup, which cannot be frozen. Everything it starts lives in [`APPLICATION`] or
//! [`COMMANDS`]; what an application with every capability adds beside them is frozen, too.
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where the agent mounts cgroup2.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// The application's cgroup (spec section 11).
pub const APPLICATION: &str = "/sys/fs/cgroup/system.slice/app";
/// Commands run beside it. A leaf of its own, since the application may divide its own cgroup and so close it to others.
pub const COMMANDS: &str = "/sys/fs/cgroup/system.slice/exec";

const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the cgroups.
pub fn prepare() -> anyhow::Result<()> {
    for cgroup in [APPLICATION, COMMANDS] {
        fs::create_dir_all(cgroup).with_context(|| format!("cannot create {cgroup}"))?;
    }
    Ok(())
}

/// Freezes every cgroup right below `root` and returns once all tasks in them stand still; thaws them again if they
/// do not in time.
pub fn freeze(root: &Path) -> anyhow::Result<()> {
    let cgroups = cgroups(root)?;
    set(&cgroups, true)?;
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    for cgroup in &cgroups {
        if !frozen(cgroup, deadline)? {
            set(&cgroups, false)?;
            bail!(
                "{} did not freeze within {} s",
                cgroup.display(),
                FREEZE_TIMEOUT.as_secs()
            );
        }
    }
    Ok(())
}

/// Undoes [`freeze`].
pub fn thaw(root: &Path) -> anyhow::Result<()> {
    set(&cgroups(root)?, false)
}

fn cgroups(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn set(cgroups: &[PathBuf], freeze: bool) -> anyhow::Result<()> {
    for cgroup in cgroups {
        match fs::write(cgroup.join("cgroup.freeze"), if freeze { "1" } else { "0" }) {
            // It was removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("cannot freeze or thaw {}", cgroup.display()))?,
        }
    }
    Ok(())
}

/// Whether all of the cgroup stands still before the deadline.
fn frozen(cgroup: &Path, deadline: Instant) -> anyhow::Result<bool> {
    let Ok(mut events) = File::open(cgroup.join("cgroup.events")) else {
        return Ok(true);
    };
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // The kernel signals a change of the file as an exceptional condition; EINTR means only to look again.
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
    }
}
