//! One live guest.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hearth_network::Slot;
use hearth_storage::durable;
use hearth_vmm::{ProcessRecord, Vm, driver::Execution, in_time, jail::Limits};
use serde::{Deserialize, Serialize};

use crate::{
    Agent, GuestError, Host, Snapshot,
    host::FOUND_AGAIN,
    integrity::{FileSum, seal, unseal},
    snapshot::device_state_path,
};

/// Longest wait for a VMM that is to stop or to go on: it finishes what its disks are doing.
const STOP_OR_GO: Duration = Duration::from_secs(60);

/// What must be written down before a guest runs, so that a later daemon finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestRecord {
    /// Name of its directory.
    pub name: String,
    /// Name of its network slot.
    pub slot: String,
    /// Its VMM process.
    pub process: ProcessRecord,
    /// Name of the driver that started it; empty in the records of an older hearth, which had one driver at a time.
    #[serde(default)]
    pub driver: String,
    /// What its process may use; none in the records of an older hearth.
    #[serde(default)]
    pub limits: Option<Limits>,
}

/// A VMM process with its guest, network slot and directory. Dropping it changes nothing: guests outlive the daemon.
#[derive(Clone)]
pub struct Guest {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) limits: Option<Limits>,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) slot: Slot,
    pub(crate) agent: Agent,
}

impl Guest {
    /// Asks something of the guest, for as long as its process lives: what is asked of a dead one is never answered.
    pub async fn while_it_lives<T, E: From<GuestError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.vm.ended() => {
                let console = self.last_words().await;
                tracing::warn!(guest = self.name, %console, "a guest has ended");
                Err(GuestError::Ended.into())
            }
        }
    }

    /// The end of the VMM's log, and why the kernel has ended it if it has.
    pub async fn last_words(&self) -> String {
        let words = self.vm.last_words().await;
        match self.host.out_of_memory(&self.name) {
            true => format!("memory ran out and the kernel ended the process; its log: {words}"),
            false => words,
        }
    }

    /// From here on the guest has a state that somebody would miss: when memory runs out, the kernel ends others first.
    pub fn treasure(&self) {
        if let Err(error) = self.vm.process().set_oom_score_adj(0) {
            tracing::warn!(guest = self.name, %error, "a guest goes unprotected when memory runs out");
        }
    }

    /// What to write down.
    pub fn record(&self) -> GuestRecord {
        GuestRecord {
            name: self.name.clone(),
            slot: self.slot.name().to_owned(),
            process: self.vm.process().clone(),
            driver: self.driver.clone(),
            limits: self.limits,
        }
    }

    /// The VMM process.
    pub fn vm(&self) -> &Arc<dyn Vm> {
        &self.vm
    }

    /// Whether the guest of a former daemon runs.
    pub async fn execution(&self) -> Result<Execution, GuestError> {
        Ok(in_time(FOUND_AGAIN, self.vm.execution()).await?)
    }

    /// Stops the CPUs and waits until no device writes any more.
    pub async fn pause(&self) -> Result<(), GuestError> {
        Ok(in_time(STOP_OR_GO, self.vm.pause()).await?)
    }

    /// Lets the CPUs of a paused guest run on.
    pub async fn resume(&self) -> Result<(), GuestError> {
        Ok(in_time(STOP_OR_GO, self.vm.resume()).await?)
    }

    /// Its network slot.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Saves device state and delta of a paused guest into `directory`, durably.
    pub async fn save(
        &self,
        snapshot: &Snapshot,
        directory: &Path,
    ) -> Result<hearth_vmm::memory::DeltaSummary, GuestError> {
        self.vm.save_device_state(&device_state_path(directory)).await?;
        let summary = self
            .vm
            .save_delta(&snapshot.memory(), &delta_path(directory))
            .await?;
        Suspend::write(directory, snapshot)
            .await
            .map_err(GuestError::io("writing a suspend's manifest"))?;
        Ok(summary)
    }

    /// Ends the guest and removes everything it had on this node but the disks its owner gave it.
    pub async fn destroy(self) {
        self.vm.kill().await;
        self.host.clean(&self.name, self.slot).await;
    }
}

/// Version of a suspend's manifest. Version 1, which is still read, had no checksum of itself.
const SUSPEND_FORMAT: u32 = 2;
/// The first version that has.
const SUSPEND_SEALED_SINCE: u64 = 2;

/// The manifest of a suspended guest's files. The delta checks itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Suspend {
    format: u32,
    /// The snapshot that the delta is a delta of.
    snapshot: String,
    device_state: FileSum,
}

impl Suspend {
    async fn write(directory: &Path, snapshot: &Snapshot) -> io::Result<()> {
        let (directory, snapshot) = (directory.to_owned(), snapshot.id().to_owned());
        let write = move || {
            let manifest = Suspend {
                format: SUSPEND_FORMAT,
                snapshot,
                device_state: FileSum::of(&device_state_path(&directory))?,
            };
            durable::write_file(&suspend_path(&directory), &seal(&manifest)?)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)
            .flatten()
    }

    /// Whether the files are what was saved, of a clone of this snapshot. Those of an older hearth have no manifest. It
    /// reads the device state whole: call it where a thread may block.
    pub(crate) fn verify(directory: &Path, snapshot: &Snapshot) -> Result<(), GuestError> {
        let bad = |cause: String| GuestError::Snapshot {
            path: directory.to_owned(),
            cause,
        };
        let text = match fs::read(suspend_path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && snapshot.id().is_empty() => {
                return Ok(());
            }
            text => text.map_err(|error| bad(format!("its manifest: {error}")))?,
        };
        let manifest: Suspend = serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .and_then(|manifest| unseal(manifest, SUSPEND_SEALED_SINCE))
            .map_err(|error| bad(format!("its manifest: {error}")))?;
        if !(1..=SUSPEND_FORMAT).contains(&manifest.format) {
            return Err(bad(format!(
                "format {} where this hearth reads 1 to {SUSPEND_FORMAT}",
                manifest.format
            )));
        }
        if manifest.snapshot != snapshot.id() {
            return Err(bad("it was suspended from another snapshot of its image".into()));
        }
        let state = manifest.device_state.verify(&device_state_path(directory));
        state.map_err(|error| bad(error.to_string()))
    }
}

fn suspend_path(directory: &Path) -> PathBuf {
    directory.join("suspend.json")
}

/// The delta in a suspended guest's directory.
pub fn delta_path(directory: &Path) -> PathBuf {
    directory.join("delta")
}
