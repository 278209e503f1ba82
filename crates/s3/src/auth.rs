//! Who is asking: access keys to secrets and accounts.

use std::sync::Arc;

use async_trait::async_trait;
use s3s::{
    S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    auth::S3Auth,
    s3_error,
};

/// What is known of an access key.
#[derive(Clone)]
pub struct SecretKey {
    /// The secret requests are signed with
    pub secret: String,
    /// The account the key belongs to, twelve digits
    pub account_id: String,
    /// The session token that must come along with a temporary key
    pub session_token: Option<String>,
}

/// Looks access keys up.
#[async_trait]
pub trait SecretKeys: Send + Sync + 'static {
    /// The key of this id, if it may be used now.
    async fn find(&self, access_key_id: &str) -> Option<SecretKey>;
}

/// The account a request acts for, among the request's extensions.
#[derive(Clone)]
struct Account(String);

/// The account of an authenticated request.
pub(crate) fn account<T>(request: &S3Request<T>) -> S3Result<String> {
    let account = request
        .extensions
        .get::<Account>()
        .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
    Ok(account.0.clone())
}

/// Finds the secret that verifies a signature.
pub(crate) struct Auth {
    pub(crate) keys: Arc<dyn SecretKeys>,
}

#[async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<s3s::auth::SecretKey> {
        let key = self.keys.find(access_key).await.ok_or_else(unknown_key)?;
        Ok(key.secret.into())
    }
}

/// Admits requests with a verified SigV4 signature and notes their account.
pub(crate) struct Access {
    pub(crate) keys: Arc<dyn SecretKeys>,
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = cx.credentials() else {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        };
        // `s3s` would take the retired version 2, too: it signs neither body nor most headers.
        let header = cx.headers().get(http::header::AUTHORIZATION);
        let version4 = match header {
            Some(value) => value.as_bytes().starts_with(b"AWS4-HMAC-SHA256"),
            None => query(cx.uri(), "X-Amz-Signature").is_some(),
        };
        if !version4 {
            return Err(s3_error!(
                InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            ));
        }
        let key = self
            .keys
            .find(&credentials.access_key)
            .await
            .ok_or_else(unknown_key)?;
        let sent = match cx.headers().get("x-amz-security-token") {
            Some(value) => value.to_str().ok().map(str::to_owned),
            None => query(cx.uri(), "X-Amz-Security-Token"),
        };
        if sent != key.session_token {
            return Err(s3_error!(
                InvalidToken,
                "The provided token is malformed or otherwise invalid."
            ));
        }
        cx.extensions_mut().insert(Account(key.account_id));
        Ok(())
    }
}

fn unknown_key() -> s3s::S3Error {
    s3_error!(
        InvalidAccessKeyId,
        "The AWS Access Key Id you provided does not exist in our records."
    )
}

/// A query parameter, decoded.
fn query(uri: &http::Uri, name: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query()?).ok()?;
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}
