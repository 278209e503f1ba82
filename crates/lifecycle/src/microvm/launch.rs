//! Launch from the image's snapshot, resume from a MicroVM's own.

use std::time::Duration;

use hearth_guest::{Guest, GuestError, Idle, Restore};
use hearth_storage::{disk, durable};
use hearth_wire::{ApiError, texts};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    meter,
    record::Stage,
    task::{ENDED, SUCCESS, Task},
};
use crate::{
    hooks::{HookName, enabled},
    node::{scratch_of, suspended_of, written_since},
};

/// For how long, and after which pauses, a guest that stands still is told again to go on.
const GO_ON_AGAIN: Duration = Duration::from_secs(60);
const GO_ON_PAUSE: Duration = Duration::from_secs(1);
/// The reason of a MicroVM that this node failed to launch.
const NOT_STARTED: &str = "The MicroVM could not be started.";

/// Why a launch or resume came to nothing.
enum Failure {
    /// The application's hook; the text is for the record.
    Hook(String),
    /// This node.
    Node(GuestError),
    /// Somebody asked for termination meanwhile.
    Terminated,
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Failure {
        Failure::Node(error)
    }
}

/// Breaks the work off when somebody asks for termination.
async fn unless_asked(
    mut terminate: watch::Receiver<bool>,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        _ = terminate.wait_for(|asked| *asked) => Err(Failure::Terminated),
        done = work => done,
    }
}

impl Task {
    /// Pending → Running, or Terminated.
    pub(super) async fn launch(&mut self) {
        let launched = self.try_launch().await;
        self.refill_pool();
        match launched {
            Ok(()) => {
                self.record.run_hook_payload = None;
                // While the record says PENDING, a later daemon launches anew: nothing may depend on this guest yet.
                match self.set(Stage::Running).await {
                    Ok(()) => self.open_gate(),
                    Err(error) => {
                        tracing::error!(microvm = self.record.id, %error, "a launch could not be written down");
                        self.terminate(NOT_STARTED).await;
                    }
                }
            }
            Err(Failure::Hook(reason)) => self.terminate(&reason).await,
            Err(Failure::Terminated) => self.terminate(SUCCESS).await,
            Err(Failure::Node(error)) => {
                tracing::error!(microvm = self.record.id, %error, "a launch failed");
                self.terminate(NOT_STARTED).await;
            }
        }
    }

    async fn try_launch(&mut self) -> Result<(), Failure> {
        // A former daemon may have got half of the way: what it made is made again.
        self.drop_guest().await;
        let idle = self.process_to_launch().await?;
        unless_asked(self.terminate.clone(), self.launch_in(idle)).await
    }

    /// A process and its scratch disk. It is never broken off: a process on its way would belong to nobody.
    async fn process_to_launch(&mut self) -> Result<Idle, Failure> {
        let directory = self.node.microvm_directory(&self.record.id);
        let scratch = scratch_of(&directory);
        let made = tokio::task::spawn_blocking(move || {
            durable::remove_directory(&directory)?;
            std::fs::create_dir_all(&directory)?;
            disk::give(&directory, None, None, 0o711)
        });
        let made = made.await.map_err(std::io::Error::other).flatten();
        made.map_err(GuestError::io("making the MicroVM's directory"))?;
        let snapshot = self.snapshot()?;
        let idle = self.node.pool.take_with_scratch(&snapshot, &scratch).await?;
        self.record.guest = Some(idle.record());
        self.starting = Some(idle.guest());
        Ok(idle)
    }

    async fn launch_in(&mut self, idle: Idle) -> Result<(), Failure> {
        let directory = self.node.microvm_directory(&self.record.id);
        self.serve_metadata(idle.slot());
        let restored = idle
            .restore(&Restore {
                disks: vec![Some(scratch_of(&directory))],
                suspended: None,
                egress: self.egress(),
            })
            .await;
        self.starting = None;
        let guest = restored?;
        self.guest = Some(guest.clone());
        let snapshot = self.snapshot()?;
        meter::read(&self.node, &self.record, &meter::snapshot_files(&snapshot));
        let started = async {
            // Outbound connections were closed before the snapshot was taken.
            guest.agent().thaw(false).await?;
            self.follow_output();
            if let Some(hook) = enabled(self.record.hooks.as_ref(), HookName::Run) {
                let payload = self
                    .record
                    .run_hook_payload
                    .as_ref()
                    .map_or("", |payload| payload.0.as_str());
                let body = serde_json::json!({ "microvmId": self.record.id, "runHookPayload": payload });
                hook.call(guest.agent(), body.to_string())
                    .await?
                    .map_err(Failure::Hook)?;
            }
            Ok(())
        };
        guest.while_it_lives(started).await
    }

    /// Suspended → Running; on failure Suspended again. The gate tells what came of it.
    pub(super) async fn resume(&mut self) -> Result<(), ApiError> {
        let resumed = self.try_resume().await;
        self.refill_pool();
        self.settle(resumed).await
    }

    /// What comes of a resume: Running, or Suspended again.
    async fn settle(&mut self, resumed: Result<(), Failure>) -> Result<(), ApiError> {
        match resumed {
            Ok(()) => {
                self.running_again().await;
                Ok(())
            }
            Err(Failure::Terminated) => {
                self.terminate(SUCCESS).await;
                Ok(())
            }
            // The application refused: that is its answer, not this service's failure. The state tells.
            Err(Failure::Hook(reason)) => {
                self.suspend_again(&reason).await;
                Ok(())
            }
            Err(Failure::Node(error)) => {
                tracing::error!(microvm = self.record.id, %error, "a resume failed");
                // A VMM that fails may have let its guest run for a moment before.
                let may_have_run = matches!(error, GuestError::Vmm(_));
                self.back_to_suspended(may_have_run).await;
                Err(match error.is_foreign() {
                    true => texts::microvm_of_another_node(&self.record.id, &error),
                    false => ApiError::internal(),
                })
            }
        }
    }

    async fn try_resume(&mut self) -> Result<(), Failure> {
        let idle = self.process_to_resume().await?;
        unless_asked(self.terminate.clone(), self.resume_in(idle)).await
    }

    /// A process, written down. As for a launch, it is never broken off.
    async fn process_to_resume(&mut self) -> Result<Idle, Failure> {
        let snapshot = self.snapshot()?;
        let idle = self.node.pool.take(&snapshot).await?;
        self.record.guest = Some(idle.record());
        // From here on the guest may write its disk, so the files of the suspend are no longer the whole truth.
        if let Err(error) = self.set(Stage::Resuming).await {
            idle.discard().await;
            self.record.guest = None;
            return Err(GuestError::io("writing the record")(std::io::Error::other(error)).into());
        }
        self.starting = Some(idle.guest());
        Ok(idle)
    }

    async fn resume_in(&mut self, idle: Idle) -> Result<(), Failure> {
        let directory = self.node.microvm_directory(&self.record.id);
        let suspended = suspended_of(&directory, self.record.suspends);
        let parts = Restore {
            disks: vec![Some(scratch_of(&directory))],
            suspended: Some(suspended.clone()),
            egress: self.egress(),
        };
        // From the first instruction on it may hold what is nowhere else.
        idle.guest().treasure();
        self.serve_metadata(idle.slot());
        let restored = idle.restore(&parts).await;
        self.starting = None;
        let guest = restored?;
        self.guest = Some(guest.clone());
        meter::read(&self.node, &self.record, &meter::suspend_files(&suspended));
        self.wake(&guest, true).await
    }

    /// Tells a restored guest the time and calls `/resume`.
    async fn wake(&mut self, guest: &Guest, close_connections: bool) -> Result<(), Failure> {
        let woken = async {
            guest.agent().thaw(close_connections).await?;
            if let Some(hook) = enabled(self.record.hooks.as_ref(), HookName::Resume) {
                hook.call(guest.agent(), String::new())
                    .await?
                    .map_err(Failure::Hook)?;
            }
            Ok(())
        };
        guest.while_it_lives(woken).await
    }

    /// After a wake: write it down, open the gate, forget the files of the suspend.
    async fn running_again(&mut self) {
        self.record.suspended_at = None;
        self.set_regardless(Stage::Running).await;
        self.open_gate();
        self.forget_suspends().await;
    }

    /// Removes the files of all suspends of a MicroVM that runs.
    async fn forget_suspends(&self) {
        let directory = self.node.microvm_directory(&self.record.id);
        let removed = tokio::task::spawn_blocking(move || {
            let entries = std::fs::read_dir(directory)?.flatten();
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("suspended-"))
                .try_for_each(|entry| durable::remove_directory(&entry.path()))
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(microvm = self.record.id, %error, "an old suspend's files stay behind");
        }
    }

    /// A former daemon's resume: its guest runs already, or nothing has happened yet.
    pub(super) async fn finish_resume(&mut self) {
        let Some(guest) = self.guest.clone() else {
            return self.back_to_suspended(false).await;
        };
        let woken = self.wake(&guest, true).await;
        let _gate_tells = self.settle(woken).await;
    }

    /// Suspending → Running: the guest stood still and goes on as if nothing had been. One whose resume hook fails sleeps
    /// again; if it is undone because it `cannot_be_written`, it runs on all the same.
    pub(super) async fn undo_suspend(&mut self, cannot_be_written: bool) {
        let Some(guest) = self.guest.clone() else {
            return self.terminate(ENDED).await;
        };
        // What was written so far must not be taken for the truth once the guest moves on.
        self.record.suspended_at = None;
        self.record.suspends += 1;
        if let Err(error) = self.set(Stage::Suspending).await {
            tracing::error!(microvm = self.record.id, %error, "the end of a suspend could not be written down");
            self.forget_suspends().await;
        }
        match unless_asked(self.terminate.clone(), self.go_on(&guest)).await {
            Ok(()) => self.running_again().await,
            // Its state is nowhere else.
            Err(Failure::Hook(reason)) if cannot_be_written => {
                tracing::error!(
                    microvm = self.record.id,
                    reason,
                    "the resume hook failed, and a suspend cannot be written: it runs on"
                );
                self.running_again().await;
            }
            Err(Failure::Hook(reason)) => Box::pin(self.suspend_again(&reason)).await,
            Err(Failure::Terminated) => self.terminate(SUCCESS).await,
            Err(Failure::Node(error)) => {
                tracing::error!(microvm = self.record.id, %error, "a suspend could not be undone");
                self.terminate(ENDED).await;
            }
        }
    }

    /// Lets a guest that stands still run again. Its state is nowhere else, so what this node fails to do is tried again.
    async fn go_on(&mut self, guest: &Guest) -> Result<(), Failure> {
        let end = Instant::now() + GO_ON_AGAIN;
        loop {
            let woken = async {
                guest.resume().await?;
                self.wake(guest, false).await
            };
            match woken.await {
                Err(Failure::Node(error)) if !matches!(error, GuestError::Ended) && Instant::now() < end => {
                    tracing::error!(microvm = self.record.id, %error, "a MicroVM does not go on yet");
                }
                woken => return woken,
            }
            tokio::select! {
                () = guest.vm().ended() => return Err(GuestError::Ended.into()),
                () = sleep(GO_ON_PAUSE) => {}
            }
        }
    }

    /// Ends a guest that could not be resumed. The files of the suspend are as good as before unless it has written its disk. Where
    /// nobody knows whether one ran (`may_have_run`), missing files are no sign that it did: they may come back.
    pub(super) async fn back_to_suspended(&mut self, may_have_run: bool) {
        let has_run = self.guest.is_some();
        self.drop_guest().await;
        let directory = self.node.microvm_directory(&self.record.id);
        let written = written_since(&directory, &suspended_of(&directory, self.record.suspends));
        if (has_run && written != Some(false)) || (may_have_run && written == Some(true)) {
            return self.terminate("The MicroVM could not be resumed.").await;
        }
        self.record.guest = None;
        self.set_regardless(Stage::Suspended).await;
    }
}
