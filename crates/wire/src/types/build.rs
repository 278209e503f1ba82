use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    enums::{Architecture, BuildState, Chipset},
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImageBuildsRequest {
    pub image_identifier: String,
    pub image_version: String,
    pub architecture: Option<Architecture>,
    pub chipset: Option<Chipset>,
    pub chipset_generation: Option<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImageBuildsResponse {
    pub items: Vec<MicrovmImageBuildSummary>,
    pub next_token: Option<String>,
}

/// One attempt for one chipset generation; the only object with a reason of failure (spec 7.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmImageBuildSummary {
    pub image_arn: String,
    pub image_version: String,
    pub build_id: String,
    pub build_state: BuildState,
    pub architecture: Architecture,
    pub chipset: Chipset,
    pub chipset_generation: String,
    pub state_reason: Option<String>,
    pub created_at: Timestamp,
    pub termination_reason_code: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmImageBuildRequest {
    pub image_identifier: String,
    pub image_version: String,
    pub build_id: String,
}

/// `snapshot_build` is unset when the container build failed (spec 7.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmImageBuildResponse {
    #[serde(flatten)]
    pub build: MicrovmImageBuildSummary,
    pub snapshot_build: Option<SnapshotBuild>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotBuild {
    pub memory_snapshot_size_in_bytes: Option<i64>,
    pub code_install_size_in_bytes: Option<i64>,
    pub disk_snapshot_size_in_bytes: Option<i64>,
    /// Hearth's own, which no model knows: what made the snapshot and runs its clones, such as `firecracker 1.12, KVM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm: Option<String>,
}
