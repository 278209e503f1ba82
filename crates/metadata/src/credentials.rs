//! A guest's credentials: issued when it asks, kept while they are good for long enough.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hearth_wire::Sensitive;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Mutex;

/// How long credentials live (spec section 23).
const LIFE: Duration = Duration::from_secs(55 * 60);
/// Credentials with less time left are replaced: SDKs ask again some minutes before the end.
const RENEW_BEFORE: Duration = Duration::from_secs(20 * 60);

/// Temporary credentials of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Sensitive,
    /// Goes with every request; keys that need none have an empty one.
    pub session_token: Sensitive,
    /// When they end.
    pub expires_at: SystemTime,
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The role is not there, or may not be taken on.
    #[error("the role cannot be assumed: {0}")]
    Denied(String),
    /// Something of this node failed.
    #[error("credentials cannot be issued now: {0}")]
    Failed(String),
}

/// Makes credentials for roles.
#[async_trait]
pub trait CredentialIssuer: Send + Sync + 'static {
    /// Credentials of `role_arn` for a session of this name, good for about `life`.
    async fn issue(
        &self,
        role_arn: &str,
        session_name: &str,
        life: Duration,
    ) -> Result<Credentials, IssueError>;
}

/// The credentials a guest has now.
#[derive(Debug, Default)]
pub(crate) struct Current(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    credentials: Option<(Credentials, SystemTime)>,
    /// Said in the log, once: a guest asks as often as it likes.
    error: Option<IssueError>,
}

impl Current {
    /// The document a guest gets; what went wrong stands in it, as SDKs expect.
    pub(crate) async fn document(
        &self,
        issuer: &dyn CredentialIssuer,
        role_arn: &str,
        session: &str,
    ) -> Value {
        let mut held = self.0.lock().await;
        let now = SystemTime::now();
        let good = |credentials: &Credentials| credentials.expires_at > now + RENEW_BEFORE;
        if held
            .credentials
            .as_ref()
            .is_none_or(|(credentials, _)| !good(credentials))
        {
            match issuer.issue(role_arn, session, LIFE).await {
                Ok(credentials) => {
                    *held = Held {
                        credentials: Some((credentials, now)),
                        error: None,
                    };
                }
                Err(error) => {
                    if held.error.as_ref() != Some(&error) {
                        tracing::warn!(session, %error, "a guest has no credentials");
                    }
                    let code = match error {
                        IssueError::Denied(_) => "AssumeRoleUnauthorizedAccess",
                        IssueError::Failed(_) => "Failed",
                    };
                    let document =
                        json!({"Code": code, "Message": error.to_string(), "LastUpdated": text(now)});
                    held.error = Some(error);
                    return document;
                }
            }
        }
        let Some((credentials, updated)) = &held.credentials else {
            return Value::Null;
        };
        json!({
            "Code": "Success",
            "LastUpdated": text(*updated),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key.0,
            "Token": credentials.session_token.0,
            "Expiration": text(credentials.expires_at),
        })
    }
}

/// To the second, as SDKs of every age read it.
fn text(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0)
        .unwrap_or(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Numbers what it issues; each is good for `life`.
    struct Counting {
        issued: AtomicU32,
        life: Duration,
    }

    #[async_trait]
    impl CredentialIssuer for Counting {
        async fn issue(&self, role: &str, session: &str, life: Duration) -> Result<Credentials, IssueError> {
            if role == "denied" {
                return Err(IssueError::Denied("no such role".into()));
            }
            assert_eq!((session, life), ("microvm-1", LIFE));
            let number = self.issued.fetch_add(1, Ordering::Relaxed);
            Ok(Credentials {
                access_key_id: format!("ASIA{number}"),
                secret_access_key: "secret".to_owned().into(),
                session_token: "token".to_owned().into(),
                expires_at: SystemTime::now() + self.life,
            })
        }
    }

    fn issuer(life: Duration) -> Counting {
        Counting {
            issued: AtomicU32::new(0),
            life,
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_while_they_live_and_renewed_before_they_end() {
        let (current, long) = (Current::default(), issuer(LIFE));
        let first = current.document(&long, "role", "microvm-1").await;
        assert_eq!(
            (&first["Code"], &first["AccessKeyId"]),
            (&json!("Success"), &json!("ASIA0"))
        );
        assert_eq!(current.document(&long, "role", "microvm-1").await, first);
        let (current, short) = (Current::default(), issuer(RENEW_BEFORE - Duration::from_secs(1)));
        current.document(&short, "role", "microvm-1").await;
        let second = current.document(&short, "role", "microvm-1").await;
        assert_eq!(second["AccessKeyId"], json!("ASIA1"));
    }

    #[tokio::test]
    async fn a_role_that_cannot_be_assumed_is_told_in_the_document() {
        let document = Current::default()
            .document(&issuer(LIFE), "denied", "microvm-1")
            .await;
        assert_eq!(document["Code"], json!("AssumeRoleUnauthorizedAccess"));
        assert!(document.get("SecretAccessKey").is_none());
    }

    #[test]
    fn times_are_whole_seconds_of_utc() {
        assert_eq!(
            text(SystemTime::UNIX_EPOCH + Duration::from_millis(1_785_000_000_123)),
            "2026-07-25T17:20:00Z"
        );
    }
}
