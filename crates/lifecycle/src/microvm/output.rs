//! The application's output: to the log, when one is asked for, and its end to the task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearth_agent_protocol::{ExitStatus, Output};
use hearth_guest::Agent;
use hearth_logs::{LogWriter, LogsError};
use hearth_wire::{Timestamp, types::Logging};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::record::MicrovmRecord;
use crate::{node::Node, permissions::Actor};

/// What is on its way from the guest has come when this long nothing has.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that an end waits for output.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Follows the output of one guest until it ends or [`Follower::stop`] is called.
pub(crate) struct Follower {
    task: JoinHandle<()>,
    position: Arc<AtomicU64>,
    /// The guest has been asked.
    connected: watch::Receiver<bool>,
}

impl Follower {
    /// Follows from a position; the exit of the application goes to `exits`.
    pub(crate) fn start(
        agent: Agent,
        from: u64,
        log: impl Future<Output = Option<LogWriter>> + Send + 'static,
        exits: mpsc::Sender<ExitStatus>,
    ) -> Follower {
        let position = Arc::new(AtomicU64::new(from));
        let seen = position.clone();
        let (connects, connected) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut log = log.await;
            let mut output = match agent.output(from).await {
                Ok(output) => output,
                Err(error) => return tracing::warn!(%error, "the application's output cannot be followed"),
            };
            connects.send_replace(true);
            loop {
                match output.next().await {
                    Ok(Some(Output::Stdout(bytes) | Output::Stderr(bytes))) => {
                        seen.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        if let Some(log) = &mut log {
                            log.write(&bytes);
                        }
                    }
                    Ok(Some(Output::Exited(status))) => {
                        if let Some(log) = &mut log {
                            let _the_log_reports_it = log.flush().await;
                        }
                        let _task_is_gone = exits.send(status).await;
                        return;
                    }
                    Ok(None) => return,
                    Err(error) => return tracing::debug!(%error, "following the application's output ended"),
                }
            }
        });
        Follower {
            task,
            position,
            connected,
        }
    }

    /// Whether it still does.
    pub(crate) fn follows(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits until nothing more has come for a moment: the last words of an application that is to be ended.
    pub(crate) async fn catch_up(&self) {
        let quiet = async {
            let mut connected = self.connected.clone();
            if connected.wait_for(|connected| *connected).await.is_err() {
                return;
            }
            loop {
                let before = self.position();
                sleep(QUIET).await;
                if !self.follows() || self.position() == before {
                    return;
                }
            }
        };
        let _it_talks_on = timeout(LAST_WORDS, quiet).await;
    }

    /// Stops; returns the position reached.
    pub(crate) fn stop(self) -> u64 {
        self.position()
    }

    /// How much has been followed.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The log of a MicroVM, when its launch asked for one and gave it a role to write with (spec section 24).
pub(crate) fn log_of(
    node: &Node,
    record: &MicrovmRecord,
) -> impl Future<Output = Option<LogWriter>> + Send + 'static {
    let (logs, account) = (node.logs.clone(), record.account.clone());
    let names = names_of(node, record);
    async move {
        let (group, stream) = names?;
        let opened: Result<LogWriter, LogsError> = logs.writer(&account, &group, &stream).await;
        opened
            .inspect_err(|error| tracing::warn!(%error, "a log could not be opened"))
            .ok()
    }
}

/// Group and stream; `None` when there is to be no log, or none that the role may write.
fn names_of(node: &Node, record: &MicrovmRecord) -> Option<(String, String)> {
    let (Some(Logging::CloudWatch(names)), Some(role_arn)) = (&record.logging, &record.execution_role_arn)
    else {
        return None;
    };
    let image = record.image_arn.rsplit(':').next().unwrap_or_default();
    let group = names.log_group.clone().unwrap_or_else(|| default_group(image));
    let stream = names
        .log_stream
        .clone()
        .unwrap_or_else(|| default_stream(record.started_at, &record.image_version, &record.id));
    let actor = Actor {
        account: &record.account,
        region: &record.region,
        role_arn,
    };
    node.may_log(actor, &group, &stream).then_some((group, stream))
}

/// The log group of an image and its MicroVMs.
pub(crate) fn default_group(image_name: &str) -> String {
    format!("/aws/lambda-microvms/{image_name}")
}

/// The log stream of one MicroVM: `YYYY/MM/DD[version]id`, by the UTC day of its start.
pub(crate) fn default_stream(started: Timestamp, version: &str, id: &str) -> String {
    let day = time::OffsetDateTime::from_unix_timestamp(started.as_millis() / 1000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .date();
    format!(
        "{:04}/{:02}/{:02}[{version}]{id}",
        day.year(),
        u8::from(day.month()),
        day.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_by_day_version_and_id() {
        let started = Timestamp::from_millis(1_795_305_600_000);
        assert_eq!(
            default_stream(started, "1.0", "microvm-x"),
            "2026/11/22[1.0]microvm-x"
        );
    }
}
