//! The daemon's executable and its process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};

/// The daemon's executable, and its process's name.
const HEARTHD: &str = "hearthd";

/// Finds `hearthd` next to this program, else in PATH.
pub(crate) fn executable() -> Result<PathBuf> {
    let beside = env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(HEARTHD))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let cure = "Build it with `make`, or put it into the directory of `hearth`";
        Error::failed("`hearthd` is neither next to `hearth` nor in PATH", cure)
    })
}

/// The running daemon of a data directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Daemon {
    /// Its process.
    pub(crate) pid: i32,
}

impl Daemon {
    /// The process named in `hearthd.pid`, if it lives and is a `hearthd`.
    pub(crate) fn find(data: &Path) -> Option<Self> {
        let pid = fs::read_to_string(data.join("hearthd.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let daemon = Self { pid };
        daemon.lives().then_some(daemon)
    }

    /// Whether the process still runs. A number that another program got by now does not count, nor
    /// does a process that has ended and waits for its parent.
    pub(crate) fn lives(self) -> bool {
        // `PID (name) state …`; the name may hold anything, so the last parenthesis ends it.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        name.is_some_and(|(name, rest)| {
            name == HEARTHD && !matches!(rest.trim_start().chars().next(), Some('Z' | 'X'))
        })
    }

    /// Asks the daemon to stop.
    pub(crate) fn stop(self) -> Result<()> {
        match kill(Pid::from_raw(self.pid), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(Errno::EPERM) => Err(Error::failed(
                format!("not allowed to stop hearthd (pid {})", self.pid),
                "Run `hearth down` as root",
            )),
            Err(error) => Err(Error::failed(
                format!("cannot stop hearthd (pid {}): {error}", self.pid),
                "",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_another_programs_is_no_daemon() {
        let data = tempfile::tempdir().expect("temporary directory");
        assert!(Daemon::find(data.path()).is_none());
        fs::write(
            data.path().join("hearthd.pid"),
            format!("{}\n", std::process::id()),
        )
        .expect("written");
        assert!(Daemon::find(data.path()).is_none());
    }

    #[test]
    fn a_running_daemon_is_found_until_it_is_stopped() {
        let data = tempfile::tempdir().expect("temporary directory");
        let program = data.path().join(HEARTHD);
        // A process is named after the link. A copy could be busy: another test's child may hold it open.
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("linked");
        let mut child = std::process::Command::new(&program)
            .arg("1000")
            .spawn()
            .expect("started");
        fs::write(data.path().join("hearthd.pid"), child.id().to_string()).expect("written");
        let found = Daemon::find(data.path());
        let stopped = found.map(Daemon::stop);
        // Whatever was found, this process must not outlive the test.
        child.kill().expect("ended");
        child.wait().expect("reaped");
        assert!(matches!(stopped, Some(Ok(()))), "{found:?}");
        assert!(Daemon::find(data.path()).is_none());
    }
}
