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
use serde::{Deserialize, Deserializer, Serialize};

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
    /// One for each of the node's chipset generations, newest first. A record with one build is read as well.
    #[serde(alias = "build", deserialize_with = "one_or_many")]
    pub builds: Vec<BuildRecord>,
    pub container: Option<ContainerConfig>,
    /// Name of the snapshot that MicroVMs are launched from, once it is another than the build's own.
    #[serde(default)]
    pub snapshot: Option<String>,
    pub client_token: Option<ClientToken>,
}

/// The record of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuildRecord {
    pub id: String,
    /// `chipsetGeneration`: the operator's own numbering.
    #[serde(default = "first_generation")]
    pub generation: String,
    pub state: BuildState,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub sizes: Option<SnapshotBuild>,
}

/// This node's kind of machine (spec section 4.3).
pub(crate) const ARCHITECTURE: Architecture = Architecture::X8664;
pub(crate) const CHIPSET: Chipset = Chipset::Intel;
/// The generation of a node whose operator names none.
pub(crate) const CHIPSET_GENERATION: &str = "1";

fn first_generation() -> String {
    CHIPSET_GENERATION.into()
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BuildRecord>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Builds {
        Many(Vec<BuildRecord>),
        One(BuildRecord),
    }
    Ok(match Builds::deserialize(deserializer)? {
        Builds::Many(builds) => builds,
        Builds::One(build) => vec![build],
    })
}

/// The key of a version in the database.
pub(crate) fn version_key(image_id: &str, version: &str) -> String {
    format!("{image_id}:{version}")
}

impl VersionRecord {
    /// Key in the database.
    pub(crate) fn key(&self) -> String {
        version_key(&self.image_id, &self.version)
    }

    /// Name of the snapshot that MicroVMs are launched from: a directory of the image's.
    pub(crate) fn snapshot(&self) -> &str {
        self.snapshot.as_deref().unwrap_or(&self.version)
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
            version_state_time_bucket: Some(format!("{}#{}", self.state, hour_of(self.updated_at))),
        }
    }

    /// Id of the newest generation's build.
    pub(crate) fn build_id(&self) -> &str {
        self.builds.first().map_or("", |build| &build.id)
    }

    /// What its snapshot takes, once there is one.
    pub(crate) fn sizes(&self) -> Option<&SnapshotBuild> {
        self.builds.first()?.sizes.as_ref()
    }

    /// Changes every build: this node is one kind of machine, so that its snapshot serves all generations.
    pub(crate) fn each_build(&mut self, change: impl FnMut(&mut BuildRecord)) {
        self.builds.iter_mut().for_each(change);
    }

    pub(crate) fn build_summary(&self, build: &BuildRecord) -> MicrovmImageBuildSummary {
        MicrovmImageBuildSummary {
            image_arn: self.image_arn.clone(),
            image_version: self.version.clone(),
            build_id: build.id.clone(),
            build_state: build.state,
            architecture: ARCHITECTURE,
            chipset: CHIPSET,
            chipset_generation: build.generation.clone(),
            state_reason: build.reason.clone(),
            created_at: build.created_at,
            termination_reason_code: None,
        }
    }
}

/// `YYMMDDHH` in UTC, as recorded bodies have it (spec section 4.4).
fn hour_of(time: Timestamp) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(time.as_millis() / 1000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:02}{:02}{:02}{:02}",
        time.year() % 100,
        u8::from(time.month()),
        time.day(),
        time.hour()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_bucket_is_the_utc_hour() {
        assert_eq!(hour_of(Timestamp::from_millis(1_785_402_000_000)), "26073009");
    }

    #[test]
    fn a_record_of_one_build_is_read_as_a_list() {
        let build = json!({"id": "b", "state": "FAILED", "reason": "r", "createdAt": 1.0, "sizes": null});
        let record = json!({
            "imageId": "i", "account": "1", "imageArn": "a", "version": "1.0", "number": 1,
            "specification": {"baseImageArn": "a", "buildRoleArn": "r", "codeArtifact": {"uri": "u"}},
            "state": "FAILED", "status": "INACTIVE", "createdAt": 1.0, "updatedAt": 1.0, "build": build,
            "container": null, "clientToken": null,
        });
        let read: VersionRecord = serde_json::from_value(record).expect("read");
        assert_eq!((read.builds.len(), read.builds[0].generation.as_str()), (1, "1"));
        let again = serde_json::to_value(&read).expect("written");
        assert_eq!(
            serde_json::from_value::<VersionRecord>(again).expect("read"),
            read
        );
    }
}
