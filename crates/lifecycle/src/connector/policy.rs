//! What a connector's request must have, and what a change makes of it. Pure.

use hearth_wire::{
    ApiError, Timestamp,
    enums::{ComputeResourceType, ConnectorReasonCode, ConnectorState, ConnectorUpdateStatus},
    texts,
    types::{CreateNetworkConnectorRequest, VpcEgressConfiguration},
};

use super::record::{ConnectorRecord, ConnectorUpdate, ConnectorVersion};

/// Why a connector is in the state it was created into.
const INITIAL: &str = "Initial creation";
/// What a change without a difference reports.
const NO_CHANGE: &str = "No configuration changes detected";

/// Members that the model calls optional and the service wants, in the recorded order (spec 4.7).
pub(crate) fn required(request: &CreateNetworkConnectorRequest) -> Result<String, ApiError> {
    let configuration = &request.configuration.vpc_egress_configuration;
    let want = |there: bool, text: &'static str| {
        if there {
            Ok(())
        } else {
            Err(texts::connector_member_required(text))
        }
    };
    want(request.client_token.is_some(), "ClientToken is a required field")?;
    complete(configuration)?;
    request
        .operator_role
        .clone()
        .filter(|role| !role.is_empty())
        .ok_or_else(|| {
            texts::connector_member_required(
                "NetworkConnectorOperatorRole is required for VPC_EGRESS connector type",
            )
        })
}

fn complete(configuration: &VpcEgressConfiguration) -> Result<(), ApiError> {
    let missing = if configuration.associated_compute_resource_types.is_none() {
        "AssociatedComputeResourceTypes is required for VPC_EGRESS connector type"
    } else if configuration.network_protocol.is_none() {
        "NetworkProtocol cannot be null or empty for VPC_EGRESS connector"
    } else if configuration.subnet_ids.is_none() {
        "SubnetIds cannot be null or empty for VPC_EGRESS connector"
    } else {
        return Ok(());
    };
    Err(texts::connector_member_required(missing))
}

/// A configuration after a change: what the change does not name stays.
pub(crate) fn merged(
    current: &VpcEgressConfiguration,
    change: Option<VpcEgressConfiguration>,
) -> VpcEgressConfiguration {
    let change = change.unwrap_or_default();
    let current = current.clone();
    VpcEgressConfiguration {
        subnet_ids: change.subnet_ids.or(current.subnet_ids),
        security_group_ids: change.security_group_ids.or(current.security_group_ids),
        network_protocol: change.network_protocol.or(current.network_protocol),
        associated_compute_resource_types: change
            .associated_compute_resource_types
            .or(current.associated_compute_resource_types),
        elastic_ip_configuration: change
            .elastic_ip_configuration
            .or(current.elastic_ip_configuration),
    }
}

/// Whether a connector may be changed now.
pub(crate) fn may_change(connector: &ConnectorRecord) -> Result<(), ApiError> {
    let changing = connector
        .update
        .as_ref()
        .is_some_and(|update| update.status == ConnectorUpdateStatus::InProgress);
    match connector.state {
        ConnectorState::Pending | ConnectorState::Deleting => Err(texts::connector_busy(connector.arn())),
        _ if changing => Err(texts::connector_busy(connector.arn())),
        _ => Ok(()),
    }
}

/// Notes that a change made no difference.
pub(crate) fn unchanged(connector: &mut ConnectorRecord) {
    connector.update = Some(ConnectorUpdate {
        status: ConnectorUpdateStatus::Successful,
        reason: Some(NO_CHANGE.into()),
        reason_code: None,
    });
}

/// Adds a version that is to be provisioned.
pub(crate) fn begin_update(connector: &mut ConnectorRecord, version: ConnectorVersion) {
    connector.modified_at = version.modified_at;
    connector.versions.push(version);
    connector.update = Some(ConnectorUpdate {
        status: ConnectorUpdateStatus::InProgress,
        reason: None,
        reason_code: None,
    });
}

/// Settles the latest version: usable, or not for a reason.
pub(crate) fn settle(
    connector: &mut ConnectorRecord,
    verdict: Result<(), (ConnectorReasonCode, String)>,
    now: Timestamp,
) {
    let (state, reason, code) = match verdict {
        Ok(()) => (ConnectorState::Active, None, None),
        Err((code, reason)) => (ConnectorState::Failed, Some(reason), Some(code)),
    };
    connector.modified_at = now;
    let first = connector.versions.len() == 1 && connector.update.is_none();
    if let Some(version) = connector.versions.last_mut() {
        version.state = state;
        version.reason = reason.clone().or_else(|| first.then(|| INITIAL.into()));
        version.reason_code = code;
        version.modified_at = now;
    }
    if let Some(update) = &mut connector.update {
        update.status = match state {
            ConnectorState::Active => ConnectorUpdateStatus::Successful,
            _ => ConnectorUpdateStatus::Failed,
        };
        update.reason.clone_from(&reason);
        update.reason_code = code;
    }
    // A change that fails leaves an ACTIVE connector ACTIVE, on its former version.
    if first || state == ConnectorState::Active {
        connector.state = state;
        connector.reason = reason.or_else(|| Some(INITIAL.into()));
        connector.reason_code = code;
    }
}

/// Whether a MicroVM may go out by a version.
pub(crate) fn usable(version: &ConnectorVersion) -> bool {
    let configuration = &version.configuration.vpc_egress_configuration;
    let types = configuration.associated_compute_resource_types.as_deref();
    version.state == ConnectorState::Active && types == Some(&[ComputeResourceType::MicroVm])
}

#[cfg(test)]
mod tests {
    use hearth_wire::{enums::NetworkProtocol, types::NetworkConnectorConfiguration};

    use super::*;

    fn version(number: u64) -> ConnectorVersion {
        ConnectorVersion {
            number,
            configuration: NetworkConnectorConfiguration::default(),
            operator_role: "arn:aws:iam::111122223333:role/operator".into(),
            state: ConnectorState::Pending,
            reason: None,
            reason_code: None,
            modified_at: Timestamp::from_millis(0),
            client_token: None,
        }
    }

    fn pending() -> ConnectorRecord {
        ConnectorRecord {
            id: "nc-1".into(),
            account: "111122223333".into(),
            region: "us-east-1".into(),
            partition: "aws".into(),
            name: "net".into(),
            state: ConnectorState::Pending,
            reason: None,
            reason_code: None,
            update: None,
            versions: vec![version(1)],
            tags: Default::default(),
            created_at: Timestamp::from_millis(0),
            modified_at: Timestamp::from_millis(0),
            client_token: None,
        }
    }

    fn failure() -> Result<(), (ConnectorReasonCode, String)> {
        Err((ConnectorReasonCode::InvalidSubnet, "why".into()))
    }

    #[test]
    fn missing_members_are_reported_one_by_one_in_the_recorded_order() {
        let mut request = CreateNetworkConnectorRequest::default();
        let text = |request: &CreateNetworkConnectorRequest| {
            required(request)
                .err()
                .and_then(|error| error.message)
                .unwrap_or_default()
        };
        assert_eq!(text(&request), "ClientToken is a required field");
        request.client_token = Some("t".into());
        assert!(text(&request).starts_with("AssociatedComputeResourceTypes is required"));
        let configuration = &mut request.configuration.vpc_egress_configuration;
        configuration.associated_compute_resource_types = Some(vec![ComputeResourceType::MicroVm]);
        assert!(text(&request).starts_with("NetworkProtocol cannot be null or empty"));
        request.configuration.vpc_egress_configuration.network_protocol = Some(NetworkProtocol::Ipv4);
        request.configuration.vpc_egress_configuration.subnet_ids = Some(vec!["subnet-1".into()]);
        assert!(text(&request).starts_with("NetworkConnectorOperatorRole is required"));
        request.operator_role = Some("role".into());
        assert_eq!(required(&request), Ok("role".into()));
    }

    #[test]
    fn a_new_connector_becomes_active_or_failed() {
        let mut connector = pending();
        assert!(may_change(&connector).is_err());
        settle(&mut connector, Ok(()), Timestamp::from_millis(1));
        assert_eq!(
            (connector.state, connector.reason.as_deref()),
            (ConnectorState::Active, Some("Initial creation"))
        );
        let mut connector = pending();
        settle(&mut connector, failure(), Timestamp::from_millis(1));
        assert_eq!(connector.state, ConnectorState::Failed);
        assert_eq!(connector.reason_code, Some(ConnectorReasonCode::InvalidSubnet));
        assert!(connector.usable().is_none());
    }

    #[test]
    fn a_change_that_fails_leaves_the_former_version_in_use() {
        let mut connector = pending();
        settle(&mut connector, Ok(()), Timestamp::from_millis(1));
        begin_update(&mut connector, version(2));
        assert!(may_change(&connector).is_err(), "one change at a time");
        settle(&mut connector, failure(), Timestamp::from_millis(2));
        assert_eq!(connector.state, ConnectorState::Active);
        assert_eq!(connector.usable().map(|version| version.number), Some(1));
        assert_eq!(
            connector.update.map(|update| update.status),
            Some(ConnectorUpdateStatus::Failed)
        );
    }
}
