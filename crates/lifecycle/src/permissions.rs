//! What this service does in the name of a role, only when the role may.

use hearth_wire::{partition_of, types::VpcEgressConfiguration};

use crate::node::Node;

/// For whom and where something is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub role_arn: &'a str,
}

impl Node {
    /// Whether a role may read an object.
    pub(crate) fn may_read(&self, actor: Actor<'_>, bucket: &str, key: &str) -> bool {
        let partition = partition_of(actor.region);
        let resource = format!("arn:{partition}:s3:::{bucket}/{key}");
        self.iam
            .role_may(actor.account, actor.role_arn, "s3:GetObject", &resource, &[])
    }

    /// Whether a role may write a log stream, and make it and its group where they are missing (spec section 24).
    pub(crate) fn may_log(&self, actor: Actor<'_>, group: &str, stream: &str) -> bool {
        let Actor {
            account,
            region,
            role_arn,
        } = actor;
        let group = format!(
            "arn:{}:logs:{region}:{account}:log-group:{group}",
            partition_of(region)
        );
        let stream = format!("{group}:log-stream:{stream}");
        [
            ("logs:CreateLogGroup", &group),
            ("logs:CreateLogStream", &stream),
            ("logs:PutLogEvents", &stream),
        ]
        .iter()
        .all(|(action, resource)| self.iam.role_may(account, role_arn, action, resource, &[]))
    }

    /// Whether an operator role may connect MicroVMs to these subnets and security groups (spec section 22.3).
    pub(crate) fn may_connect(&self, actor: Actor<'_>, network: &VpcEgressConfiguration) -> bool {
        let Actor {
            account,
            region,
            role_arn,
        } = actor;
        let arn =
            |kind: &str, id: &str| format!("arn:{}:ec2:{region}:{account}:{kind}/{id}", partition_of(region));
        let subnets = network.subnet_ids.iter().flatten();
        let groups = network.security_group_ids.iter().flatten();
        let interface = arn("network-interface", "*");
        let mut parts = subnets
            .map(|id| arn("subnet", id))
            .chain(groups.map(|id| arn("security-group", id)))
            .chain([interface.clone()]);
        let may = |action, resource: &str, conditions: &[_]| {
            self.iam.role_may(account, role_arn, action, resource, conditions)
        };
        parts.all(|part| may("ec2:CreateNetworkInterface", &part, &[]))
            && may(
                "ec2:CreateTags",
                &interface,
                &[(
                    "ec2:ManagedResourceOperator",
                    "network-connectors.lambda.amazonaws.com",
                )],
            )
    }
}
