//! The application: started once, followed to its end.
use std::io::pipe;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail, ensure};
use hearth_agent_protocol::{Application, GATEWAY_ADDRESS};

use crate::container::launch::{Descriptors, Launched, Launcher, launch};
use crate::container::{NewContainer, Place, Process, Work};
use crate::output::{OutputLog, Stream};
use crate::{disks, freezer};

/// A started application. It may have ended since; its output remains.
pub struct Started {
    /// As the host described it.
    pub settings: Application,
    /// Its PID 1, as the agent sees it.
    pub pid: libc::pid_t,
    /// What it says.
    pub output: Arc<OutputLog>,
    /// Why its program could not be executed.
    pub refusal: Option<String>,
}

/// Starts the application in the root that [`disks`] has put together.
pub fn start(launcher: &Launcher, settings: Application) -> anyhow::Result<Started> {
    ensure!(!settings.argv.is_empty(), "the application has no program");
    let binds = if settings.all_capabilities {
        disks::PLAIN_DIRECTORIES.as_slice()
    } else {
        &[]
    };
    let process = Process {
        work: Work::Program,
        argv: settings.argv.clone(),
        env: settings.env.clone(),
        working_directory: settings.working_directory.clone(),
        user: settings.user.clone(),
        all_capabilities: settings.all_capabilities,
        cgroup: freezer::APPLICATION.into(),
        place: Place::New(NewContainer {
            root: disks::ROOT.into(),
            binds: binds.iter().map(|(from, to)| (from.into(), to.into())).collect(),
            name_server: GATEWAY_ADDRESS,
            extra_certificates: settings.extra_certificates.clone(),
        }),
    };
    run(launcher, settings, &process)
}

/// Starts a process whose output is kept, and follows it.
pub fn run(launcher: &Launcher, settings: Application, process: &Process) -> anyhow::Result<Started> {
    let (stdout, their_stdout) = pipe().context("cannot make a pipe")?;
    let (stderr, their_stderr) = pipe().context("cannot make a pipe")?;
    let descriptors = Descriptors {
        stdin: Stdio::null(),
        stdout: their_stdout.into(),
        stderr: their_stderr.into(),
    };
    let Launched { pid, exit, refusal } = launch(launcher, process, descriptors)?;
    let output = Arc::new(OutputLog::default());
    let collect = |stream, from| {
        let output = output.clone();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || output.collect(stream, from))
    };
    let collectors = [collect(Stream::Stdout, stdout)?, collect(Stream::Stderr, stderr)?];
    let followed = output.clone();
    thread::Builder::new().name("application".into()).spawn(move || {
        let status = exit.wait();
        // With the container's PID 1 everything in it is gone, so its pipes end, too.
        for collector in collectors {
            let _ = collector.join();
        }
        followed.finish(status);
    })?;
    Ok(Started {
        settings,
        pid,
        output,
        refusal,
    })
}

impl Started {
    /// The refusal as an error.
    pub fn check(&self) -> anyhow::Result<()> {
        match &self.refusal {
            Some(refusal) => bail!("{refusal}"),
            None => Ok(()),
        }
    }
}
