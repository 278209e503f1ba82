//! Commands beside the application, in its container.
use std::fs::File;
use std::io::{ErrorKind, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use hearth_agent_protocol::{Exec, ExecInput, Output, Reply, TerminalSize, read_frame, write_frame};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use crate::application::Started;
use crate::container::launch::{Descriptors, Launched, Launcher, launch};
use crate::container::{Place, Process, Work};
use crate::output::{MAX_FRAME_PAYLOAD_BYTES, Stream};
use crate::reaper::{Exit, Reaper};
use crate::{freezer, terminal};

/// Input the command has not read is kept up to this; then the host has to wait.
const MAX_PENDING_BYTES: usize = 1 << 20;
/// What a terminal's line discipline takes for the end of input.
const END_OF_FILE: u8 = 4;
/// How long a command may take to end itself after SIGHUP: so many steps of so many milliseconds. A suspend between two
/// lets the clock jump, which must not use up the whole time while the command is still frozen.
const HANG_UP_STEPS: u32 = 20;
const HANG_UP_STEP_MS: u16 = 100;

/// What the command gets of the application where the request names nothing of its own.
pub fn process(application: &Started, request: Exec) -> Process {
    let settings = &application.settings;
    let or = |own: String, default: &String| if own.is_empty() { default.clone() } else { own };
    Process {
        work: if request.terminal.is_some() {
            Work::ProgramOnTerminal
        } else {
            Work::Program
        },
        argv: request.argv,
        env: settings.env.iter().cloned().chain(request.env).collect(),
        working_directory: or(request.working_directory, &settings.working_directory),
        user: or(request.user, &settings.user),
        all_capabilities: settings.all_capabilities,
        cgroup: freezer::COMMANDS.into(),
        place: Place::Beside(application.pid),
    }
}

/// The agent's ends of a command's standard streams.
struct Streams {
    stdin: File,
    stdout: File,
    stderr: Option<File>,
}

fn pipes() -> anyhow::Result<(Streams, Descriptors)> {
    let (their_stdin, stdin) = pipe().context("cannot make a pipe")?;
    let (stdout, their_stdout) = pipe().context("cannot make a pipe")?;
    let (stderr, their_stderr) = pipe().context("cannot make a pipe")?;
    // Writing to a command that does not read must not keep the agent from listening.
    fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot prepare a pipe")?;
    let streams = Streams {
        stdin: File::from(OwnedFd::from(stdin)),
        stdout: File::from(OwnedFd::from(stdout)),
        stderr: Some(File::from(OwnedFd::from(stderr))),
    };
    let descriptors = Descriptors {
        stdin: their_stdin.into(),
        stdout: their_stdout.into(),
        stderr: their_stderr.into(),
    };
    Ok((streams, descriptors))
}

fn on_terminal(neighbour: libc::pid_t, size: TerminalSize) -> anyhow::Result<(Streams, Descriptors)> {
    let (master, slave) = terminal::make(neighbour, size)?;
    let streams = Streams {
        stdin: master.try_clone().context("cannot share the terminal")?,
        stdout: master,
        stderr: None,
    };
    let share = || slave.try_clone().context("cannot share the terminal");
    let descriptors = Descriptors {
        stdin: share()?.into(),
        stdout: share()?.into(),
        stderr: share()?.into(),
    };
    Ok((streams, descriptors))
}

/// Runs a command for the host at the other end of the connection. When the host ends its side, even by half, the
/// command is hung up on: SIGHUP, and SIGKILL for what is left of its process group.
pub fn serve(
    host: &mut TcpStream,
    launcher: &Launcher,
    process: &Process,
    size: Option<TerminalSize>,
) -> anyhow::Result<()> {
    let refuse = |host: &mut TcpStream, why: String| Ok(write_frame(host, &Reply::Refused(why))?);
    let made = match (size, &process.place) {
        (Some(size), Place::Beside(neighbour)) => on_terminal(*neighbour, size),
        _ => pipes(),
    };
    let (streams, descriptors) = match made {
        Ok(made) => made,
        Err(error) => return refuse(host, format!("{error:#}")),
    };
    let (pid, exit) = match launch(launcher, process, descriptors) {
        Ok(Launched {
            refusal: None,
            pid,
            exit,
        }) => (pid, exit),
        Ok(Launched {
            refusal: Some(why), ..
        }) => return refuse(host, why),
        Err(error) => return refuse(host, format!("{error:#}")),
    };
    let mut session = Session {
        host,
        reaper: launcher.reaper,
        pid,
        exit: Some(exit),
        on_terminal: size.is_some(),
        stdin: Some(streams.stdin),
        stdout: Some(streams.stdout),
        stderr: streams.stderr,
        pending: Vec::new(),
        stdin_ends: false,
        status: None,
    };
    let outcome = write_frame(session.host, &Reply::Started)
        .map_err(Into::into)
        .and_then(|()| session.run());
    if outcome.is_err() {
        session.hang_up();
    }
    outcome
}

struct Session<'a> {
    host: &'a mut TcpStream,
    reaper: &'a Reaper,
    pid: libc::pid_t,
    exit: Option<Exit>,
    /// `stdin` and `stdout` are the same terminal.
    on_terminal: bool,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    pending: Vec<u8>,
    /// No input follows what is pending.
    stdin_ends: bool,
    status: Option<hearth_agent_protocol::ExitStatus>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Host,
    Exit,
    Stdin,
    Stdout,
    Stderr,
}

impl Session<'_> {
    /// Until the command has ended and all its output has been sent. An error: the host is gone.
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            if let (None, None, Some(status)) = (&self.stdout, &self.stderr, self.status) {
                return Ok(write_frame(self.host, &Output::Exited(status))?);
            }
            for (source, seen) in self.wait()? {
                match source {
                    Source::Host if seen.contains(PollFlags::POLLIN) => self.take_input()?,
                    Source::Host => return Err(gone()),
                    Source::Exit => self.status = self.exit.take().map(Exit::wait),
                    Source::Stdin => self.feed(),
                    Source::Stdout => {
                        Self::pass_on(self.host, Stream::Stdout, &mut self.stdout)?;
                    }
                    Source::Stderr => {
                        Self::pass_on(self.host, Stream::Stderr, &mut self.stderr)?;
                    }
                }
            }
        }
    }

    fn wait(&self) -> anyhow::Result<Vec<(Source, PollFlags)>> {
        // A host that ends its side is noticed even while no input is taken.
        let from_host = if self.pending.len() < MAX_PENDING_BYTES {
            PollFlags::POLLIN
        } else {
            PollFlags::from_bits_retain(libc::POLLRDHUP)
        };
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> =
            vec![(Source::Host, self.host.as_fd(), from_host)];
        watched.extend(
            self.exit
                .as_ref()
                .map(|exit| (Source::Exit, exit.as_fd(), PollFlags::POLLIN)),
        );
        watched.extend(
            self.stdout
                .as_ref()
                .map(|pipe| (Source::Stdout, pipe.as_fd(), PollFlags::POLLIN)),
        );
        watched.extend(
            self.stderr
                .as_ref()
                .map(|pipe| (Source::Stderr, pipe.as_fd(), PollFlags::POLLIN)),
        );
        if !self.pending.is_empty() {
            watched.extend(
                self.stdin
                    .as_ref()
                    .map(|pipe| (Source::Stdin, pipe.as_fd(), PollFlags::POLLOUT)),
            );
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, events)| PollFd::new(*fd, *events))
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            other => other?,
        };
        let seen = watched.iter().zip(&fds).filter_map(|((source, ..), fd)| {
            // `None`: flags without a name here, which POLLRDHUP is.
            let seen = fd.revents().unwrap_or(PollFlags::POLLHUP);
            (!seen.is_empty()).then_some((*source, seen))
        });
        Ok(seen.collect())
    }

    fn take_input(&mut self) -> anyhow::Result<()> {
        match read_frame(self.host)?.ok_or_else(gone)? {
            ExecInput::Stdin(bytes) if self.stdin.is_some() && !self.stdin_ends => {
                self.pending.extend(bytes);
                self.feed();
            }
            ExecInput::Stdin(_) => {}
            ExecInput::StdinEnd => {
                if self.on_terminal && !self.stdin_ends {
                    self.pending.push(END_OF_FILE);
                }
                self.stdin_ends = true;
                self.feed();
            }
            ExecInput::Signal(signal) => {
                self.reaper.signal_group(self.pid, signal);
            }
            ExecInput::Resize(size) => {
                if let (true, Some(master)) = (self.on_terminal, &self.stdout) {
                    // A terminal whose command has just gone has no size to set.
                    let _ = terminal::resize(master, size);
                }
            }
        }
        Ok(())
    }

    /// Writes what the command's input takes, and ends it when there is no more to come.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.pending.is_empty() {
            match stdin.write(&self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The command reads no more.
                Err(_) => {
                    self.pending.clear();
                    self.stdin_ends = true;
                }
            }
        }
        if self.stdin_ends {
            self.stdin = None;
        }
    }

    fn pass_on(host: &mut TcpStream, stream: Stream, pipe: &mut Option<File>) -> anyhow::Result<()> {
        let Some(open) = pipe else { return Ok(()) };
        let mut buffer = vec![0; MAX_FRAME_PAYLOAD_BYTES];
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                buffer.truncate(count);
                write_frame(host, &stream.frame(buffer))?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // A terminal ends in an error when nobody has it open any more.
            Err(_) => *pipe = None,
        }
        Ok(())
    }

    /// Whether the command has ended, or ends within so many steps.
    fn ends_within(&self, steps: u32) -> bool {
        let Some(exit) = &self.exit else { return true };
        (0..steps).any(|_| {
            let mut watched = [PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
            !matches!(poll(&mut watched, HANG_UP_STEP_MS), Ok(0) | Err(Errno::EINTR))
        })
    }

    /// Ends a command whose host has gone.
    fn hang_up(&mut self) {
        self.reaper.signal_group(self.pid, libc::SIGHUP);
        self.reaper.signal_group(self.pid, libc::SIGCONT);
        // The terminal ends a moment later: a shell that reads its end first exits without passing the hang-up on to its
        // jobs, and one that has set a trap looks at it only when its input has ended.
        let ended = self.ends_within(HANG_UP_STEPS / 4);
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        if !ended && !self.ends_within(HANG_UP_STEPS) {
            // It is killed, and passes the hang-up on to nobody.
            hang_up_jobs(self.pid);
        }
        // SAFETY: kill touches no memory. The id stays the group's own while any of its processes is left.
        unsafe { libc::kill(-self.pid, libc::SIGKILL) };
    }
}

/// Hangs up on every process of a session: a shell's jobs have groups of their own.
fn hang_up_jobs(session: libc::pid_t) {
    let session = Pid::from_raw(session);
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .map(Pid::from_raw)
        else {
            continue;
        };
        if getsid(Some(pid)) == Ok(session) {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                let _or_it_has_ended = kill(pid, signal);
            }
        }
    }
}

fn gone() -> anyhow::Error {
    anyhow::anyhow!("the host ended the connection")
}
