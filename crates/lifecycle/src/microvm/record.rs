//! What is written down of a MicroVM.

use hearth_guest::GuestRecord;
use hearth_wire::{
    Sensitive, Timestamp,
    enums::MicrovmState,
    types::{Hooks, IdlePolicy, Logging, Microvm as MicrovmObject, MicrovmItem},
};
use serde::{Deserialize, Serialize};

use crate::{connector::record::Way, idempotency::ClientToken};

/// Where a MicroVM stands; see the drawing in [`crate::microvm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Stage {
    Pending,
    Running,
    Suspending,
    Suspended,
    Resuming,
    Terminating,
    Terminated,
}

impl Stage {
    /// The state that the API shows: there is no RESUMING (spec section 15).
    pub(crate) fn state(self) -> MicrovmState {
        match self {
            Stage::Pending => MicrovmState::Pending,
            Stage::Running => MicrovmState::Running,
            Stage::Suspending => MicrovmState::Suspending,
            Stage::Suspended | Stage::Resuming => MicrovmState::Suspended,
            Stage::Terminating => MicrovmState::Terminating,
            Stage::Terminated => MicrovmState::Terminated,
        }
    }
}

/// The record of a MicroVM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MicrovmRecord {
    pub id: String,
    pub account: String,
    pub region: String,
    pub endpoint_id: String,
    /// Endpoint as the API shows it.
    pub endpoint: String,
    pub image_id: String,
    pub image_arn: String,
    pub image_version: String,
    /// Name of the snapshot it was launched from; none in old records, which knew one a version.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// What made that snapshot and runs the guest, for people; none in old records.
    #[serde(default)]
    pub vmm: Option<String>,
    /// Baseline memory, for the account's quota.
    pub memory_mib: u64,
    pub stage: Stage,
    /// The guest of a stage that has one.
    pub guest: Option<GuestRecord>,
    /// The image version's hooks.
    pub hooks: Option<Hooks>,
    pub execution_role_arn: Option<String>,
    pub idle_policy: Option<IdlePolicy>,
    pub maximum_duration_seconds: u32,
    pub logging: Option<Logging>,
    pub ingress: Vec<String>,
    pub egress: Vec<String>,
    /// What `egress` stood for at the launch.
    #[serde(default = "Way::default_ways")]
    pub ways: Vec<Way>,
    /// Kept until `/run` has answered.
    pub run_hook_payload: Option<Sensitive>,
    pub started_at: Timestamp,
    /// Counts suspends; the files of the latest are those that count.
    pub suspends: u64,
    pub suspended_at: Option<Timestamp>,
    pub terminated_at: Option<Timestamp>,
    pub state_reason: Option<String>,
    /// How much of the application's output has been logged, in bytes.
    pub output_position: u64,
    pub client_token: Option<ClientToken>,
}

impl MicrovmRecord {
    /// Name of the snapshot it was launched from: a directory of its image's.
    pub(crate) fn snapshot(&self) -> &str {
        self.snapshot.as_deref().unwrap_or(&self.image_version)
    }

    /// The MicroVM object of the API.
    pub(crate) fn object(&self) -> MicrovmObject {
        MicrovmObject {
            microvm_id: self.id.clone(),
            state: self.stage.state(),
            endpoint: self.endpoint.clone(),
            image_arn: self.image_arn.clone(),
            image_version: self.image_version.clone(),
            execution_role_arn: self.execution_role_arn.clone(),
            idle_policy: self.idle_policy,
            maximum_duration_in_seconds: self.maximum_duration_seconds,
            started_at: self.started_at,
            terminated_at: self.terminated_at,
            state_reason: self.state_reason.clone(),
            termination_reason_code: None,
            kms_key_identifier: None,
            ingress_network_connectors: self.ingress.clone(),
            egress_network_connectors: self.egress.clone(),
        }
    }

    /// The list item of the API.
    pub(crate) fn item(&self) -> MicrovmItem {
        MicrovmItem {
            microvm_id: self.id.clone(),
            state: self.stage.state(),
            image_arn: self.image_arn.clone(),
            image_version: self.image_version.clone(),
            started_at: self.started_at,
        }
    }
}
