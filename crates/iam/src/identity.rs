//! Whom a key stands for.

use std::sync::Arc;

use hearth_wire::{Sensitive, Timestamp, arn::RoleArn};

use crate::policy::{Context, Decision, Policy};

/// A principal, with what it may do.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// The secret its requests are signed with.
    pub secret_access_key: Sensitive,
    pub(crate) principal: Principal,
    pub(crate) permissions: Permissions,
}

#[derive(Debug, Clone)]
pub(crate) enum Principal {
    /// The account itself.
    Root,
    User {
        name: String,
        key: String,
    },
    Session {
        role: RoleArn,
        role_id: String,
        name: String,
        issued_at: Timestamp,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Permissions {
    /// Everything in its account, and managing every account.
    Administrator,
    /// What all of these allow.
    Policies(Vec<Arc<Policy>>),
    Nothing,
}

impl Identity {
    /// May do everything, and manage every account.
    pub fn is_administrator(&self) -> bool {
        matches!(self.permissions, Permissions::Administrator)
    }

    /// The principal's ARN in a partition.
    pub fn arn(&self, partition: &str) -> String {
        let account = &self.account;
        match &self.principal {
            Principal::Root => format!("arn:{partition}:iam::{account}:root"),
            Principal::User { name, .. } => format!("arn:{partition}:iam::{account}:user/{name}"),
            Principal::Session { role, name, .. } => {
                format!(
                    "arn:{partition}:sts::{account}:assumed-role/{}/{name}",
                    role.name()
                )
            }
        }
    }

    /// The `UserId` of GetCallerIdentity.
    pub fn user_id(&self) -> String {
        match &self.principal {
            Principal::Root => self.account.clone(),
            // Unique for as long as the key is, as the id of a user is.
            Principal::User { key, .. } => key.replacen("AKIA", "AIDA", 1),
            Principal::Session { role_id, name, .. } => format!("{role_id}:{name}"),
        }
    }

    /// What the principal's policies say.
    pub fn decide(&self, action: &str, resource: &str, context: &Context) -> Decision {
        match &self.permissions {
            Permissions::Administrator => Decision::Allow,
            Permissions::Nothing => Decision::Silent,
            Permissions::Policies(policies) => policies
                .iter()
                .map(|policy| policy.decide(action, resource, context))
                .reduce(Decision::and)
                .unwrap_or(Decision::Silent),
        }
    }

    /// Sets the condition keys that tell of the principal.
    pub(crate) fn describe(&self, partition: &str, context: &mut Context) {
        context.set("aws:PrincipalAccount", &self.account);
        context.set("aws:userid", self.user_id());
        match &self.principal {
            Principal::Root => {
                context.set("aws:PrincipalArn", self.arn(partition));
                context.set("aws:PrincipalType", "Account");
            }
            Principal::User { name, .. } => {
                context.set("aws:PrincipalArn", self.arn(partition));
                context.set("aws:PrincipalType", "User");
                context.set("aws:username", name);
            }
            Principal::Session { role, issued_at, .. } => {
                context.set("aws:PrincipalArn", role.to_string());
                context.set("aws:PrincipalType", "AssumedRole");
                context.set("aws:TokenIssueTime", rfc3339(*issued_at));
            }
        }
    }
}

/// The form in which conditions compare times.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time::OffsetDateTime::from_unix_timestamp(time.as_millis().div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}
