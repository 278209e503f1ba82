//! Who is asking, and whether they may: access keys to secrets and accounts, operations to actions and resources.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use hearth_crowd::Visit;
use hearth_telemetry::Span;
use hearth_wire::{ApiError, Call, Caller, ErrorKind, Guard, Request, partition_of};
use percent_encoding::percent_decode_str;
use s3s::{
    S3ErrorCode, S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    auth::S3Auth,
    dto::DeleteObjectsInput,
    path::S3Path,
    s3_error,
};

/// Looks access keys up.
#[async_trait]
pub trait SecretKeys: Send + Sync + 'static {
    /// The secret that a key of this id signs with.
    async fn secret(&self, access_key_id: &str) -> Option<String>;

    /// The account that a key stands for now; a temporary key must come along with its token.
    async fn account(&self, access_key_id: &str, session_token: Option<&str>) -> Result<String, ApiError>;
}

/// The account a request acts for, among the request's extensions.
#[derive(Clone)]
struct Account(String);

/// Where the call that a request turned out to be is left for whoever answers it.
#[derive(Clone, Default)]
pub(crate) struct Noted(pub(crate) Arc<OnceLock<Call>>);

/// The id of a request, among its extensions.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

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
        let secret = self.keys.secret(access_key).await.ok_or_else(unknown_key)?;
        Ok(secret.into())
    }
}

/// Admits requests with a verified SigV4 signature and the permission for what they do, and notes their account.
pub(crate) struct Access {
    pub(crate) keys: Arc<dyn SecretKeys>,
    pub(crate) guard: Arc<dyn Guard>,
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = cx.credentials() else {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        };
        let access_key_id = credentials.access_key.clone();
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
        let session_token =
            text(cx, "x-amz-security-token").or_else(|| query(cx.uri(), "X-Amz-Security-Token"));
        let account_id = self
            .keys
            .account(&access_key_id, session_token.as_deref())
            .await
            .map_err(refusal)?;
        if let Some(visit) = extension::<Arc<Visit>>(cx) {
            visit.vouch();
        }
        if let Some(trace) = extension::<Arc<Span>>(cx) {
            trace.asks_for("s3", cx.s3_op().name());
        }
        let region = region(cx);
        let caller = Caller {
            account_id: account_id.clone(),
            partition: partition_of(&region).to_owned(),
            region,
            access_key_id,
            request_id: extension::<RequestId>(cx).map_or_else(String::new, |id| id.0),
        };
        let source = extension::<SocketAddr>(cx).map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
        let call = Call {
            session_token: session_token.map(Into::into),
            source,
            user_agent: text(cx, "user-agent"),
            request: asked(&caller.partition, cx.s3_op().name(), cx.s3_path()),
            caller,
        };
        if let Some(noted) = extension::<Noted>(cx) {
            let _first_of_a_request = noted.0.set(call.clone());
        }
        self.guard.admit(&call).await.map_err(refusal)?;
        if let Some(source) = text(cx, "x-amz-copy-source") {
            let request = read(&call.caller.partition, &copied(&source));
            let call = Call {
                request,
                ..call.clone()
            };
            self.guard.admit(&call).await.map_err(refusal)?;
        }
        let extensions = cx.extensions_mut();
        extensions.insert(Account(account_id));
        extensions.insert(call);
        Ok(())
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let call = request.extensions.get::<Call>().cloned();
        let call = call.ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        for object in &request.input.delete.objects {
            let resource = arn(&call.caller.partition, &request.input.bucket, Some(&object.key));
            let request = Request::S3("DeleteObject".into(), resource);
            let call = Call {
                request,
                ..call.clone()
            };
            self.guard.admit(&call).await.map_err(refusal)?;
        }
        Ok(())
    }
}

/// The action of an operation, which often has another name, and its resource.
fn asked(partition: &str, operation: &str, path: &S3Path) -> Request {
    let action = match operation {
        "HeadObject" | "GetObjectAttributes" => "GetObject",
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => "ListBucket",
        "ListBuckets" => "ListAllMyBuckets",
        "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload" => "PutObject",
        "ListParts" => "ListMultipartUploadParts",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        // Its keys stand in the body: they are asked for one by one.
        "DeleteObjects" => "DeleteObject",
        other => other,
    };
    let resource = match path {
        S3Path::Root => "*".to_owned(),
        S3Path::Bucket { bucket } if operation == "DeleteObjects" => arn(partition, bucket, Some("*")),
        S3Path::Bucket { bucket } => arn(partition, bucket, None),
        S3Path::Object { bucket, key } => arn(partition, bucket, Some(key)),
    };
    Request::S3(action.to_owned(), resource)
}

/// What must be allowed of the source of a copy, `<bucket>/<key>`.
fn read(partition: &str, source: &str) -> Request {
    let (bucket, key) = source.split_once('/').unwrap_or((source, ""));
    Request::S3("GetObject".into(), arn(partition, bucket, Some(key)))
}

/// `x-amz-copy-source` without its escapes, leading slash and version.
fn copied(source: &str) -> String {
    let path = source.split_once("?versionId=").map_or(source, |(path, _)| path);
    let path = percent_decode_str(path).decode_utf8_lossy();
    path.strip_prefix('/').unwrap_or(&path).to_owned()
}

fn arn(partition: &str, bucket: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => format!("arn:{partition}:s3:::{bucket}/{key}"),
        None => format!("arn:{partition}:s3:::{bucket}"),
    }
}

/// From the credential scope; the signature has been verified with it.
fn region(cx: &S3AccessContext<'_>) -> String {
    let scope = match text(cx, "authorization") {
        Some(header) => header
            .split_once("Credential=")
            .map(|(_, behind)| behind.to_owned()),
        None => query(cx.uri(), "X-Amz-Credential"),
    };
    let region = scope.as_deref().and_then(|scope| scope.split('/').nth(2));
    region.unwrap_or_default().to_owned()
}

fn text(cx: &S3AccessContext<'_>, header: &str) -> Option<String> {
    let value = cx.headers().get(header)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn extension<T: Clone + Send + Sync + 'static>(cx: &mut S3AccessContext<'_>) -> Option<T> {
    cx.extensions_mut().get::<T>().cloned()
}

fn unknown_key() -> s3s::S3Error {
    s3_error!(
        InvalidAccessKeyId,
        "The AWS Access Key Id you provided does not exist in our records."
    )
}

/// The errors of this protocol.
fn refusal(error: ApiError) -> s3s::S3Error {
    let message = error.message.unwrap_or_default();
    match error.kind {
        ErrorKind::AccessDenied => s3s::S3Error::with_message(S3ErrorCode::AccessDenied, message),
        ErrorKind::ExpiredToken => s3_error!(ExpiredToken, "The provided token has expired."),
        ErrorKind::UnrecognizedClient => s3_error!(
            InvalidToken,
            "The provided token is malformed or otherwise invalid."
        ),
        _ => s3_error!(
            InternalError,
            "We encountered an internal error. Please try again."
        ),
    }
}

/// A query parameter, decoded.
fn query(uri: &http::Uri, name: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(uri.query()?).ok()?;
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_become_the_actions_that_policies_name() {
        let object = S3Path::Object {
            bucket: "b".into(),
            key: "d/k".into(),
        };
        let bucket = S3Path::Bucket { bucket: "b".into() };
        for (operation, path, action, resource) in [
            ("HeadObject", &object, "GetObject", "arn:aws:s3:::b/d/k"),
            ("UploadPart", &object, "PutObject", "arn:aws:s3:::b/d/k"),
            ("ListObjectsV2", &bucket, "ListBucket", "arn:aws:s3:::b"),
            ("DeleteObjects", &bucket, "DeleteObject", "arn:aws:s3:::b/*"),
            ("ListBuckets", &S3Path::Root, "ListAllMyBuckets", "*"),
        ] {
            let Request::S3(asked_action, asked_resource) = asked("aws", operation, path) else {
                panic!("{operation} is of S3");
            };
            assert_eq!(
                (asked_action.as_str(), asked_resource.as_str()),
                (action, resource)
            );
        }
    }

    #[test]
    fn the_source_of_a_copy_is_read_as_it_will_be_copied() {
        for source in ["/b/a%20k", "b/a%20k", "b/a k?versionId=x"] {
            assert_eq!(copied(source), "b/a k", "{source}");
        }
    }
}
