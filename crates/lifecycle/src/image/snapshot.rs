//! From a root disk to a snapshot: boot, wait until the application is ready, freeze, save, validate.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hearth_agent_protocol::{Freeze, Output};
use hearth_guest::{Agent, Boot, DiskShape, Guest, GuestError, Restore, Shape, Snapshot, snapshot};
use hearth_logs::LogWriter;
use hearth_metadata::Subject;
use hearth_network::Egress;
use hearth_storage::disk;
use hearth_wire::types::Hooks;
use tokio::{sync::Notify, time::sleep};

use crate::{
    hooks::{HookName, enabled},
    node::{Node, scratch_of},
    tiers::Tier,
};

/// How long a frozen guest may take to say what its application had put out.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// What an application says comes on another way than its hook's answer.
const LATE_OUTPUT: Duration = Duration::from_millis(200);

/// Why there is no snapshot. The text is the build's reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The application.
    #[error("{0}")]
    Application(String),
    /// This node.
    #[error("INTERNAL_PLATFORM_ERROR: {0}")]
    Node(#[from] GuestError),
    /// This node's disk.
    #[error("INTERNAL_PLATFORM_ERROR: {0}")]
    Io(#[from] io::Error),
}

/// What a guest of a build finds around it.
pub(super) struct Surroundings {
    /// What it may reach.
    pub egress: Egress,
    /// Who it is.
    pub subject: Subject,
}

/// Boots the root disk in `directory` and makes it a complete snapshot there.
pub(super) async fn take(
    node: &Node,
    directory: &Path,
    tier: Tier,
    surroundings: &Surroundings,
    application: hearth_agent_protocol::Application,
    hooks: Option<&Hooks>,
    log: Option<LogWriter>,
) -> Result<Snapshot, SnapshotError> {
    let shape = Shape {
        memory_bytes: tier.memory_bytes,
        vcpus: tier.vcpus,
        disks: vec![DiskShape::writable(tier.disk_bytes)],
    };
    let empty = empty_disk(&node.scratch_directory(), tier.disk_bytes)?;
    disk::clone(&empty, &snapshot::scratch_path(directory))?;
    let boot = Boot {
        directory,
        shape: &shape,
        more_disks: &[],
        egress: &surroundings.egress,
    };
    let guest = node
        .host
        .boot(&boot)
        .await
        .map_err(|error| blame(error.into(), directory))?;
    let metadata = node.serve_metadata(guest.slot(), surroundings.subject.clone(), None);
    let ready = make_ready(node, &guest, application, hooks, log);
    if let Err(error) = guest.while_it_lives(ready).await {
        drop(metadata);
        guest.destroy().await;
        return Err(blame(error, directory));
    }
    drop(metadata);
    Ok(node.host.snapshot(guest, &boot).await?)
}

/// A full disk, if it is one: a VMM whose memory file finds no room there is ended by the kernel, without a word. Else a guest
/// that ended did so by what runs in it.
fn blame(error: SnapshotError, directory: &Path) -> SnapshotError {
    match (error, disk::has_room(directory)) {
        (SnapshotError::Node(_), Err(full)) => SnapshotError::Io(full),
        (SnapshotError::Node(GuestError::Ended), Ok(())) => {
            SnapshotError::Application("MicroVM terminated before its snapshot was taken".into())
        }
        (error, _) => error,
    }
}

/// The empty scratch disk of a size, in `directory`: made once. Several builds may want the first at a time.
fn empty_disk(directory: &Path, bytes: u64) -> io::Result<PathBuf> {
    let disk = directory.join(format!("{}gb.img", bytes >> 30));
    if !disk.exists() {
        let making = tempfile::tempdir_in(directory)?;
        let made = making.path().join("scratch.img");
        disk::create_ext4(&made, bytes)?;
        std::fs::rename(&made, &disk)?;
    }
    Ok(disk)
}

/// Starts the application, waits until it is ready and freezes it.
async fn make_ready(
    node: &Node,
    guest: &Guest,
    application: hearth_agent_protocol::Application,
    hooks: Option<&Hooks>,
    mut log: Option<LogWriter>,
) -> Result<(), SnapshotError> {
    let agent = guest.agent();
    match agent.start(application).await {
        Err(GuestError::Refused(cause)) => return Err(SnapshotError::Application(cause)),
        other => other?,
    }
    let is_frozen = Notify::new();
    let frozen = async {
        let is_ready = match enabled(hooks, HookName::Ready) {
            Some(hook) => {
                let called = hook.call_until_ready(agent).await?;
                if called.is_err() {
                    sleep(LATE_OUTPUT).await;
                }
                called.map(|()| true).map_err(SnapshotError::Application)?
            }
            // Without a hook: when something listens, or after a while (spec section 34, question 2).
            None => agent.await_listener(node.config.listen_timeout).await?,
        };
        agent.freeze(Freeze { for_image: true }).await?;
        is_frozen.notify_one();
        Ok::<_, SnapshotError>(is_ready)
    };
    let logged = async {
        tokio::select! {
            ended = follow(agent, &mut log) => ended,
            () = async { is_frozen.notified().await; sleep(LAST_OUTPUT).await } => Ok(()),
        }
    };
    let (is_ready, ()) = tokio::try_join!(frozen, logged)?;
    if let (false, Some(log)) = (is_ready, &log) {
        log.line(&format!(
            "Nothing listened within {} s: the snapshot is taken now, and what runs may not be ready in it. \
             Cure: a /ready hook, or a longer listen_timeout_seconds in hearthd.toml.",
            node.config.listen_timeout.as_secs()
        ));
    }
    Ok(())
}

/// Logs the application's output until it ends, which is an error if the application has ended.
async fn follow(agent: &Agent, log: &mut Option<LogWriter>) -> Result<(), SnapshotError> {
    let mut output = agent.output(0).await?;
    loop {
        match output.next().await? {
            Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => {
                if let Some(log) = log {
                    log.write(&bytes);
                }
            }
            Some(Output::Exited(status)) => {
                if let Some(log) = log {
                    let _the_log_reports_it = log.flush().await;
                }
                return Err(SnapshotError::Application(format!(
                    "Container Stopped with Exit Code: {}",
                    status.code()
                )));
            }
            None => return Ok(()),
        }
    }
}

/// Calls `/validate` in a throwaway clone; nothing of it stays.
pub(super) async fn validate(
    node: &Node,
    snapshot: &Snapshot,
    surroundings: &Surroundings,
    hooks: Option<&Hooks>,
    mut log: Option<LogWriter>,
) -> Result<(), SnapshotError> {
    let Some(hook) = enabled(hooks, HookName::Validate) else {
        return Ok(());
    };
    let directory = tempfile::tempdir_in(&node.config.directory)?;
    disk::give(directory.path(), None, None, 0o711)?;
    let scratch = scratch_of(directory.path());
    disk::clone(&snapshot.scratch(), &scratch)?;
    let idle = node.host.prepare(snapshot).await?;
    let metadata = node.serve_metadata(idle.slot(), surroundings.subject.clone(), None);
    let guest = idle
        .restore(&Restore {
            disks: vec![Some(scratch)],
            suspended: None,
            egress: surroundings.egress.clone(),
        })
        .await?;
    let result = async {
        guest.agent().thaw(true).await?;
        let called = async {
            let called = hook.call_until_ready(guest.agent()).await?;
            sleep(LATE_OUTPUT).await;
            called.map_err(SnapshotError::Application)
        };
        tokio::select! {
            ended = follow(guest.agent(), &mut log) => ended.and(Err(GuestError::Ended.into())),
            called = called => called,
        }
    };
    let result = guest.while_it_lives(result).await;
    drop(metadata);
    guest.destroy().await;
    result.map_err(|error| blame(error, directory.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_that_want_the_first_empty_disk_at_a_time_all_get_it() {
        let directory = tempfile::tempdir().expect("temp dir");
        let disks: Vec<_> = std::thread::scope(|scope| {
            let builds: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| empty_disk(directory.path(), 1 << 30)))
                .collect();
            builds
                .into_iter()
                .map(|build| build.join().expect("no panic"))
                .collect()
        });
        for disk in disks {
            assert!(disk.expect("made").exists());
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("read").count(), 1);
    }
}
