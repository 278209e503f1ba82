//! What is written down of a network connector.

use std::collections::BTreeMap;

use hearth_wire::{
    Timestamp,
    enums::{ConnectorReasonCode, ConnectorState, ConnectorType, ConnectorUpdateStatus},
    types::{
        NetworkConnector, NetworkConnectorConfiguration, NetworkConnectorSummary,
        NetworkConnectorVersionSummary,
    },
};
use serde::{Deserialize, Serialize};

use crate::idempotency::ClientToken;

/// A way out that a MicroVM or a build has; what it opens is looked up whenever it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Way {
    /// INTERNET_EGRESS.
    Internet,
    /// What a connector's version names.
    Vpc {
        subnet_ids: Vec<String>,
        security_group_ids: Vec<String>,
    },
}

impl Way {
    /// What a MicroVM has when nothing is said, and every one that was launched before connectors were known.
    pub(crate) fn default_ways() -> Vec<Way> {
        vec![Way::Internet]
    }
}

/// A connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectorRecord {
    pub id: String,
    pub account: String,
    pub region: String,
    pub partition: String,
    pub name: String,
    pub state: ConnectorState,
    pub reason: Option<String>,
    pub reason_code: Option<ConnectorReasonCode>,
    /// The latest change after the creation.
    pub update: Option<ConnectorUpdate>,
    /// In ascending order; the last one is never deleted.
    pub versions: Vec<ConnectorVersion>,
    pub tags: BTreeMap<String, String>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub client_token: Option<ClientToken>,
}

/// How a change stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectorUpdate {
    pub status: ConnectorUpdateStatus,
    pub reason: Option<String>,
    pub reason_code: Option<ConnectorReasonCode>,
}

/// A version; its configuration never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectorVersion {
    pub number: u64,
    pub configuration: NetworkConnectorConfiguration,
    pub operator_role: String,
    pub state: ConnectorState,
    pub reason: Option<String>,
    pub reason_code: Option<ConnectorReasonCode>,
    pub modified_at: Timestamp,
    pub client_token: Option<ClientToken>,
}

impl ConnectorVersion {
    /// The way out it stands for.
    pub(crate) fn way(&self) -> Way {
        let configuration = &self.configuration.vpc_egress_configuration;
        Way::Vpc {
            subnet_ids: configuration.subnet_ids.clone().unwrap_or_default(),
            security_group_ids: configuration.security_group_ids.clone().unwrap_or_default(),
        }
    }
}

impl ConnectorRecord {
    pub(crate) fn arn(&self) -> String {
        let Self {
            partition,
            region,
            account,
            id,
            ..
        } = self;
        format!("arn:{partition}:lambda:{region}:{account}:network-connector:{id}")
    }

    fn version_arn(&self, number: u64) -> String {
        format!("{}:{number}", self.arn())
    }

    pub(crate) fn latest(&self) -> Option<&ConnectorVersion> {
        self.versions.last()
    }

    pub(crate) fn version(&self, number: u64) -> Option<&ConnectorVersion> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// The newest version that MicroVMs can use.
    pub(crate) fn usable(&self) -> Option<&ConnectorVersion> {
        let mut newest_first = self.versions.iter().rev();
        newest_first.find(|version| version.state == ConnectorState::Active)
    }

    /// The members that every operation shows.
    pub(crate) fn shown(&self, version: &ConnectorVersion) -> NetworkConnector {
        NetworkConnector {
            arn: self.arn(),
            name: self.name.clone(),
            id: self.id.clone(),
            version_arn: Some(self.version_arn(version.number)),
            version: Some(version.number),
            configuration: Some(version.configuration.clone()),
            operator_role: Some(version.operator_role.clone()),
            state: Some(self.state),
            ..NetworkConnector::default()
        }
    }

    /// As GetNetworkConnector shows it; a qualified identifier shows the state of its version.
    pub(crate) fn described(&self, version: &ConnectorVersion, qualified: bool) -> NetworkConnector {
        let (state, reason, code, modified_at) = if qualified {
            (
                version.state,
                &version.reason,
                version.reason_code,
                version.modified_at,
            )
        } else {
            (self.state, &self.reason, self.reason_code, self.modified_at)
        };
        let latest = self.latest().map(|latest| latest.number);
        let update = self.update.as_ref();
        NetworkConnector {
            state: Some(state),
            state_reason: reason.clone(),
            state_reason_code: code,
            latest_version: latest,
            latest_version_arn: latest.map(|number| self.version_arn(number)),
            last_update_status: update.map(|update| update.status),
            last_update_status_reason: update.and_then(|update| update.reason.clone()),
            last_update_status_reason_code: update.and_then(|update| update.reason_code),
            last_modified: Some(modified_at),
            ..self.shown(version)
        }
    }

    pub(crate) fn summary(&self) -> NetworkConnectorSummary {
        let latest = self.latest().map_or(0, |latest| latest.number);
        NetworkConnectorSummary {
            arn: self.arn(),
            name: self.name.clone(),
            id: self.id.clone(),
            r#type: ConnectorType::VpcEgress,
            state: self.state,
            last_modified: Some(self.modified_at),
            latest_version_arn: self.version_arn(latest),
            latest_version: latest,
        }
    }

    pub(crate) fn version_summary(&self, version: &ConnectorVersion) -> NetworkConnectorVersionSummary {
        NetworkConnectorVersionSummary {
            arn: self.arn(),
            version_arn: self.version_arn(version.number),
            name: self.name.clone(),
            id: self.id.clone(),
            version: version.number,
            state: version.state,
            state_reason: version.reason.clone(),
            state_reason_code: version.reason_code,
            last_modified: Some(version.modified_at),
        }
    }
}
