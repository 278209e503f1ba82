use std::{io, path::PathBuf};

use hearth_agent_protocol::FrameError;
use hearth_network::NetworkError;
use hearth_vmm::VmmError;

/// Why a guest did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The network slot.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The agent could not be reached, or talked nonsense.
    #[error("the agent in the guest: {0}")]
    Agent(#[from] FrameError),
    /// The agent could not do it.
    #[error("the agent in the guest: {0}")]
    Refused(String),
    /// The agent answered something that does not belong to the question.
    #[error("the agent in the guest gave an answer that does not fit")]
    Confused,
    /// The agent gave no answer in time.
    #[error("the agent in the guest gave no answer within {0} s")]
    TimedOut(u64),
    /// The guest's process has ended.
    #[error("the guest has ended")]
    Ended,
    /// The agent speaks another protocol.
    #[error(
        "the agent in the guest speaks protocol {found}, this hearth {expected}; prepare the base image again"
    )]
    Protocol {
        /// The agent's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A snapshot of a later hearth.
    #[error("the snapshot has format {found}, this hearth reads 1 to {newest}")]
    Format {
        /// The snapshot's.
        found: u64,
        /// The newest we read.
        newest: u64,
    },
    /// A snapshot whose guest runs another kernel.
    #[error("the snapshot's guest runs kernel {found}, this node boots {expected}")]
    Kernel {
        /// The guest's.
        found: String,
        /// The node's.
        expected: String,
    },
    /// A snapshot that cannot be used.
    #[error("snapshot {path}: {cause}")]
    Snapshot {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The system refused.
    #[error("{context}: {cause}")]
    Io {
        /// What was tried.
        context: String,
        /// The system's error.
        cause: io::Error,
    },
}

impl GuestError {
    /// Wraps a system error with what was tried.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> GuestError {
        let context = context.into();
        move |cause| GuestError::Io { context, cause }
    }

    /// Whether a snapshot is whole, but another node's: made by another VMM, processor, agent, kernel or
    /// format.
    pub fn is_foreign(&self) -> bool {
        matches!(
            self,
            GuestError::Protocol { .. }
                | GuestError::Format { .. }
                | GuestError::Kernel { .. }
                | GuestError::Vmm(VmmError::Platform { .. })
        )
    }

    /// Whether a full disk is to blame.
    pub fn is_disk_full(&self) -> bool {
        match self {
            GuestError::Vmm(error) => error.is_disk_full(),
            GuestError::Io { cause, .. } => cause.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
