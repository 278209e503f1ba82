use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use super::{COMMAND, JailSpec};
use crate::{
    driver::VmmError,
    log::Log,
    process::{Process, ProcessRecord},
};

/// Number of the first descriptor that a VMM inherits.
const FIRST_FD: RawFd = 3;

/// Starts a VMM in its jail. `inherited` get the descriptors 3, 4, … in the VMM; its words go to `log`, on
/// standard output and standard error.
pub(crate) async fn launch(spec: JailSpec, inherited: Vec<OwnedFd>, log: &Log) -> Result<Process, VmmError> {
    let start = VmmError::start(&spec.program);
    let words = log.writer().map_err(VmmError::io("opening the VMM's log"))?;
    // Forking takes long in a large process: not on the executor's threads.
    let pid = tokio::task::spawn_blocking(move || run_launcher(&spec, &inherited, words))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(start)?;
    let ended = || VmmError::Ended(log.tail());
    let record = ProcessRecord::of(pid.ok_or_else(ended)?).map_err(|_| ended())?;
    Process::watch(record)
        .map_err(VmmError::io("watching a VMM process"))?
        .ok_or_else(ended)
}

/// The VMM's pid; `None` when the launcher gave up, which the log tells about.
fn run_launcher(spec: &JailSpec, inherited: &[OwnedFd], log: OwnedFd) -> io::Result<Option<i32>> {
    // The daemon's own program, also after its file was replaced.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(COMMAND)
        .arg(serde_json::to_string(spec)?)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(log);
    let inherited: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on descriptors that stay open until
    // the command has been spawned.
    unsafe { command.pre_exec(move || hand_down(&inherited)) };
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().parse().ok().filter(|_| output.status.success()))
}

fn hand_down(inherited: &[RawFd]) -> io::Result<()> {
    // First out of the way, then to their places: they may sit on each other's number.
    let mut away = [-1; 4];
    for (away, fd) in away.iter_mut().zip(inherited) {
        // SAFETY: plain system call; the copy is close-on-exec.
        *away = match unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 32) } {
            copy if copy >= 0 => copy,
            _ => return Err(io::Error::last_os_error()),
        };
    }
    for (from, to) in away.into_iter().take(inherited.len()).zip(FIRST_FD..) {
        // SAFETY: plain system call on descriptors of this process; the copy is not close-on-exec.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
