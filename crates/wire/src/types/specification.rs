use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Sensitive,
    enums::{Architecture, Capability, HookState},
};

/// What to build: the members that create, update and version objects share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpecification {
    pub base_image_arn: String,
    pub base_image_version: Option<String>,
    pub build_role_arn: String,
    pub code_artifact: CodeArtifact,
    pub description: Option<String>,
    pub logging: Option<Logging>,
    pub egress_network_connectors: Option<Vec<String>>,
    pub cpu_configurations: Option<Vec<CpuConfiguration>>,
    pub resources: Option<Vec<Resources>>,
    pub additional_os_capabilities: Option<Vec<Capability>>,
    pub hooks: Option<Hooks>,
    pub environment_variables: Option<BTreeMap<String, Sensitive>>,
    pub kms_key_identifier: Option<String>,
}

/// Where the zip with the Dockerfile is: `s3://<bucket>/<key>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeArtifact {
    pub uri: String,
}

/// Where output goes; nowhere special when a request has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Logging {
    Disabled(Unit),
    CloudWatch(CloudWatchLogging),
}

/// Log group and stream; each has a default (spec 24).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatchLogging {
    pub log_group: Option<String>,
    pub log_stream: Option<String>,
}

/// A structure without members: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfiguration {
    pub architecture: Architecture,
}

/// The memory tier asked for (spec 10); any number until the lifecycle has checked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    #[serde(rename = "minimumMemoryInMiB")]
    pub minimum_memory_in_mib: i32,
}

/// Lifecycle hooks (spec 13.1). A hook without a state is disabled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    pub port: Option<u16>,
    pub microvm_hooks: Option<MicrovmHooks>,
    pub microvm_image_hooks: Option<MicrovmImageHooks>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmHooks {
    pub run: Option<HookState>,
    pub run_timeout_in_seconds: Option<u32>,
    pub resume: Option<HookState>,
    pub resume_timeout_in_seconds: Option<u32>,
    pub suspend: Option<HookState>,
    pub suspend_timeout_in_seconds: Option<u32>,
    pub terminate: Option<HookState>,
    pub terminate_timeout_in_seconds: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmImageHooks {
    pub ready: Option<HookState>,
    pub ready_timeout_in_seconds: Option<u32>,
    pub validate: Option<HookState>,
    pub validate_timeout_in_seconds: Option<u32>,
}
