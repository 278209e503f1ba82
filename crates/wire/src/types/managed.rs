use serde::{Deserialize, Serialize};

use super::CpuConfiguration;
use crate::{Timestamp, enums::ManagedMicrovmImageVersionStatus};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListManagedMicrovmImagesRequest {
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListManagedMicrovmImagesResponse {
    pub items: Vec<ManagedMicrovmImageSummary>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedMicrovmImageSummary {
    pub image_arn: String,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListManagedMicrovmImageVersionsRequest {
    pub image_identifier: String,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListManagedMicrovmImageVersionsResponse {
    pub items: Vec<ManagedMicrovmImageVersion>,
    pub next_token: Option<String>,
}

/// `image_version` is a bare integer (`"1"`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedMicrovmImageVersion {
    pub image_arn: String,
    pub image_version: String,
    pub status: Option<ManagedMicrovmImageVersionStatus>,
    pub supported_cpu_configurations: Option<Vec<CpuConfiguration>>,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
}
