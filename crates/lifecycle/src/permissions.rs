//! What this service does in the name of a role, only when the role may.

use hearth_wire::partition_of;

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
            .role_may(actor.account, actor.role_arn, "s3:GetObject", &resource)
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
        .all(|(action, resource)| self.iam.role_may(account, role_arn, action, resource))
    }
}
