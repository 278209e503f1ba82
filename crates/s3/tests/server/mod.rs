//! A store behind the front end on a loopback port, and clients of it.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_s3::{
    Client,
    config::{Credentials, Region, SharedCredentialsProvider},
};
use hearth_s3::{S3, SecretKey, SecretKeys};
use hearth_storage::objects::Objects;

pub(crate) const ME: &str = "111111111111";

/// Keys by id.
pub(crate) struct Keys(HashMap<&'static str, SecretKey>);

#[async_trait::async_trait]
impl SecretKeys for Keys {
    async fn find(&self, access_key_id: &str) -> Option<SecretKey> {
        self.0.get(access_key_id).cloned()
    }
}

/// A running store; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = |account: &str, token: Option<&str>| SecretKey {
            secret: "secret".to_owned(),
            account_id: account.to_owned(),
            session_token: token.map(str::to_owned),
        };
        let keys = Keys(
            [
                ("AKIDME", key(ME, None)),
                ("ASIAME", key(ME, Some("token"))),
                ("AKIDOTHER", key("222222222222", None)),
            ]
            .into(),
        );
        let service = S3::new(
            Objects::open(dir.path()).await.expect("a new store opens"),
            Arc::new(keys),
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
