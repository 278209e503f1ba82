//! The child's side: from a fresh copy of the agent's binary to the program.
//!
//! The process that the agent spawns enters or makes the PID namespace (which counts for children only), forks, and
//! ends; its child thereby becomes the agent's own and goes on here to its mounts, its user and its program.
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use hearth_agent_protocol::{read_frame, write_frame};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Uid, chdir, execve, fchown, fork, setsid};

use super::user::Identity;
use super::{Place, Process, Report, Work, capabilities, environment, files, mounts, user};

/// Exit code of a process whose program was not found (as in a shell).
pub const NOT_FOUND: u8 = 127;
/// Exit code of a process whose program could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;

/// Largest number of open files, soft and hard (spec section 11), and with every capability.
const OPEN_FILES: u64 = 1024;
const OPEN_FILES_WITH_ALL: u64 = 1 << 20;

/// Runs as `container-init`; `control` is the number of the inherited control socket.
pub fn main(control: &str) -> ExitCode {
    match control.parse::<RawFd>() {
        Ok(number) if number > 2 => run(number),
        _ => ExitCode::FAILURE,
    }
}

fn run(control: RawFd) -> ExitCode {
    // SAFETY: the agent passes the number of a descriptor it made for this process, and nothing else here owns it.
    let mut control = UnixStream::from(unsafe { OwnedFd::from_raw_fd(control) });
    let process: Process = match fcntl(&control, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(anyhow::Error::from)
        .and_then(|_| read_frame(&mut control).map_err(anyhow::Error::from))
    {
        Ok(Some(process)) => process,
        _ => return ExitCode::FAILURE,
    };
    match become_program(&process, &mut control) {
        Ok(Outcome::Parent | Outcome::FilesServed) => ExitCode::SUCCESS,
        Err(error) => {
            let name = process.argv.first().map_or("", String::as_str);
            let line: String = format!("cannot start {name}: {error:#}")
                .chars()
                .take(4000)
                .collect();
            eprintln!("hearth: {line}");
            let _ = write_frame(&mut control, &Report::Failed(line));
            let missing = error.downcast_ref::<Errno>() == Some(&Errno::ENOENT);
            ExitCode::from(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
        }
    }
}

/// What [`become_program`] leaves to be done where it returns at all.
enum Outcome {
    /// Here is the process that forked; its work is done.
    Parent,
    /// What was to be done needed no program.
    FilesServed,
}

fn become_program(process: &Process, control: &mut UnixStream) -> anyhow::Result<Outcome> {
    let neighbour = match &process.place {
        Place::New(_) => {
            unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")?;
            None
        }
        Place::Beside(pid) => {
            let neighbour = Namespaces::of(*pid).context("the application does not run")?;
            setns(&neighbour.pid, CloneFlags::CLONE_NEWPID).context("the application does not run")?;
            Some(neighbour)
        }
    };
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Parent { child } => {
            write_frame(control, &Report::Process(child.as_raw()))?;
            return Ok(Outcome::Parent);
        }
        ForkResult::Child => {}
    }
    setsid().context("cannot start a session")?;
    fs::write(process.cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot join {}", process.cgroup.display()))?;
    umask(Mode::from_bits_truncate(0o022));
    match (&process.place, neighbour) {
        (Place::New(container), _) => {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
                .context("cannot make namespaces")?;
            mounts::enter(container, process.all_capabilities)?;
            files::write(container)?;
        }
        (Place::Beside(_), Some(neighbour)) => {
            setns(&neighbour.uts, CloneFlags::CLONE_NEWUTS)?;
            setns(&neighbour.ipc, CloneFlags::CLONE_NEWIPC)?;
            setns(&neighbour.mount, CloneFlags::CLONE_NEWNS)?;
        }
        (Place::Beside(_), None) => bail!("the application does not run"),
    }
    let identity = user::resolve(&process.user)?;
    enter_working_directory(&process.working_directory)?;
    let limit = if process.all_capabilities {
        OPEN_FILES_WITH_ALL
    } else {
        OPEN_FILES
    };
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).context("cannot limit open files")?;
    match &process.work {
        Work::Program => files::own_pipes(&identity)?,
        Work::ProgramOnTerminal => take_terminal(&identity)?,
        Work::Files(_) => {}
    }
    capabilities::become_user(&identity, process.all_capabilities)?;
    if let Work::Files(request) = &process.work {
        // The agent takes the end of this socket for a success.
        control.shutdown(Shutdown::Both)?;
        crate::files::serve_standard_input(request);
        return Ok(Outcome::FilesServed);
    }
    restore_signals()?;
    execute(process, &identity)
}

/// Makes standard input the session's terminal, and the user its owner.
fn take_terminal(identity: &Identity) -> anyhow::Result<()> {
    // SAFETY: the call takes an int; on what is no terminal it fails.
    Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })
        .context("cannot take the terminal")?;
    fchown(io::stdin(), Some(Uid::from_raw(identity.uid)), None).context("cannot own the terminal")
}

/// The namespaces of a running process.
struct Namespaces {
    pid: File,
    mount: File,
    uts: File,
    ipc: File,
}

impl Namespaces {
    fn of(pid: i32) -> std::io::Result<Namespaces> {
        let open = |name| File::open(format!("/proc/{pid}/ns/{name}"));
        Ok(Namespaces {
            pid: open("pid")?,
            mount: open("mnt")?,
            uts: open("uts")?,
            ipc: open("ipc")?,
        })
    }
}

fn enter_working_directory(path: &str) -> anyhow::Result<()> {
    let path = if path.is_empty() { "/" } else { path };
    // Relative to the root, as WORKDIR is.
    chdir("/")?;
    fs::create_dir_all(path).with_context(|| format!("cannot create the working directory {path}"))?;
    chdir(path).with_context(|| format!("cannot enter the working directory {path}"))
}

/// Rust's runtime ignores SIGPIPE, and what is ignored stays so over `execve`.
fn restore_signals() -> anyhow::Result<()> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Executes the program, looked up in the PATH of its own environment; returns only if that fails.
fn execute(process: &Process, identity: &Identity) -> anyhow::Result<Outcome> {
    let name = process.argv.first().context("no program")?;
    let env = environment::complete(&process.env, &identity.home);
    let candidates = environment::candidates(name, &env);
    ensure!(!candidates.is_empty(), Errno::ENOENT);
    let argv = c_strings(&process.argv)?;
    let env = c_strings(&env)?;
    let mut cause = Errno::ENOENT;
    for candidate in c_strings(&candidates)? {
        match try_execute(&candidate, &argv, &env) {
            // Another directory of the PATH may have it; the worse news is told in the end.
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => cause = Errno::EACCES,
            other => return Err(other.into()),
        }
    }
    Err(cause.into())
}

fn try_execute(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    match execve(program, argv, env) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

fn c_strings(strings: &[String]) -> anyhow::Result<Vec<CString>> {
    strings
        .iter()
        .map(|string| CString::new(string.as_str()).context("an argument or variable holds a zero byte"))
        .collect()
}
