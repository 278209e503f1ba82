use std::collections::BTreeMap;

use hearth_network::{Allowed, Egress, Outlet, Range};
use hearth_wire::{
    enums::{ConnectorReasonCode, NetworkProtocol},
    types::VpcEgressConfiguration,
};

use super::record::Way;

/// What subnets and security groups mean on this node.
#[derive(Debug, Clone, Default)]
pub struct NetworkMap {
    /// The address ranges that each subnet reaches.
    pub subnets: BTreeMap<String, Vec<Range>>,
    /// The destinations that each security group allows.
    pub security_groups: BTreeMap<String, Vec<Allowed>>,
}

impl NetworkMap {
    /// Whether everything a configuration names is known here; else the reason.
    pub(crate) fn check(
        &self,
        configuration: &VpcEgressConfiguration,
    ) -> Result<(), (ConnectorReasonCode, String)> {
        let missing = |ids: &Option<Vec<String>>, known: &dyn Fn(&String) -> bool| {
            ids.iter().flatten().find(|id| !known(id)).cloned()
        };
        if let Some(id) = missing(&configuration.subnet_ids, &|id| self.subnets.contains_key(id)) {
            let text = format!(
                "The subnet ID '{id}' does not exist: this node's settings have no network.subnets.{id}"
            );
            return Err((ConnectorReasonCode::InvalidSubnet, text));
        }
        if let (Some(NetworkProtocol::DualStack), Some(id)) = (
            configuration.network_protocol,
            configuration.subnet_ids.iter().flatten().next(),
        ) {
            let text = format!(
                "The subnet ID '{id}' has no IPv6 addresses: MicroVMs of this node speak IPv4, so that NetworkProtocol must be IPv4"
            );
            return Err((ConnectorReasonCode::InvalidSubnet, text));
        }
        let groups = &configuration.security_group_ids;
        if let Some(id) = missing(groups, &|id| self.security_groups.contains_key(id)) {
            let text = format!(
                "The security group '{id}' does not exist: this node's settings have no network.security_groups.{id}"
            );
            return Err((ConnectorReasonCode::InvalidSecurityGroup, text));
        }
        Ok(())
    }

    /// What a MicroVM with these ways out reaches now. A subnet or group that is no longer configured opens nothing.
    pub(crate) fn egress(&self, ways: &[Way]) -> Egress {
        let outlets = ways.iter().map(|way| match way {
            Way::Internet => Outlet::Internet,
            Way::Vpc {
                subnet_ids,
                security_group_ids,
            } => Outlet::Within {
                ranges: subnet_ids
                    .iter()
                    .filter_map(|id| self.subnets.get(id))
                    .flatten()
                    .copied()
                    .collect(),
                // Without a group of its own a connector has a VPC's default one, which lets everything out.
                allowed: (!security_group_ids.is_empty()).then(|| {
                    security_group_ids
                        .iter()
                        .filter_map(|id| self.security_groups.get(id))
                        .flatten()
                        .cloned()
                        .collect()
                }),
            },
        });
        Egress {
            outlets: outlets.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> NetworkMap {
        NetworkMap {
            subnets: [("subnet-a".into(), vec!["10.1.0.0/16".parse().expect("a range")])].into(),
            security_groups: [("sg-none".into(), vec![])].into(),
        }
    }

    fn configuration(subnets: &[&str], groups: &[&str]) -> VpcEgressConfiguration {
        let owned = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect());
        VpcEgressConfiguration {
            subnet_ids: owned(subnets),
            security_group_ids: owned(groups),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_not_configured_is_named_with_its_code() {
        assert_eq!(map().check(&configuration(&["subnet-a"], &["sg-none"])), Ok(()));
        let code = |subnets: &[&str], groups: &[&str]| {
            map()
                .check(&configuration(subnets, groups))
                .expect_err("unknown")
                .0
        };
        assert_eq!(
            code(&["subnet-a", "subnet-b"], &["sg-x"]),
            ConnectorReasonCode::InvalidSubnet
        );
        assert_eq!(
            code(&["subnet-a"], &["sg-x"]),
            ConnectorReasonCode::InvalidSecurityGroup
        );
        let dual = VpcEgressConfiguration {
            network_protocol: Some(NetworkProtocol::DualStack),
            ..configuration(&["subnet-a"], &[])
        };
        let (code, reason) = map().check(&dual).expect_err("no IPv6");
        assert!(
            code == ConnectorReasonCode::InvalidSubnet && reason.contains("IPv6"),
            "{reason}"
        );
    }

    #[test]
    fn no_group_allows_everything_and_an_unknown_or_empty_one_nothing() {
        let allowed = |groups: &[&str]| {
            let way = Way::Vpc {
                subnet_ids: vec!["subnet-a".into()],
                security_group_ids: groups.iter().map(|id| (*id).to_owned()).collect(),
            };
            match map().egress(&[way]).outlets.remove(0) {
                Outlet::Within { allowed, .. } => allowed,
                Outlet::Internet => panic!("not the Internet"),
            }
        };
        assert_eq!(allowed(&[]), None);
        assert_eq!(allowed(&["sg-none"]), Some(vec![]));
        assert_eq!(allowed(&["sg-gone"]), Some(vec![]));
    }
}
