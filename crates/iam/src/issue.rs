//! Temporary credentials for roles.

use std::time::Duration;

use async_trait::async_trait;
use hearth_wire::{Sensitive, Timestamp, arn::RoleArn};

use crate::{
    Iam,
    policy::Policy,
    session::{NoRandom, Session},
};

/// Temporary credentials: good for `lambda`, `s3`, `logs` and `sts` of this service until they expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Forty characters.
    pub secret_access_key: Sensitive,
    /// Must come along with every request.
    pub session_token: Sensitive,
    /// Then requests are answered ExpiredTokenException.
    pub expires_at: Timestamp,
    /// `AROA…:<session name>`.
    pub assumed_role_id: String,
    /// `arn:aws:sts::<account>:assumed-role/<role>/<session name>`.
    pub assumed_role_arn: String,
}

/// Why a role gives no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The ARN names no role.
    #[error("{0} is not the ARN of a role")]
    NoRole(String),
    /// The role was removed, or never created while `strict_roles` is set.
    #[error("the role {0} does not exist")]
    Unknown(String),
    /// The session's policy.
    #[error("{0}")]
    Policy(#[from] crate::policy::PolicyError),
    /// This machine.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// Gives out temporary credentials of roles, as this service itself does when it acts for a MicroVM or a build.
///
/// Whoever asks has already checked that the MicroVM or build may use the role: RunMicrovm and CreateMicrovmImage refuse
/// roles of other accounts and roles that their caller may not pass. Credentials are not stored; asking again near their
/// end is how they are renewed, and they survive a restart of the daemon.
#[async_trait]
pub trait CredentialIssuer: Send + Sync + 'static {
    /// Credentials of `role_arn` for `duration`. `session_name` shows in ARNs and the audit log: 2–64 characters of
    /// `[\w+=,.@-]`, such as a MicroVM's id.
    async fn issue(
        &self,
        role_arn: &str,
        session_name: &str,
        duration: Duration,
    ) -> Result<Credentials, IssueError>;
}

#[async_trait]
impl CredentialIssuer for Iam {
    async fn issue(
        &self,
        role_arn: &str,
        session_name: &str,
        duration: Duration,
    ) -> Result<Credentials, IssueError> {
        self.open_session(role_arn, session_name, duration, None)
    }
}

impl Iam {
    /// Credentials of a role, bounded by `policy` where one is given.
    pub fn open_session(
        &self,
        role_arn: &str,
        session_name: &str,
        duration: Duration,
        policy: Option<&str>,
    ) -> Result<Credentials, IssueError> {
        let role: RoleArn = role_arn
            .parse()
            .map_err(|_| IssueError::NoRole(role_arn.to_owned()))?;
        let (role_id, _) = self
            .role(&role)
            .ok_or_else(|| IssueError::Unknown(role_arn.to_owned()))?;
        policy.map(Policy::read).transpose()?;
        let (session, session_token) =
            self.session_key()
                .seal(duration, |key, issued_at, expires_at| Session {
                    key,
                    role_arn: role.to_string(),
                    role_id,
                    name: session_name.to_owned(),
                    policy: policy.map(str::to_owned),
                    issued_at,
                    expires_at,
                })?;
        Ok(Credentials {
            secret_access_key: self.session_key().secret(&session.key),
            session_token,
            expires_at: session.expires_at,
            assumed_role_id: format!("{}:{}", session.role_id, session.name),
            assumed_role_arn: format!(
                "arn:{}:sts::{}:assumed-role/{}/{}",
                role.partition,
                role.account,
                role.name(),
                session.name
            ),
            access_key_id: session.key,
        })
    }
}
