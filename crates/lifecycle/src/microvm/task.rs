//! One task owns one MicroVM. Others send it messages; it asks the policy, acts, writes down and publishes.

use std::{sync::Arc, time::Duration};

use hearth_agent_protocol::ExitStatus;
use hearth_guest::{Guest, GuestError, GuestRecord, Snapshot};
use hearth_metadata::{Lease, Serving, Subject};
use hearth_network::{Egress, Slot};
use hearth_state::Table;
use hearth_wire::{ApiError, Timestamp, types::Logging};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    activity::{CpuWatch, Traffic},
    gate::GateError,
    meter,
    output::{Follower, log_of},
    policy::{Decision, Request, decide},
    record::{MicrovmRecord, Stage},
    shared::{MOST_WAITING, Message, Microvm, Open},
};
use crate::{
    hooks::{HookName, enabled},
    node::Node,
};

/// Messages that may wait while the task is busy: held requests, and as many of the control plane.
const MAILBOX: usize = 2 * MOST_WAITING;
/// Longest time that the next process waits for this one's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// The reason of a MicroVM whose life ended as planned (spec section 15).
pub(super) const SUCCESS: &str = "Success.";
/// That of one whose process is gone.
pub(super) const ENDED: &str = "The MicroVM ended unexpectedly.";

/// The task's own state.
pub(crate) struct Task {
    pub(super) node: Arc<Node>,
    pub(super) record: MicrovmRecord,
    /// What it was launched from; `None` while this node cannot load it.
    snapshot: Option<Snapshot>,
    pub(super) guest: Option<Guest>,
    /// A process that a launch or resume is giving its state; it is ended here when that is broken off.
    pub(super) starting: Option<Guest>,
    follower: Option<Follower>,
    exits: (mpsc::Sender<ExitStatus>, mpsc::Receiver<ExitStatus>),
    pub(super) mailbox: mpsc::Receiver<Message>,
    pub(super) terminate: watch::Receiver<bool>,
    published: watch::Sender<MicrovmRecord>,
    gate: watch::Sender<Option<Open>>,
    pub(super) traffic: Arc<Traffic>,
    /// Runs once the endpoint has been quiet for long, where the CPU counts.
    cpu: Option<CpuWatch>,
    generation: u64,
    /// The guest's metadata service; there as long as the guest is.
    metadata: Option<Serving>,
}

/// What woke the task.
enum Event {
    Message(Message),
    Exited(ExitStatus),
    VmmEnded,
    Due,
    TerminateAsked,
    DaemonStops,
}

impl Task {
    /// Starts the task of a MicroVM: a new one, or one of a former daemon with the guest that was found again.
    pub(crate) fn start(
        node: Arc<Node>,
        record: MicrovmRecord,
        snapshot: Option<Snapshot>,
        guest: Option<Guest>,
    ) -> Microvm {
        let (messages, mailbox) = mpsc::channel(MAILBOX);
        let (published, seen) = watch::channel(record.clone());
        let (gate, open) = watch::channel(None);
        let (terminate, terminate_asked) = watch::channel(false);
        let traffic = Arc::new(Traffic::new());
        let task = Task {
            node,
            record,
            snapshot,
            guest,
            starting: None,
            follower: None,
            exits: mpsc::channel(1),
            mailbox,
            terminate: terminate_asked,
            published,
            gate,
            traffic: traffic.clone(),
            cpu: None,
            generation: 0,
            metadata: None,
        };
        tokio::spawn(task.run());
        Microvm {
            mailbox: messages,
            record: seen,
            open,
            terminate,
            traffic,
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
        }
    }

    /// The snapshot it was launched from. An operator may bring back what it needs at any time.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, GuestError> {
        if let Some(snapshot) = &self.snapshot {
            return Ok(snapshot.clone());
        }
        let directory = self
            .node
            .snapshot_directory(&self.record.image_id, self.record.snapshot());
        let snapshot = self.node.host.open_snapshot(&directory)?;
        Ok(self.snapshot.insert(snapshot).clone())
    }

    /// Has a process started ahead for the next MicroVM of this snapshot: once this one has given its first answer, which that
    /// would only slow down, or has had the time for it.
    pub(super) fn refill_pool(&self) {
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        let (pool, traffic) = (self.node.pool.clone(), self.traffic.clone());
        tokio::spawn(async move {
            let _answered_or_not = tokio::time::timeout(FIRST_ANSWER, traffic.answered()).await;
            pool.refill(&snapshot);
        });
    }

    async fn run(mut self) {
        self.begin().await;
        while self.record.stage != Stage::Terminated {
            match self.next_event().await {
                Event::Message(message) => self.receive(message).await,
                Event::Exited(status) => {
                    self.apply(
                        Request::Exit,
                        &format!("Container Stopped with Exit Code: {}", status.code()),
                    )
                    .await;
                }
                Event::VmmEnded => {
                    if let Some(guest) = &self.guest {
                        let console = guest.last_words().await;
                        tracing::warn!(microvm = self.record.id, %console, "a MicroVM's process has ended");
                    }
                    self.apply(Request::Exit, ENDED).await
                }
                Event::TerminateAsked => self.apply(Request::Terminate, SUCCESS).await,
                Event::Due => self.act_on_time().await,
                Event::DaemonStops => return,
            }
        }
    }

    /// Brings a MicroVM on its way, or a former daemon's back to where it was.
    async fn begin(&mut self) {
        if let Some(guest) = self.guest.clone() {
            self.serve_metadata(guest.slot());
        }
        match self.record.stage {
            Stage::Pending => self.launch().await,
            Stage::Running if self.guest.is_none() => {
                self.terminate("The MicroVM ended with its host.").await
            }
            Stage::Running => self.open_gate(),
            // The process still stands: the suspend had not ended, so it is undone.
            Stage::Suspending => self.undo_suspend(false).await,
            Stage::Resuming => self.finish_resume().await,
            Stage::Terminating => {
                let reason = self.record.state_reason.clone().unwrap_or_else(|| SUCCESS.into());
                self.terminate(&reason).await;
            }
            Stage::Suspended | Stage::Terminated => {}
        }
    }

    async fn next_event(&mut self) -> Event {
        let due = self.next_due();
        let vmm = self.guest.as_ref().map(|guest| guest.vm().clone());
        tokio::select! {
            biased;
            _ = self.terminate.wait_for(|asked| *asked) => Event::TerminateAsked,
            Some(status) = self.exits.1.recv() => Event::Exited(status),
            () = async { match vmm { Some(vm) => vm.ended().await, None => std::future::pending().await } } => Event::VmmEnded,
            message = self.mailbox.recv() => message.map_or(Event::DaemonStops, Event::Message),
            () = sleep_until(due) => Event::Due,
        }
    }

    /// The next moment at which time itself asks for something.
    pub(super) fn next_due(&self) -> Instant {
        let mut due = self.at(self.record.started_at, self.record.maximum_duration_seconds);
        if let Some(policy) = &self.record.idle_policy {
            if self.record.stage == Stage::Running {
                due = due.min(self.idle_at(policy.max_idle_duration_seconds));
            }
            if let (Stage::Suspended, Some(since)) = (self.record.stage, self.record.suspended_at) {
                due = due.min(self.at(since, policy.suspended_duration_seconds));
            }
        }
        due
    }

    async fn act_on_time(&mut self) {
        if is_over(self.record.started_at, self.record.maximum_duration_seconds) {
            return self.apply(Request::Expire, SUCCESS).await;
        }
        let Some(policy) = self.record.idle_policy else {
            return;
        };
        match (self.record.stage, self.record.suspended_at) {
            (Stage::Running, _)
                if self.idle_at(policy.max_idle_duration_seconds) <= Instant::now() && !self.is_working() =>
            {
                self.cpu = None;
                self.apply(Request::Idle, SUCCESS).await;
            }
            (Stage::Suspended, Some(since)) if is_over(since, policy.suspended_duration_seconds) => {
                self.apply(Request::Expire, SUCCESS).await;
            }
            _ => {}
        }
    }

    fn idle_at(&self, seconds: u32) -> Instant {
        let rules = self.node.config.busy;
        let due = self.traffic.idle_at(Duration::from_secs(seconds.into()), rules);
        match &self.cpu {
            Some(watch) => due.max(watch.end()),
            None => due,
        }
    }

    /// Whether its CPU alone keeps it running, or has yet to be watched.
    fn is_working(&mut self) -> bool {
        let limit = self.node.config.busy.cpu_percent;
        let Some(guest) = self.guest.as_ref().filter(|_| limit > 0) else {
            return false;
        };
        let pid = guest.vm().process().pid;
        let Some(watch) = &mut self.cpu else {
            self.cpu = CpuWatch::begin(pid);
            return self.cpu.is_some();
        };
        let percent = watch.look(pid).unwrap_or(0);
        self.traffic.saw_cpu(percent);
        percent >= limit
    }

    /// `seconds` after a moment of the wall clock.
    fn at(&self, since: Timestamp, seconds: u32) -> Instant {
        let end = since.plus(Duration::from_secs(seconds.into()));
        Instant::now() + end.since(Timestamp::now())
    }

    /// Carries out what time, the guest or a termination asks for.
    pub(super) async fn apply(&mut self, request: Request, reason: &str) {
        match decide(self.record.stage, request, self.record.idle_policy.as_ref()) {
            Decision::Suspend => self.suspend(None).await,
            Decision::Terminate => self.terminate(reason).await,
            Decision::Nothing | Decision::Join | Decision::Refuse(_) | Decision::Open => {}
            Decision::Resume | Decision::CancelSuspend => {}
        }
    }

    pub(super) async fn receive(&mut self, message: Message) {
        match message {
            Message::Suspend(reply) => match self.decide(Request::Suspend) {
                Decision::Suspend => self.suspend(Some(reply)).await,
                decision => answer(reply, decision, &self.record.id),
            },
            Message::Resume(reply) => match self.decide(Request::Resume) {
                Decision::Resume => {
                    let _caller_gone = reply.send(self.resume().await);
                }
                decision => answer(reply, decision, &self.record.id),
            },
            Message::Terminate(reply) => {
                self.apply(Request::Terminate, SUCCESS).await;
                let _caller_gone = reply.send(Ok(()));
            }
            Message::Enter(reply) => {
                if self.decide(Request::Enter) == Decision::Resume {
                    let _gate_tells = self.resume().await;
                }
                let open = self.gate.borrow().clone();
                let _request_gone = reply.send(open.ok_or(GateError::Closed));
            }
        }
    }

    pub(super) fn decide(&self, request: Request) -> Decision {
        decide(self.record.stage, request, self.record.idle_policy.as_ref())
    }

    /// Opens the gate and follows the application's output, if nobody does yet.
    pub(super) fn open_gate(&mut self) {
        let Some(guest) = &self.guest else { return };
        guest.treasure();
        self.generation += 1;
        self.traffic.touch();
        self.gate.send_replace(Some(Open {
            agent: guest.agent().clone(),
            generation: self.generation,
        }));
        self.follow_output();
    }

    pub(super) fn shut_gate(&mut self) {
        self.gate.send_replace(None);
    }

    /// Follows the application's output, from where that was left.
    pub(super) fn follow_output(&mut self) {
        if self.follower.as_ref().is_some_and(Follower::follows) {
            return;
        }
        self.stop_following();
        let Some(guest) = &self.guest else { return };
        let (agent, from, exits) = (
            guest.agent().clone(),
            self.record.output_position,
            self.exits.0.clone(),
        );
        self.follower = Some(Follower::start(
            agent,
            from,
            log_of(&self.node, &self.record),
            exits,
        ));
    }

    /// Stops following and remembers how far it went.
    pub(super) fn stop_following(&mut self) {
        if let Some(follower) = self.follower.take() {
            self.record.output_position = follower.stop();
        }
    }

    /// Writes the record down, then shows it.
    pub(super) async fn set(&mut self, stage: Stage) -> Result<(), hearth_state::StateError> {
        // What has been used until now was used in the stage that ends.
        meter::advance(&self.node, &self.record, &self.traffic);
        let changed = MicrovmRecord {
            stage,
            ..self.record.clone()
        };
        self.node
            .state
            .put(Table::Microvms, &changed.id, &changed.account, &changed)
            .await?;
        tracing::info!(microvm = changed.id, from = ?self.record.stage, to = ?stage, "stage");
        self.record = changed;
        self.published.send_replace(self.record.clone());
        Ok(())
    }

    /// As [`Task::set`] where there is no way back: what cannot be written is reported and shown all the same.
    pub(super) async fn set_regardless(&mut self, stage: Stage) {
        if let Err(error) = self.set(stage).await {
            tracing::error!(microvm = self.record.id, %error, "a stage could not be written down");
            self.record.stage = stage;
            self.published.send_replace(self.record.clone());
        }
    }

    /// Ends the MicroVM: hook, guest, files.
    pub(super) async fn terminate(&mut self, reason: &str) {
        self.shut_gate();
        let was_running = self.record.stage == Stage::Running;
        self.record.state_reason = Some(reason.to_owned());
        self.set_regardless(Stage::Terminating).await;
        let application_ended = reason != SUCCESS;
        let hook = enabled(self.record.hooks.as_ref(), HookName::Terminate);
        if let (Some(guest), Some(hook), true, false) = (&self.guest, hook, was_running, application_ended) {
            // It is terminated whatever the hook says (spec section 13.3).
            let outcome = hook.call(guest.agent(), String::new()).await;
            if let Err(cause) = outcome.map_err(|error| error.to_string()).flatten() {
                tracing::info!(microvm = self.record.id, cause, "the terminate hook failed");
            }
        }
        if let (Some(follower), Some(Logging::CloudWatch(_))) = (&self.follower, &self.record.logging) {
            follower.catch_up().await;
        }
        self.drop_guest().await;
        self.stop_following();
        let directory = self.node.microvm_directory(&self.record.id);
        let removed =
            tokio::task::spawn_blocking(move || hearth_storage::durable::remove_directory(&directory)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(microvm = self.record.id, %error, "files of a terminated MicroVM stay behind");
        }
        self.record.terminated_at = Some(Timestamp::now());
        self.record.guest = None;
        self.record.run_hook_payload = None;
        self.set_regardless(Stage::Terminated).await;
    }

    /// A guest that is only found again to be ended: it reaches nothing.
    async fn find_closed(&self, record: &GuestRecord) -> Option<Guest> {
        let nothing = Egress { outlets: Vec::new() };
        self.node.host.adopt(record, nothing).await.ok().flatten()
    }

    /// What the guest may reach, by what the operator has configured now.
    pub(super) fn egress(&self) -> Egress {
        self.node.config.network.egress(&self.record.ways)
    }

    /// Tells the guest of a slot who it is, from before it runs.
    pub(super) fn serve_metadata(&mut self, slot: &Slot) {
        self.metadata = None;
        let subject = Subject {
            id: self.record.id.clone(),
            region: self.record.region.clone(),
            role_arn: self.record.execution_role_arn.clone(),
        };
        let lease = self
            .node
            .config
            .busy
            .leases
            .then(|| self.traffic.clone() as Arc<dyn Lease>);
        self.metadata = self.node.serve_metadata(slot, subject, lease);
    }

    /// Ends the guest, also one that is known by its record alone.
    pub(super) async fn drop_guest(&mut self) {
        self.metadata = None;
        let known = self.guest.take().or(self.starting.take());
        let guest = match (known, &self.record.guest) {
            (Some(guest), _) => Some(guest),
            (None, Some(record)) => self.find_closed(record).await,
            (None, None) => None,
        };
        if let Some(guest) = guest {
            guest.destroy().await;
        }
    }
}

/// Whether `seconds` have passed since a moment of the wall clock.
fn is_over(since: Timestamp, seconds: u32) -> bool {
    Timestamp::now() >= since.plus(Duration::from_secs(seconds.into()))
}

/// Answers a request that needs no action of this task now.
fn answer(reply: oneshot::Sender<Result<(), ApiError>>, decision: Decision, id: &str) {
    let answer = match decision {
        Decision::Refuse(refusal) => Err(refusal.error(id)),
        _ => Ok(()),
    };
    let _caller_gone = reply.send(answer);
}
