//! Files of the application's container, for the host.
//!
//! The work is done by a process in the container ([`crate::container`]), which has the host's connection as its
//! standard input: a path means there what it means to the application, and no link leads out.
mod change;
mod chunks;
mod failure;
mod look;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use hearth_agent_protocol::{FileAction, FileFailure, FileRequest, Reply, write_frame};

use crate::application::Started;
use crate::container::launch::{Descriptors, Launched, Launcher, launch};
use crate::container::{Place, Process, Work};
use crate::freezer;

/// Lets a process in the container answer the host; returns once it has. An error: there is no such process, and the
/// host has no answer.
pub fn serve(
    host: &TcpStream,
    launcher: &Launcher,
    application: &Started,
    request: FileRequest,
) -> anyhow::Result<()> {
    let process = process(application, request);
    serve_as(host, launcher, &process)
}

/// The process that does the work.
pub fn process(application: &Started, request: FileRequest) -> Process {
    Process {
        work: Work::Files(request),
        argv: vec!["files".into()],
        env: Vec::new(),
        working_directory: "/".into(),
        user: "0".into(),
        all_capabilities: application.settings.all_capabilities,
        cgroup: freezer::COMMANDS.into(),
        place: Place::Beside(application.pid),
    }
}

/// As [`serve`], by a process described before.
pub fn serve_as(host: &TcpStream, launcher: &Launcher, process: &Process) -> anyhow::Result<()> {
    let connection = OwnedFd::from(host.try_clone().context("cannot share the connection")?);
    let descriptors = Descriptors {
        stdin: connection.into(),
        stdout: Stdio::null(),
        stderr: Stdio::null(),
    };
    match launch(launcher, process, descriptors)? {
        Launched {
            refusal: Some(why), ..
        } => bail!("{why}"),
        Launched { exit, .. } => {
            exit.wait();
            Ok(())
        }
    }
}

/// Answers the request on the connection that is this process's standard input. A host that has gone misses nothing.
pub(crate) fn serve_standard_input(request: &FileRequest) {
    if let Ok(connection) = io::stdin().as_fd().try_clone_to_owned() {
        answer(&mut TcpStream::from(connection), request);
    }
}

fn answer(host: &mut TcpStream, request: &FileRequest) {
    let path = Path::new(&request.path);
    let done = if !path.is_absolute() {
        Err(failure::of(libc::EINVAL, "the path is not absolute"))
    } else {
        match &request.action {
            FileAction::Describe => look::describe(path).map(|info| Some(Reply::File(info))),
            FileAction::List => look::list(path, host).map(|()| None),
            FileAction::Read => look::read(path, host).map(|()| None),
            FileAction::Pack => look::pack(path, host).map(|()| None),
            FileAction::Write(ownership) => {
                change::write(path, host, *ownership).map(|info| Some(Reply::File(info)))
            }
            FileAction::Unpack { owners } => change::unpack(path, host, *owners).map(|()| Some(Reply::Done)),
            FileAction::Remove { recursive } => change::remove(path, *recursive).map(|()| Some(Reply::Done)),
        }
    };
    let reply = match done {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(failure) => Reply::FileRefused(failure),
    };
    if write_frame(host, &reply).is_ok() {
        chunks::drain(host);
    }
}

type Outcome<T> = Result<T, FileFailure>;
