//! A store behind the front end on a loopback port, and clients of it.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_s3::{
    Client,
    config::{Credentials, Region, SharedCredentialsProvider},
};
use hearth_s3::{S3, SecretKeys};
use hearth_storage::objects::Objects;
use hearth_wire::{ApiError, Call, ErrorKind, Guard, Request};

pub(crate) const ME: &str = "111111111111";

/// Account and session token by id; all have the same secret.
pub(crate) struct Keys(HashMap<&'static str, (&'static str, Option<&'static str>)>);

#[async_trait::async_trait]
impl SecretKeys for Keys {
    async fn secret(&self, access_key_id: &str) -> Option<String> {
        self.0.contains_key(access_key_id).then(|| "secret".to_owned())
    }

    async fn account(&self, access_key_id: &str, session_token: Option<&str>) -> Result<String, ApiError> {
        match self.0.get(access_key_id) {
            Some((account, token)) if *token == session_token => Ok((*account).to_owned()),
            _ => Err(ApiError::silent(ErrorKind::UnrecognizedClient)),
        }
    }
}

/// Refuses whatever is about an object whose name begins with `secret`.
struct NoSecrets;

#[async_trait::async_trait]
impl Guard for NoSecrets {
    async fn admit(&self, call: &Call) -> Result<(), ApiError> {
        match &call.request {
            Request::S3(action, resource) if resource.contains("/secret") => {
                Err(ApiError::access_denied(format!("no {action}")))
            }
            _ => Ok(()),
        }
    }

    async fn ended(&self, _call: &Call, _status: u16, _error: Option<&str>) {}
}

/// A running store; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let keys = Keys(
            [
                ("AKIDME", (ME, None)),
                ("ASIAME", (ME, Some("token"))),
                ("AKIDOTHER", ("222222222222", None)),
            ]
            .into(),
        );
        let service = S3::new(
            Objects::open(dir.path()).await.expect("a new store opens"),
            Arc::new(keys),
            Arc::new(NoSecrets),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let service = service.clone();
                let answer = hyper::service::service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, std::convert::Infallible>(service.call(request).await) }
                });
                let io = hyper_util::rt::TokioIo::new(connection);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, answer));
            }
        });
        Self { address, dir }
    }

    /// The AWS SDK for Rust with a key of ours.
    pub(crate) fn client(&self, key: &str, secret: &str, token: Option<&str>) -> Client {
        let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .endpoint_url(format!("http://{}", self.address))
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::from_conf(config)
    }

    pub(crate) fn me(&self) -> Client {
        self.client("AKIDME", "secret", None)
    }
}
