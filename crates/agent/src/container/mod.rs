//! The application's container inside the guest: PID, mount, UTS and IPC namespaces of its own, the guest's network.
//!
//! [`launch`] is the agent's side. It re-executes the agent's own binary as `container-init`, whose single thread may
//! fork and change namespaces freely ([`init`]), and which ends as the application or a command beside it.

pub mod capabilities;
pub mod devices;
pub mod environment;
pub mod files;
pub mod init;
pub mod launch;
pub mod mounts;
pub mod user;

use std::path::PathBuf;

use hearth_agent_protocol::FileRequest;
use serde::{Deserialize, Serialize};

/// First argument of the re-executed binary; the second is the number of the control socket's descriptor.
pub const INIT_ARGUMENT: &str = "container-init";

/// What to run in a container and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// What it becomes.
    pub work: Work,
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`; later ones win.
    pub env: Vec<String>,
    /// Created when absent; `/` when empty.
    pub working_directory: String,
    /// USER of a Dockerfile; root when empty.
    pub user: String,
    /// Every capability instead of Docker's default set.
    pub all_capabilities: bool,
    /// Directory of the cgroup (v2) the process joins.
    pub cgroup: PathBuf,
    /// A container of its own or one that runs.
    pub place: Place,
}

/// What a process becomes once it is in its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// The program of its `argv`.
    Program,
    /// The same, with its standard input as its controlling terminal.
    ProgramOnTerminal,
    /// Work on files, done for the host at the other end of its standard input ([`crate::files`]).
    Files(FileRequest),
}

/// Where a process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Place {
    /// In new namespaces.
    New(NewContainer),
    /// Beside this process (id as the agent sees it).
    Beside(i32),
}

/// A container to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewContainer {
    /// A mount point that becomes the root.
    pub root: PathBuf,
    /// Directories bound into it: from outside, to inside.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Address of the name server.
    pub name_server: [u8; 4],
    /// PEM certificates for its trust store; empty for none.
    pub extra_certificates: String,
}

/// What the re-executed binary tells the agent. The end of the control socket without a failure means that the
/// program runs: the socket closes on `execve`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process was made; id as the agent sees it.
    Process(i32),
    /// It will not become the program; one line with the cause.
    Failed(String),
}
