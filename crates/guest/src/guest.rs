//! One live guest.

use std::{path::Path, path::PathBuf, sync::Arc};

use hearth_network::Slot;
use hearth_vmm::{ProcessRecord, Vm};
use serde::{Deserialize, Serialize};

use crate::{Agent, GuestError, Host};

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
}

/// A VMM process with its guest, network slot and directory. Dropping it changes nothing: guests outlive the daemon.
#[derive(Clone)]
pub struct Guest {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) slot: Slot,
    pub(crate) agent: Agent,
}

impl Guest {
    /// What to write down.
    pub fn record(&self) -> GuestRecord {
        GuestRecord {
            name: self.name.clone(),
            slot: self.slot.name().to_owned(),
            process: self.vm.process().clone(),
        }
    }

    /// The VMM process.
    pub fn vm(&self) -> &Arc<dyn Vm> {
        &self.vm
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
        base_memory: &Path,
        directory: &Path,
    ) -> Result<hearth_vmm::memory::DeltaSummary, GuestError> {
        self.vm
            .save_device_state(&crate::snapshot::device_state_path(directory))
            .await?;
        Ok(self.vm.save_delta(base_memory, &delta_path(directory)).await?)
    }

    /// Ends the guest and removes everything it had on this node but the disks its owner gave it.
    pub async fn destroy(self) {
        self.vm.kill().await;
        self.host.clean(&self.name, self.slot).await;
    }
}

/// The delta in a suspended guest's directory.
pub fn delta_path(directory: &Path) -> PathBuf {
    directory.join("delta")
}
