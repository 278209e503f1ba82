//! `hearth suspend`, `resume` and `terminate`, and waiting for a MicroVM's state.

use std::time::{Duration, Instant};

use aws_sdk_lambdamicrovms::types::MicrovmState;
use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{Out, spinner};
use crate::service::Service;
use crate::vm::id;

/// How long a MicroVM may take to get where it was sent: hooks may take a minute each.
const PATIENCE: Duration = Duration::from_secs(180);

/// The MicroVMs to act on.
#[derive(Args)]
pub(crate) struct Ids {
    /// Ids, or beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// What can be done to a MicroVM.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Keep its state on disk, free its memory.
    Suspend,
    /// Let it run again.
    Resume,
    /// End it for good.
    Terminate,
}

impl Ids {
    /// Applies `change` to each; goes on after a failure, and fails in the end.
    pub(crate) async fn run(self, change: Change, service: &Service, out: Out) -> Result<()> {
        let mut failed = false;
        for typed in &self.ids {
            match apply(change, service, typed).await {
                Ok(id) => {
                    let state = change.target().to_string();
                    out.print(json!({ "microvmId": id, "state": state }), || {
                        format!("{id} {state}")
                    })?;
                }
                Err(error) if self.ids.len() == 1 => return Err(error),
                Err(error) => {
                    failed = true;
                    eprintln!("hearth: {typed}: {}", error.line().unwrap_or_default());
                }
            }
        }
        if failed { Err(Error::Exit(1)) } else { Ok(()) }
    }
}

async fn apply(change: Change, service: &Service, typed: &str) -> Result<String> {
    let id = id::resolve(service, typed).await?;
    let bar = spinner(format!("{} {id}", change.doing()));
    let result = change.apply(service, &id).await;
    bar.finish_and_clear();
    result.map(|()| id)
}

impl Change {
    /// Asks for the change and waits until it has happened.
    pub(crate) async fn apply(self, service: &Service, id: &str) -> Result<()> {
        let client = &service.microvms;
        let asked = match self {
            Self::Suspend => client
                .suspend_microvm()
                .microvm_identifier(id)
                .send()
                .await
                .map(drop)
                .map_err(|e| service.error(e)),
            Self::Resume => client
                .resume_microvm()
                .microvm_identifier(id)
                .send()
                .await
                .map(drop)
                .map_err(|e| service.error(e)),
            Self::Terminate => client
                .terminate_microvm()
                .microvm_identifier(id)
                .send()
                .await
                .map(drop)
                .map_err(|e| service.error(e)),
        };
        asked?;
        wait(service, id, self.target(), Duration::from_millis(50)).await
    }

    fn target(self) -> MicrovmState {
        match self {
            Self::Suspend => MicrovmState::Suspended,
            Self::Resume => MicrovmState::Running,
            Self::Terminate => MicrovmState::Terminated,
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Suspend => "suspending",
            Self::Resume => "resuming",
            Self::Terminate => "terminating",
        }
    }
}

/// Asks every `pause` until the MicroVM is in `target`; an end it did not ask for is an error.
pub(crate) async fn wait(service: &Service, id: &str, target: MicrovmState, pause: Duration) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let vm = match id::get(service, id).await {
            // Gone is as ended as can be.
            Err(error) if error.is_not_found() && target == MicrovmState::Terminated => return Ok(()),
            other => other?,
        };
        if vm.state == target {
            return Ok(());
        }
        if vm.state == MicrovmState::Terminated {
            let reason = vm
                .state_reason
                .unwrap_or_else(|| "no reason was recorded".to_owned());
            return Err(Error::failed(
                format!("{id} has ended: {reason}"),
                format!("See `hearth logs {id}`"),
            ));
        }
        if Instant::now() > deadline {
            let cause = format!("{id} is still {} after {} s", vm.state, PATIENCE.as_secs());
            return Err(Error::failed(cause, "See the daemon's log"));
        }
        tokio::time::sleep(pause).await;
    }
}
