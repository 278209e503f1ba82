use serde::{Deserialize, Serialize};

use crate::{FileFailure, FileInfo, FileRequest};

/// One thing the host asks of the guest; each on a connection of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who is there? Answered by [`Reply::Hello`].
    Hello,
    /// Mount the disks and start the application. Once in a guest's life, at cold boot. Answered by [`Reply::Done`].
    Start(Application),
    /// Make the guest ready for a pause: freeze the application, sync, and drop what a snapshot need not hold.
    Freeze(Freeze),
    /// Undo [`Request::Freeze`] in a guest that has just been restored (or whose suspend was cancelled).
    Thaw(Thaw),
    /// POST to a lifecycle hook of the application. Answered by [`Reply::Hook`].
    Hook(HookCall),
    /// Wait until any process in the guest listens on TCP, or the time is over. Answered by [`Reply::Listening`].
    AwaitListener {
        /// Longest wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Connect to 127.0.0.1:`port`. After [`Reply::Connected`] the connection is raw.
    Forward {
        /// TCP port in the guest.
        port: u16,
    },
    /// Stream the application's output, starting at a position; [`Output`] frames follow until the application exits, or until
    /// the guest is frozen for an image, which begins the output anew.
    Output {
        /// Position in the application's output, in bytes since its beginning; older bytes may be gone.
        from: u64,
    },
    /// Run a command in the application's container. [`Reply::Started`], then [`ExecInput`] down and [`Output`] up.
    Exec(Exec),
    /// Work on a file or a tree of them in the application's container; see [`crate::FileRequest`].
    Files(FileRequest),
}

/// What the agent needs to start the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Application {
    /// ENTRYPOINT and CMD joined; never empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, in order; later ones win.
    pub env: Vec<String>,
    /// WORKDIR; `/` when empty.
    pub working_directory: String,
    /// USER as in a Dockerfile: `name`, `uid`, `name:group`, `uid:gid`; root when empty.
    pub user: String,
    /// `additionalOsCapabilities: ["ALL"]`: every capability, cgroup2 and `/dev/fuse`.
    pub all_capabilities: bool,
    /// PEM certificates appended to the guest's trust store; empty for none.
    pub extra_certificates: String,
    /// Wall clock, nanoseconds since the epoch.
    pub wall_clock_ns: u64,
}

/// How to prepare for a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Before an image's snapshot: drop caches, close outbound connections and begin the output anew, so that every clone
    /// starts small and alike.
    pub for_image: bool,
}

/// What a guest must be told after its clock stood still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thaw {
    /// Wall clock, nanoseconds since the epoch.
    pub wall_clock_ns: u64,
    /// Fresh bytes for the kernel's random number generator.
    pub entropy: [u8; 32],
    /// Whether outbound connections are to be closed: true after a restore, false when a suspend was cancelled.
    pub close_connections: bool,
}

/// A call to the application's hook server on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// `hooks.port` of the image.
    pub port: u16,
    /// The last segment of the hook's path: `ready`, `validate`, `run`, `resume`, `suspend`, `terminate`.
    pub name: String,
    /// JSON body; empty for a hook without one.
    pub body: String,
    /// Longest wait for the whole exchange, in milliseconds.
    pub timeout_ms: u64,
    /// Whether a refused connection is retried until the time is over (a server that is still starting).
    pub retry_connect: bool,
}

/// Outcome of a hook call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookOutcome {
    /// The application answered with this HTTP status.
    Status(u16),
    /// No complete answer in time.
    TimedOut,
    /// Nothing listened, or the answer was no HTTP; the text says what.
    Failed(String),
}

/// A command to run in the application's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Added to the application's environment, `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory; the application's when empty.
    pub working_directory: String,
    /// USER to run as; the application's when empty.
    pub user: String,
    /// A terminal of this size for its standard input, output and error, which then is all [`Output::Stdout`].
    pub terminal: Option<TerminalSize>,
}

/// Size of a terminal, in characters; zero while nobody has said one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// What the host sends to a running command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(#[serde(with = "serde_bytes")] Vec<u8>),
    /// End of its standard input; on a terminal the end-of-file character.
    StdinEnd,
    /// Deliver a signal to its process group, by number.
    Signal(i32),
    /// The terminal has another size now.
    Resize(TerminalSize),
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The agent's [`crate::PROTOCOL_VERSION`].
        protocol: u32,
        /// `uname -r` of the guest.
        kernel: String,
    },
    /// The request was carried out.
    Done,
    /// The connection is raw from here on.
    Connected,
    /// Nothing listens on that port, or the command could not be started; the text says which.
    Refused(String),
    /// The command runs.
    Started,
    /// To [`Request::Hook`].
    Hook(HookOutcome),
    /// To [`Request::AwaitListener`]: whether a listener appeared in time.
    Listening(bool),
    /// To [`Request::Files`]: what the path names.
    File(FileInfo),
    /// To [`Request::Files`]: it cannot be done.
    FileRefused(FileFailure),
    /// The agent could not do it; one line with the cause.
    Failed(String),
}

/// A piece of output, or the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// From the application's (or command's) standard output.
    Stdout(#[serde(with = "serde_bytes")] Vec<u8>),
    /// From its standard error.
    Stderr(#[serde(with = "serde_bytes")] Vec<u8>),
    /// It ended; nothing follows.
    Exited(ExitStatus),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By `exit`.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code a shell would report: a signal counts as 128 + its number.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}
