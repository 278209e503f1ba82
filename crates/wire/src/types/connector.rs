use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    enums::{
        ComputeResourceType, ConnectorReasonCode, ConnectorState, ConnectorType, ConnectorUpdateStatus,
        ElasticIpType, NetworkProtocol,
    },
    timestamp::iso8601,
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetworkConnectorRequest {
    pub name: String,
    pub configuration: NetworkConnectorConfiguration,
    pub operator_role: Option<String>,
    pub client_token: Option<String>,
    pub tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateNetworkConnectorRequest {
    pub identifier: String,
    pub configuration: Option<NetworkConnectorConfiguration>,
    pub operator_role: Option<String>,
    pub client_token: Option<String>,
}

/// A request that names one connector and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetNetworkConnectorRequest {
    pub identifier: String,
}

pub type DeleteNetworkConnectorRequest = GetNetworkConnectorRequest;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNetworkConnectorsRequest {
    pub state: Option<ConnectorState>,
    pub marker: Option<String>,
    pub max_items: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNetworkConnectorVersionsRequest {
    pub identifier: String,
    pub state: Option<ConnectorState>,
    pub marker: Option<String>,
    pub max_items: Option<u32>,
}

/// A union of one member, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkConnectorConfiguration {
    pub vpc_egress_configuration: VpcEgressConfiguration,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VpcEgressConfiguration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_protocol: Option<NetworkProtocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub associated_compute_resource_types: Option<Vec<ComputeResourceType>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic_ip_configuration: Option<ElasticIpConfiguration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ElasticIpConfiguration {
    pub r#type: ElasticIpType,
}

/// A connector as Create, Get, Update and Delete show it. lambda-core omits what is unset (spec 3.2), and each
/// operation sets the members recorded for it (spec 4.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkConnector {
    pub arn: String,
    pub name: String,
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_version_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<NetworkConnectorConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ConnectorState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason_code: Option<ConnectorReasonCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_status: Option<ConnectorUpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_status_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_status_reason_code: Option<ConnectorReasonCode>,
    #[serde(default, with = "iso8601", skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<Timestamp>,
}

pub type CreateNetworkConnectorResponse = NetworkConnector;
pub type GetNetworkConnectorResponse = NetworkConnector;
pub type UpdateNetworkConnectorResponse = NetworkConnector;
pub type DeleteNetworkConnectorResponse = NetworkConnector;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNetworkConnectorsResponse {
    pub network_connectors: Vec<NetworkConnectorSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkConnectorSummary {
    pub arn: String,
    pub name: String,
    pub id: String,
    pub r#type: ConnectorType,
    pub state: ConnectorState,
    #[serde(default, with = "iso8601")]
    pub last_modified: Option<Timestamp>,
    pub latest_version_arn: String,
    pub latest_version: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListNetworkConnectorVersionsResponse {
    pub network_connector_versions: Vec<NetworkConnectorVersionSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkConnectorVersionSummary {
    pub arn: String,
    pub version_arn: String,
    pub name: String,
    pub id: String,
    pub version: u64,
    pub state: ConnectorState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason_code: Option<ConnectorReasonCode>,
    #[serde(default, with = "iso8601")]
    pub last_modified: Option<Timestamp>,
}
