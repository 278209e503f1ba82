//! A VMM process that outlives the daemon: named by pid and start time, watched by a pidfd.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::sys::{signal::Signal, wait};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

/// Longest device state that is taken over from a VMM process; ours are under 200 KB.
const MAX_DEVICE_STATE_BYTES: u64 = 64 << 20;

/// A process, told apart from a later one with the same pid by its start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// Process id.
    pub pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl ProcessRecord {
    /// Reads the record of a live process.
    pub fn of(pid: i32) -> io::Result<ProcessRecord> {
        let stat = procfs::process::Process::new(pid)
            .and_then(|process| process.stat())
            .map_err(io::Error::other)?;
        Ok(ProcessRecord {
            pid,
            start_ticks: stat.starttime,
        })
    }

    /// Tells the kernel how readily it may end this process when memory runs out: proc(5), `oom_score_adj`.
    pub fn set_oom_score_adj(&self, adjustment: i16) -> io::Result<()> {
        match self.is_alive() {
            true => std::fs::write(
                format!("/proc/{}/oom_score_adj", self.pid),
                adjustment.to_string(),
            ),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether this very process is alive (a zombie is not).
    pub fn is_alive(&self) -> bool {
        procfs::process::Process::new(self.pid)
            .and_then(|process| process.stat())
            .is_ok_and(|stat| stat.starttime == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }
}

/// A watched process: ours by birth, or found again.
#[derive(Debug, Clone)]
pub struct Process {
    record: ProcessRecord,
    pidfd: Arc<AsyncFd<OwnedFd>>,
}

impl Process {
    /// Watches a live process; `None` when it has ended.
    pub fn watch(record: ProcessRecord) -> io::Result<Option<Process>> {
        let pidfd = match pidfd_open(record.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The pidfd pins the process: a check made after it was opened holds.
        if !record.is_alive() {
            return Ok(None);
        }
        // SAFETY: the AsyncFd owns the descriptor, whose number therefore stays open and the same until it is dropped.
        let pidfd = Arc::new(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?);
        Ok(Some(Process { record, pidfd }))
    }

    /// Pid and start time.
    pub fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Stands for the process, and for its namespaces.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        self.pidfd.get_ref()
    }

    /// Returns when the process has ended; reaps it when it is our child.
    pub async fn ended(&self) {
        // A pidfd turns readable when its process ends, and stays so.
        let _ready = self.pidfd.readable().await;
        let pid = nix::unistd::Pid::from_raw(self.record.pid);
        let _not_ours_or_reaped = wait::waitpid(pid, Some(wait::WaitPidFlag::WNOHANG));
    }

    /// Ends the process and waits until it is gone.
    pub async fn kill(&self) {
        pidfd_send_signal(self.pidfd.get_ref(), Signal::SIGKILL);
        self.ended().await;
    }
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes two integers; a result >= 0 is a new descriptor that nobody else owns.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn pidfd_send_signal(pidfd: &OwnedFd, signal: Signal) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the call's length; a null siginfo is allowed. It can only fail when the process is gone.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// The socket appears some milliseconds after the process; it is there long before half a minute on any machine.
pub(crate) async fn connect_when_there(socket: &Path) -> io::Result<UnixStream> {
    let mut left = 6000;
    loop {
        match UnixStream::connect(socket).await {
            Err(error)
                if left > 0
                    && matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
            {
                left -= 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

/// Copies a file that the VMM process wrote (and may still tamper with) into a place of our own, durably.
pub(crate) fn take_over(own: &Path, to: &Path) -> io::Result<()> {
    let from = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(own)?;
    if !from.metadata()?.is_file() {
        return Err(io::Error::other("the VMM's device state is no regular file"));
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let copied = io::copy(&mut from.take(MAX_DEVICE_STATE_BYTES + 1), &mut file)?;
    if copied > MAX_DEVICE_STATE_BYTES {
        return Err(io::Error::other("the VMM's device state is too large"));
    }
    file.sync_all()?;
    std::fs::remove_file(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_watched_ended_and_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let record = ProcessRecord::of(child.id() as i32).expect("alive");
        let process = Process::watch(record.clone()).expect("pidfd").expect("alive");
        assert!(record.is_alive());
        process.kill().await;
        assert!(child.wait().is_err(), "it was reaped");
        assert!(!record.is_alive());
        assert!(Process::watch(record).expect("no error").is_none());
    }

    #[tokio::test]
    async fn another_process_with_the_same_pid_is_not_adopted() {
        let own = ProcessRecord::of(std::process::id() as i32).expect("alive");
        let impostor = ProcessRecord {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(Process::watch(impostor).expect("no error").is_none());
    }
}
