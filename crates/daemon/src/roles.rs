//! Credentials for guests with a role: those that the operator names for it, else this service's own.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use hearth_iam::Iam;
use hearth_metadata::{CredentialIssuer, Credentials, IssueError};

use crate::config::RoleSettings;

/// Gives out credentials.
pub(crate) struct Issuer {
    configured: BTreeMap<String, RoleSettings>,
    own: Iam,
}

impl Issuer {
    pub(crate) fn new(configured: BTreeMap<String, RoleSettings>, own: Iam) -> Issuer {
        Issuer { configured, own }
    }
}

#[async_trait]
impl CredentialIssuer for Issuer {
    async fn issue(
        &self,
        role_arn: &str,
        session_name: &str,
        life: Duration,
    ) -> Result<Credentials, IssueError> {
        if let Some(keys) = self.configured.get(role_arn) {
            // They have no end that is known here: asked for again now and then, a change of the settings arrives.
            return Ok(Credentials {
                access_key_id: keys.access_key_id.clone(),
                secret_access_key: keys.secret_access_key.clone(),
                session_token: keys.session_token.clone(),
                expires_at: SystemTime::now() + life,
            });
        }
        let own = hearth_iam::CredentialIssuer::issue(&self.own, role_arn, session_name, life);
        let issued = own.await.map_err(|error| match error {
            hearth_iam::IssueError::Random(_) => IssueError::Failed(error.to_string()),
            _ => IssueError::Denied(error.to_string()),
        })?;
        let end = u64::try_from(issued.expires_at.as_millis()).unwrap_or_default();
        Ok(Credentials {
            access_key_id: issued.access_key_id,
            secret_access_key: issued.secret_access_key,
            session_token: issued.session_token,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_millis(end),
        })
    }
}
