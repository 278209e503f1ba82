//! What is written down of an image, its versions and their builds.

use std::collections::BTreeMap;

use hearth_builder::ContainerConfig;
use hearth_wire::{
    Timestamp,
    arn::ImageArn,
    enums::{
        Architecture, BuildState, Chipset, MicrovmImageState, MicrovmImageVersionState,
        MicrovmImageVersionStatus,
    },
    types::{
        ImageSpecification, MicrovmImageBuildSummary, MicrovmImageSummary, MicrovmImageVersion, SnapshotBuild,
    },
};
use serde::{Deserialize, Serialize};

use crate::{connector::record::Way, idempotency::ClientToken};

/// The record of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageRecord {
    pub id: String,
    pub account: String,
    pub region: String,
    pub partition: String,
    pub name: String,
    pub state: MicrovmImageState,
    pub latest_active_version: Option<String>,
    pub latest_failed_version: Option<String>,
    /// Number of the newest version, also of a deleted one.
    pub versions_made: u32,
    pub tags: Option<BTreeMap<String, String>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub client_token: Option<ClientToken>,
}

impl ImageRecord {
    pub(crate) fn arn(&self) -> ImageArn {
        ImageArn {
            partition: self.partition.clone(),
            region: self.region.clone(),
            account: self.account.clone(),
            name: self.name.clone(),
        }
    }

    pub(crate) fn summary(&self) -> MicrovmImageSummary {
        MicrovmImageSummary {
            image_arn: self.arn().to_string(),
            name: self.name.clone(),
            state: self.state,
            latest_active_image_version: self.latest_active_version.clone(),
            latest_failed_image_version: self.latest_failed_version.clone(),
            created_at: self.created_at,
            id: Some(self.id.clone()),
        }
    }
}

/// The record of a version with its build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionRecord {
    pub image_id: String,
    pub account: String,
    pub image_arn: String,
    pub version: String,
    /// Grows with each version of an image.
    pub number: u32,
    pub specification: ImageSpecification,
    /// What the specification's connectors stood for when it was accepted.
    #[serde(default = "Way::default_ways")]
    pub ways: Vec<Way>,
    pub state: MicrovmImageVersionState,
    pub status: MicrovmImageVersionStatus,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub build: BuildRecord,
    pub container: Option<ContainerConfig>,
    pub client_token: Option<ClientToken>,
}

/// The record of a build: one for each kind of machine that this node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuildRecord {
    pub id: String,
    pub state: BuildState,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub sizes: Option<SnapshotBuild>,
}

/// This node's kind of machine (spec section 4.3; `chipsetGeneration` is the service's own numbering).
pub(crate) const ARCHITECTURE: Architecture = Architecture::X8664;
pub(crate) const CHIPSET: Chipset = Chipset::Intel;
pub(crate) const CHIPSET_GENERATION: &str = "1";

impl VersionRecord {
    /// Key in the database.
    pub(crate) fn key(&self) -> String {
        format!("{}:{}", self.image_id, self.version)
    }

    /// Whether MicroVMs can be launched from it.
    pub(crate) fn is_runnable(&self) -> bool {
        self.state == MicrovmImageVersionState::Successful && self.status == MicrovmImageVersionStatus::Active
    }

    pub(crate) fn object(&self) -> MicrovmImageVersion {
        MicrovmImageVersion {
            specification: self.specification.clone(),
            image_arn: self.image_arn.clone(),
            image_version: self.version.clone(),
            state: self.state,
            status: self.status,
            created_at: self.created_at,
            updated_at: Some(self.updated_at),
            state_reason: None,
            tags: None,
            version_state_time_bucket: None,
        }
    }

    pub(crate) fn build_summary(&self) -> MicrovmImageBuildSummary {
        MicrovmImageBuildSummary {
            image_arn: self.image_arn.clone(),
            image_version: self.version.clone(),
            build_id: self.build.id.clone(),
            build_state: self.build.state,
            architecture: ARCHITECTURE,
            chipset: CHIPSET,
            chipset_generation: CHIPSET_GENERATION.into(),
            state_reason: self.build.reason.clone(),
            created_at: self.build.created_at,
            termination_reason_code: None,
        }
    }
}
