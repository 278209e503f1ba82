use serde::{Deserialize, Serialize};

use super::{AlwaysNull, Logging};
use crate::{Sensitive, Timestamp, enums::MicrovmState};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMicrovmRequest {
    pub image_identifier: String,
    pub image_version: Option<String>,
    pub execution_role_arn: Option<String>,
    pub idle_policy: Option<IdlePolicy>,
    pub logging: Option<Logging>,
    pub run_hook_payload: Option<Sensitive>,
    pub maximum_duration_in_seconds: Option<u32>,
    pub kms_key_identifier: Option<String>,
    pub ingress_network_connectors: Option<Vec<String>>,
    pub egress_network_connectors: Option<Vec<String>>,
    pub client_token: Option<String>,
}

/// When a MicroVM suspends by itself, how long it may stay so, and whether a request wakes it (spec 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdlePolicy {
    pub max_idle_duration_seconds: u32,
    pub suspended_duration_seconds: u32,
    pub auto_resume_enabled: bool,
}

/// The MicroVM object, the same from RunMicrovm and GetMicrovm. `endpoint` is a bare host name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Microvm {
    pub microvm_id: String,
    pub state: MicrovmState,
    pub endpoint: String,
    pub image_arn: String,
    pub image_version: String,
    pub execution_role_arn: Option<String>,
    pub idle_policy: Option<IdlePolicy>,
    pub maximum_duration_in_seconds: u32,
    pub started_at: Timestamp,
    pub terminated_at: Option<Timestamp>,
    pub state_reason: Option<String>,
    pub termination_reason_code: Option<String>,
    pub kms_key_identifier: AlwaysNull,
    pub ingress_network_connectors: Vec<String>,
    pub egress_network_connectors: Vec<String>,
}

pub type RunMicrovmResponse = Microvm;
pub type GetMicrovmResponse = Microvm;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmRequest {
    pub microvm_identifier: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmsRequest {
    pub image_identifier: Option<String>,
    pub image_version: Option<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmsResponse {
    pub items: Vec<MicrovmItem>,
    pub next_token: Option<String>,
}

/// Exactly these five members (spec 4.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmItem {
    pub microvm_id: String,
    pub state: MicrovmState,
    pub image_arn: String,
    pub image_version: String,
    pub started_at: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuspendMicrovmRequest {
    pub microvm_identifier: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspendMicrovmResponse {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeMicrovmRequest {
    pub microvm_identifier: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeMicrovmResponse {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminateMicrovmRequest {
    pub microvm_identifier: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminateMicrovmResponse {}
