//! The part of a MicroVM that others see: its latest record, its mailbox, its traffic.

use std::sync::Arc;

use hearth_guest::Agent;
use hearth_wire::ApiError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{activity::Traffic, gate::GateError, record::MicrovmRecord};

/// What others send to the task that owns the MicroVM.
pub(crate) enum Message {
    /// SuspendMicrovm; answered when memory and disk stand still.
    Suspend(oneshot::Sender<Result<(), ApiError>>),
    /// ResumeMicrovm; answered when the MicroVM runs.
    Resume(oneshot::Sender<Result<(), ApiError>>),
    /// TerminateMicrovm; answered when no request is served any more.
    Terminate(oneshot::Sender<Result<(), ApiError>>),
    /// A request waits at the gate.
    Enter(oneshot::Sender<Result<Open, GateError>>),
}

/// An open gate: the way to the guest, until it is suspended.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub agent: Agent,
    /// Counts restores: connections of an earlier one are dead.
    pub generation: u64,
}

/// A MicroVM as others see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Microvm {
    pub mailbox: mpsc::Sender<Message>,
    pub record: watch::Receiver<MicrovmRecord>,
    pub open: watch::Receiver<Option<Open>>,
    /// Set when termination was asked for: what goes on is broken off.
    pub terminate: watch::Sender<bool>,
    pub traffic: Arc<Traffic>,
    /// Places for requests that wait at the gate.
    pub waiting: Arc<Semaphore>,
}

/// Requests that may wait at the gate of one MicroVM. They are let in in the order they came; what is asked of the
/// control plane meanwhile still finds room in the mailbox.
pub(super) const MOST_WAITING: usize = 512;

impl Microvm {
    /// A MicroVM without a task, for it is terminated: nothing can be asked of it any more.
    pub(crate) fn at_rest(record: MicrovmRecord) -> Microvm {
        let (mailbox, _) = mpsc::channel(1);
        let (_, record) = watch::channel(record);
        let (_, open) = watch::channel(None);
        let (terminate, _) = watch::channel(false);
        Microvm {
            mailbox,
            record,
            open,
            terminate,
            traffic: Arc::new(Traffic::new()),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
        }
    }
}
