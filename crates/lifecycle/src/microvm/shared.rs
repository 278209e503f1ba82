//! The part of a MicroVM that others see: its latest record, its mailbox, its traffic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearth_guest::Agent;
use hearth_wire::ApiError;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{gate::GateError, record::MicrovmRecord};

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
}

/// Endpoint traffic, as far as the idle policy looks at it (spec section 16).
#[derive(Debug)]
pub(crate) struct Traffic {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
    /// Requests without response headers yet.
    pending: AtomicUsize,
    /// Bytes since the meters last looked.
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    pub(crate) fn new() -> Traffic {
        Traffic {
            started: Instant::now(),
            last: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Counts bytes to and from the application.
    pub(crate) fn count(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// The bytes counted since this was last asked, to and from the application.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        (
            self.received.swap(0, Ordering::Relaxed),
            self.sent.swap(0, Ordering::Relaxed),
        )
    }

    /// Bytes moved.
    pub(crate) fn touch(&self) {
        self.last
            .store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// A request was sent in.
    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    /// Its response has begun, or it is given up.
    pub(crate) fn end(&self) {
        self.touch();
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// When the MicroVM has been idle for `longest`, as far as can be said now.
    pub(crate) fn idle_at(&self, longest: Duration) -> Instant {
        match self.pending.load(Ordering::Relaxed) {
            0 => self.started + Duration::from_millis(self.last.load(Ordering::Relaxed)) + longest,
            _ => Instant::now() + longest,
        }
    }
}

impl Microvm {
    /// A MicroVM without a task: nothing can be asked of it any more.
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
        }
    }
}
