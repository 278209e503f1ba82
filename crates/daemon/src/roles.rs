//! Credentials for guests with a role: those that the operator names for it, or this service's own.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use hearth_metadata::{CredentialIssuer, Credentials, IssueError};

use crate::config::RoleSettings;

/// Gives out credentials.
pub(crate) struct Issuer {
    configured: BTreeMap<String, RoleSettings>,
}

impl Issuer {
    pub(crate) fn new(configured: BTreeMap<String, RoleSettings>) -> Issuer {
        Issuer { configured }
    }
}

#[async_trait]
impl CredentialIssuer for Issuer {
    async fn issue(
        &self,
        role_arn: &str,
        _session_name: &str,
        life: Duration,
    ) -> Result<Credentials, IssueError> {
        let Some(keys) = self.configured.get(role_arn) else {
            return Err(IssueError::Denied(format!(
                "this node has no credentials for {role_arn}"
            )));
        };
        // They have no end that is known here: asked for again now and then, a change of the settings arrives.
        Ok(Credentials {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key: keys.secret_access_key.clone(),
            session_token: keys.session_token.clone(),
            expires_at: SystemTime::now() + life,
        })
    }
}
