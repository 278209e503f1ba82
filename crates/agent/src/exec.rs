//! Commands beside the application, in its container.
use std::fs::File;
use std::io::{ErrorKind, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use hearth_agent_protocol::{Exec, ExecInput, Output, Reply, read_frame, write_frame};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::application::Started;
use crate::container::launch::{Descriptors, Launched, Launcher, launch};
use crate::container::{Place, Process};
use crate::freezer;
use crate::output::{MAX_FRAME_PAYLOAD_BYTES, Stream};
use crate::reaper::{Exit, Reaper};

/// Input the command has not read is kept up to this; then the host has to wait.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// What the command gets of the application where the request names nothing of its own.
pub fn process(application: &Started, request: Exec) -> Process {
    let settings = &application.settings;
    let or = |own: String, default: &String| if own.is_empty() { default.clone() } else { own };
    Process {
        argv: request.argv,
        env: settings.env.iter().cloned().chain(request.env).collect(),
        working_directory: or(request.working_directory, &settings.working_directory),
        user: or(request.user, &settings.user),
        all_capabilities: settings.all_capabilities,
        cgroup: freezer::COMMANDS.into(),
        place: Place::Beside(application.pid),
    }
}

/// Runs a command for the host at the other end of the connection. When the host ends its side, even by half, the
/// command's process group is killed.
pub fn serve(host: &mut TcpStream, launcher: &Launcher, process: &Process) -> anyhow::Result<()> {
    let (their_stdin, stdin) = pipe().context("cannot make a pipe")?;
    let (stdout, their_stdout) = pipe().context("cannot make a pipe")?;
    let (stderr, their_stderr) = pipe().context("cannot make a pipe")?;
    let descriptors = Descriptors {
        stdin: their_stdin.into(),
        stdout: their_stdout.into(),
        stderr: their_stderr.into(),
    };
    // Writing to a command that does not read must not keep the agent from listening.
    fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot prepare a pipe")?;
    let (pid, exit) = match launch(launcher, process, descriptors) {
        Ok(Launched {
            refusal: None,
            pid,
            exit,
        }) => (pid, exit),
        Ok(Launched {
            refusal: Some(why), ..
        }) => return Ok(write_frame(host, &Reply::Refused(why))?),
        Err(error) => return Ok(write_frame(host, &Reply::Refused(format!("{error:#}")))?),
    };
    let outcome = write_frame(host, &Reply::Started)
        .map_err(Into::into)
        .and_then(|()| {
            Session {
                host,
                reaper: launcher.reaper,
                pid,
                exit: Some(exit),
                stdin: Some(File::from(OwnedFd::from(stdin))),
                stdout: Some(File::from(OwnedFd::from(stdout))),
                stderr: Some(File::from(OwnedFd::from(stderr))),
                pending: Vec::new(),
                stdin_ends: false,
                status: None,
            }
            .run()
        });
    if outcome.is_err() {
        // SAFETY: kill touches no memory. The id stays the group's own while any of its processes is left.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
    outcome
}

struct Session<'a> {
    host: &'a mut TcpStream,
    reaper: &'a Reaper,
    pid: libc::pid_t,
    exit: Option<Exit>,
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
    fn run(mut self) -> anyhow::Result<()> {
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
                self.stdin_ends = true;
                self.feed();
            }
            ExecInput::Signal(signal) => {
                self.reaper.signal(self.pid, signal);
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
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
        Ok(())
    }
}

fn gone() -> anyhow::Error {
    anyhow::anyhow!("the host ended the connection")
}
