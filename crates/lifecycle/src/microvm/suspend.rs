//! Suspend: hook → freeze → pause → answer → device state and delta → written down → the process ends.
//!
//! Until the last step the guest is there and can go on: a request, a resume, or a full disk cancels the suspend.

use hearth_agent_protocol::Freeze;
use hearth_guest::{Guest, GuestError, Snapshot};
use hearth_storage::durable;
use hearth_wire::{ApiError, Timestamp, texts};
use tokio::{sync::oneshot, task::JoinHandle, time::sleep_until};

use super::{
    meter,
    policy::{Decision, Request},
    record::Stage,
    shared::Message,
    task::{ENDED, SUCCESS, Task},
};
use crate::{
    hooks::{HookName, enabled},
    node::{scratch_of, suspended_of, untouched},
};

type Reply = oneshot::Sender<Result<(), ApiError>>;

impl Task {
    /// Running → Suspended, or Running again, or Terminated when the hook refuses.
    pub(super) async fn suspend(&mut self, reply: Option<Reply>) {
        let snapshot = match self.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::error!(microvm = self.record.id, %error, "a MicroVM that could not be resumed is not suspended");
                self.traffic.touch();
                return answer(
                    reply,
                    Err(texts::microvm_of_another_node(&self.record.id, &error)),
                );
            }
        };
        self.shut_gate();
        self.record.suspends += 1;
        if let Err(error) = self.set(Stage::Suspending).await {
            tracing::error!(microvm = self.record.id, %error, "a suspend could not be written down");
            self.open_gate();
            return answer(reply, Err(ApiError::internal()));
        }
        let Some(guest) = self.guest.clone() else {
            return self.terminate(ENDED).await;
        };
        if let Some(hook) = enabled(self.record.hooks.as_ref(), HookName::Suspend) {
            let called = guest
                .while_it_lives(hook.call(guest.agent(), String::new()))
                .await;
            let refused = match called {
                Ok(outcome) => outcome.err(),
                Err(GuestError::Ended) => Some(ENDED.to_owned()),
                // The application has not refused.
                Err(error) => return self.cannot_suspend(reply, &error).await,
            };
            if let Some(reason) = refused {
                answer(reply, Ok(()));
                return self.terminate(&reason).await;
            }
        }
        match self.stand_still(&guest).await {
            Ok(()) => answer(reply, Ok(())),
            Err(error) => return self.cannot_suspend(reply, &error).await,
        }
        self.write_out(guest, snapshot).await;
    }

    async fn cannot_suspend(&mut self, reply: Option<Reply>, error: &GuestError) {
        tracing::error!(microvm = self.record.id, %error, "a suspend failed; the MicroVM goes on");
        answer(reply, Err(ApiError::internal()));
        self.undo_suspend(false).await;
    }

    /// After a resume hook failed: back to sleep without asking the application again.
    pub(super) async fn suspend_again(&mut self, reason: &str) {
        tracing::info!(
            microvm = self.record.id,
            reason,
            "the resume hook failed; suspending again"
        );
        let Some(guest) = self.guest.clone() else { return };
        let still = self.stand_still(&guest).await.and_then(|()| self.snapshot());
        let snapshot = match still {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::error!(microvm = self.record.id, %error, "a MicroVM could not be suspended again");
                let directory = self.node.microvm_directory(&self.record.id);
                return match untouched(&directory, &suspended_of(&directory, self.record.suspends)) {
                    true => self.back_to_suspended(true).await,
                    // What it is now is nowhere else.
                    false => Box::pin(self.undo_suspend(true)).await,
                };
            }
        };
        self.record.suspends += 1;
        self.set_regardless(Stage::Suspending).await;
        self.write_out(guest, snapshot).await;
    }

    /// From here on neither memory nor disk changes.
    async fn stand_still(&mut self, guest: &Guest) -> Result<(), GuestError> {
        let freeze = guest.agent().freeze(Freeze { for_image: false });
        guest.while_it_lives(freeze).await?;
        self.stop_following();
        guest.pause().await
    }

    /// Writes the guest out while it could still go on; then commits and ends it.
    async fn write_out(&mut self, guest: Guest, snapshot: Snapshot) {
        let mut writing = self.start_writing(guest, snapshot);
        let due = self.next_due();
        loop {
            tokio::select! {
                biased;
                written = &mut writing => return self.commit(written).await,
                () = sleep_until(due) => {
                    writing.abort();
                    return Box::pin(self.apply(Request::Expire, SUCCESS)).await;
                }
                Some(message) = self.mailbox.recv() => {
                    let (wakes, terminates) = match &message {
                        Message::Enter(_) => (self.decide(Request::Enter) == Decision::CancelSuspend, false),
                        Message::Resume(_) => (true, false),
                        Message::Terminate(_) => (false, true),
                        Message::Suspend(_) => (false, false),
                    };
                    if terminates {
                        writing.abort();
                        return Box::pin(self.receive(message)).await;
                    }
                    if wakes {
                        writing.abort();
                        let _written_or_not = writing.await;
                        self.undo_suspend(false).await;
                        return Box::pin(self.receive(message)).await;
                    }
                    Box::pin(self.receive(message)).await;
                }
            }
        }
    }

    fn start_writing(&self, guest: Guest, snapshot: Snapshot) -> JoinHandle<Result<(), GuestError>> {
        let directory = self.node.microvm_directory(&self.record.id);
        let suspended = suspended_of(&directory, self.record.suspends);
        let making = suspended.with_extension("making");
        let scratch = scratch_of(&directory);
        let id = self.record.id.clone();
        tokio::spawn(async move {
            let fresh = making.clone();
            blocking("making room for a suspend", move || std::fs::create_dir(&fresh)).await?;
            let disk = blocking("syncing the scratch disk", move || {
                std::fs::File::open(&scratch)?.sync_all()
            });
            let (summary, disk) = tokio::join!(guest.save(&snapshot, &making), disk);
            let summary = summary?;
            disk?;
            tracing::info!(
                microvm = id,
                written_pages = summary.written_pages,
                data_pages = summary.data_pages,
                file_bytes = summary.file_bytes,
                "delta written"
            );
            blocking("publishing a suspend", move || {
                durable::publish_directory(&making, &suspended)
            })
            .await
        })
    }

    /// Suspending → Suspended once everything lies on disk; the process ends after that is written down.
    async fn commit(&mut self, written: Result<Result<(), GuestError>, tokio::task::JoinError>) {
        let written = written.unwrap_or_else(|error| Err(GuestError::Refused(error.to_string())));
        if let Err(error) = written {
            let full = error.is_disk_full();
            tracing::error!(microvm = self.record.id, %error, full, "a suspend could not be written; the MicroVM goes on");
            return self.undo_suspend(true).await;
        }
        self.record.suspended_at = Some(Timestamp::now());
        if let Err(error) = self.set(Stage::Suspended).await {
            tracing::error!(microvm = self.record.id, %error, "a suspend could not be written down; the MicroVM goes on");
            return self.undo_suspend(true).await;
        }
        let directory = self.node.microvm_directory(&self.record.id);
        let suspended = suspended_of(&directory, self.record.suspends);
        meter::written(&self.node, &self.record, &meter::suspend_files(&suspended));
        if *self.terminate.borrow() {
            return self.terminate(SUCCESS).await;
        }
        self.drop_guest().await;
        self.record.guest = None;
    }
}

async fn blocking<T: Send + 'static>(
    context: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, GuestError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(GuestError::io(context))
}

fn answer(reply: Option<Reply>, answer: Result<(), ApiError>) {
    if let Some(reply) = reply {
        let _caller_gone = reply.send(answer);
    }
}
