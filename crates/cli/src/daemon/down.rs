//! `hearth down`: stop the daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_lambdamicrovms::types::MicrovmState;
use clap::Args;
use futures::future::join_all;
use serde_json::json;

use crate::daemon::process::Daemon;
use crate::error::{Error, Result};
use crate::output::{Out, spinner};
use crate::service::Service;
use crate::settings::{Settings, data_dir};
use crate::vm::{change, id};

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the daemon.
#[derive(Args)]
pub(crate) struct Down {
    /// Terminate every MicroVM first
    #[arg(long)]
    all: bool,
    /// Leave MicroVMs running, which is the default
    #[arg(long, conflicts_with = "all")]
    keep_vms: bool,
}

impl Down {
    /// Runs the command.
    pub(crate) async fn run(self, data_option: Option<&Path>, out: Out) -> Result<()> {
        let data = data_dir(data_option);
        let Some(daemon) = Daemon::find(&data) else {
            return out.print(json!({ "stopped": false }), || {
                "hearthd is not running".to_owned()
            });
        };
        let terminated = if self.all {
            terminate_all(&data).await?
        } else {
            Vec::new()
        };
        let bar = spinner("stopping hearthd");
        daemon.stop()?;
        let deadline = Instant::now() + PATIENCE;
        while daemon.lives() {
            if Instant::now() > deadline {
                let cause = format!(
                    "hearthd (pid {}) did not stop within {} s",
                    daemon.pid,
                    PATIENCE.as_secs()
                );
                return Err(Error::failed(
                    cause,
                    format!("See {}", data.join("hearthd.log").display()),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bar.finish_and_clear();
        out.print(
            json!({ "stopped": true, "pid": daemon.pid, "terminated": terminated }),
            || {
                format!(
                    "hearthd stopped{}",
                    if self.all {
                        format!(", {} MicroVMs terminated", terminated.len())
                    } else {
                        String::new()
                    }
                )
            },
        )
    }
}

/// Terminates every MicroVM of the daemon whose data directory is `data`.
async fn terminate_all(data: &Path) -> Result<Vec<String>> {
    let service = Service::new(Settings::load(Some(data))?).await?;
    let all = id::list(&service).await?;
    let ids: Vec<String> = all
        .into_iter()
        .filter(|vm| vm.state != MicrovmState::Terminated)
        .map(|vm| vm.microvm_id)
        .collect();
    let bar = spinner(format!("terminating {} MicroVMs", ids.len()));
    let ended = join_all(ids.iter().map(|id| change::Change::Terminate.apply(&service, id))).await;
    bar.finish_and_clear();
    ended.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(ids)
}
