use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AlwaysNull, ImageSpecification};
use crate::{Timestamp, enums::MicrovmImageState};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmImageRequest {
    #[serde(flatten)]
    pub specification: ImageSpecification,
    pub name: String,
    pub tags: Option<BTreeMap<String, String>>,
    pub client_token: Option<String>,
}

/// State is CREATING and `image_version` is `1.0`; `tags` is `null` when none were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmImageResponse {
    #[serde(flatten)]
    pub image: MicrovmImageSummary,
    pub updated_at: Option<Timestamp>,
    pub tags: Option<BTreeMap<String, String>>,
    pub image_version: String,
    #[serde(flatten)]
    pub specification: ImageSpecification,
    pub build_phase_overrides: AlwaysNull,
    pub role_configuration: AlwaysNull,
}

/// A full replacement of the specification (PUT).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateMicrovmImageRequest {
    #[serde(flatten)]
    pub specification: ImageSpecification,
    pub image_identifier: String,
    pub client_token: Option<String>,
}

/// State is UPDATING and `image_version` is the version being built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateMicrovmImageResponse {
    #[serde(flatten)]
    pub image: MicrovmImageSummary,
    pub updated_at: Timestamp,
    pub image_version: String,
    #[serde(flatten)]
    pub specification: ImageSpecification,
    pub build_phase_overrides: AlwaysNull,
    pub role_configuration: AlwaysNull,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmImageRequest {
    pub image_identifier: String,
}

/// `tags` is `{}` when there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMicrovmImageResponse {
    #[serde(flatten)]
    pub image: MicrovmImageSummary,
    pub updated_at: Option<Timestamp>,
    pub tags: BTreeMap<String, String>,
}

/// `name_filter` matches a substring of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImagesRequest {
    pub name_filter: Option<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMicrovmImagesResponse {
    pub items: Vec<MicrovmImageSummary>,
    pub next_token: Option<String>,
}

/// The members every image object has; by itself the list item. `id` is an unmodelled bare UUID.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmImageSummary {
    pub image_arn: String,
    pub name: String,
    pub state: MicrovmImageState,
    pub latest_active_image_version: Option<String>,
    pub latest_failed_image_version: Option<String>,
    pub created_at: Timestamp,
    pub id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteMicrovmImageRequest {
    pub image_identifier: String,
}

/// `image_identifier` is the ARN; state is DELETING.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteMicrovmImageResponse {
    pub image_identifier: String,
    pub state: MicrovmImageState,
}
