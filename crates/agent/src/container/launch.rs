//! The agent's side of starting a process in a container.
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use hearth_agent_protocol::{FrameError, read_frame, write_frame};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{INIT_ARGUMENT, Place, Process, Report};
use crate::reaper::{Exit, Reaper};

/// Longest wait for the program to be executed. Generous: a cold guest under emulation reads it from disk.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What it takes to start processes.
pub struct Launcher {
    /// Gets their ends.
    pub reaper: &'static Reaper,
    /// This binary, to be executed as `container-init`.
    pub program: PathBuf,
}

/// Descriptors for the process.
pub struct Descriptors {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

/// A process that was made.
pub struct Launched {
    /// Its id in the agent's namespace; it leads a session and a process group of the same id.
    pub pid: libc::pid_t,
    /// Tells when and how it ended.
    pub exit: Exit,
    /// Why it did not become the program; it ends (or has ended) by itself then.
    pub refusal: Option<String>,
}

/// Starts a process and waits until its program runs or cannot. An error means that there is no process.
pub fn launch(launcher: &Launcher, process: &Process, descriptors: Descriptors) -> anyhow::Result<Launched> {
    let reaper = launcher.reaper;
    let (mut control, theirs) = UnixStream::pair().context("cannot make a control socket")?;
    control.set_read_timeout(Some(START_TIMEOUT))?;
    let made = make(launcher, process, descriptors, &mut control, theirs);
    reaper.wake();
    let (pid, exit, mut refusal) = made?;
    if refusal.is_none() {
        refusal = match read_frame(&mut control) {
            Ok(None) => None,
            Ok(Some(Report::Failed(why))) => Some(why),
            Ok(Some(Report::Process(_))) => Some("the container's init reported twice".into()),
            Err(FrameError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => {
                reaper.signal(pid, libc::SIGKILL);
                Some(format!("it did not start: {error}"))
            }
        };
    }
    Ok(Launched { pid, exit, refusal })
}

/// Everything up to the new process's registration, under the reaper's lock, so that its end cannot be missed.
fn make(
    launcher: &Launcher,
    process: &Process,
    descriptors: Descriptors,
    control: &mut UnixStream,
    theirs: UnixStream,
) -> anyhow::Result<(libc::pid_t, Exit, Option<String>)> {
    let mut awaited = launcher.reaper.lock();
    if let Place::Beside(pid) = process.place
        && !awaited.is_alive(pid)
    {
        // Its id may be another's by now.
        bail!("the application has ended");
    }
    // Children are made under this lock only, so none but ours inherits the descriptor.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot pass the control socket on")?;
    Command::new(&launcher.program)
        .arg(INIT_ARGUMENT)
        .arg(theirs.as_raw_fd().to_string())
        .env_clear()
        .stdin(descriptors.stdin)
        .stdout(descriptors.stdout)
        .stderr(descriptors.stderr)
        .spawn()
        .context("cannot start the container's init")?;
    drop(theirs);
    write_frame(control, process).context("cannot tell the container's init what to do")?;
    let mut refusal = None;
    loop {
        match read_frame(control).context("the container's init does not answer")? {
            Some(Report::Process(pid)) => return Ok((pid, awaited.expect(pid)?, refusal)),
            // The new process may be quicker than the one that made it.
            Some(Report::Failed(why)) => refusal = Some(why),
            None => bail!(
                "{}",
                refusal
                    .as_deref()
                    .unwrap_or("the container's init ended without a word")
            ),
        }
    }
}
