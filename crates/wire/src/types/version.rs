use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageSpecification;
use crate::{
    Timestamp,
    enums::{MicrovmImageVersionState, MicrovmImageVersionStatus},
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmImageVersionRequest {
    pub image_identifier: String,
    pub image_version: String,
}

/// The version object, the same from Get, List and Update. `state_reason` and `tags` stay `null` (spec 4.4, 7.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmImageVersion {
    #[serde(flatten)]
    pub specification: ImageSpecification,
    pub image_arn: String,
    pub image_version: String,
    pub state: MicrovmImageVersionState,
    pub status: MicrovmImageVersionStatus,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
    pub state_reason: Option<String>,
    pub tags: Option<BTreeMap<String, String>>,
    pub version_state_time_bucket: Option<String>,
}

pub type GetMicrovmImageVersionResponse = MicrovmImageVersion;
pub type UpdateMicrovmImageVersionResponse = MicrovmImageVersion;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImageVersionsRequest {
    pub image_identifier: String,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImageVersionsResponse {
    pub items: Vec<MicrovmImageVersion>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateMicrovmImageVersionRequest {
    pub image_identifier: String,
    pub image_version: String,
    pub status: MicrovmImageVersionStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteMicrovmImageVersionRequest {
    pub image_identifier: String,
    pub image_version: String,
}

/// `image_identifier` is the ARN; state is DELETING.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteMicrovmImageVersionResponse {
    pub image_identifier: String,
    pub image_version: String,
    pub state: MicrovmImageVersionState,
}
