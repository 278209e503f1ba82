//! A server on loopback with a control plane that only remembers, and clients that sign.

mod client;
mod fake;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
pub(crate) use client::{Answer, Signing};
pub(crate) use fake::{Fake, image_arn};
use hearth_api::{
    AccessKey, ApiConfig, Body, BoxError, JsonService, JsonServiceError, Keys, Services, serve,
};
use hearth_wire::Caller;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tower::util::BoxCloneSyncService;

pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(crate) const REGION: &str = "eu-west-1";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) client_tls: Arc<rustls::ClientConfig>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(ApiConfig::default()).await
    }

    pub(crate) async fn start_with(config: ApiConfig) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .expect("certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server_tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                signing_key.serialize_der().try_into().expect("key"),
            )
            .expect("server TLS");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).expect("root");
        let client_tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let fake = Arc::new(Fake::default());
        let services = Services {
            control_plane: fake.clone(),
            keys: Arc::new(OneKey),
            s3: BoxCloneSyncService::new(tower::service_fn(count_body)),
            logs: Arc::new(Logs),
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, Arc::new(server_tls), config, services, shutdown));
        Self {
            address,
            fake,
            client_tls: Arc::new(client_tls),

            stop,
            task,
        }
    }

    /// Tells the server to stop and waits until it has.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("the server ends");
    }
}

pub(crate) fn impatient() -> ApiConfig {
    ApiConfig {
        handshake_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..ApiConfig::default()
    }
}

struct OneKey;

#[async_trait]
impl Keys for OneKey {
    async fn find(&self, access_key_id: &str) -> Option<AccessKey> {
        let key = AccessKey {
            secret_access_key: SECRET.into(),
            account_id: ACCOUNT.into(),
        };
        (access_key_id == KEY_ID).then_some(key)
    }
}

/// Stands for S3: says what it got, so that a test sees the request arrive whole.
async fn count_body(request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let length = body.collect().await?.to_bytes().len();
    let told =
        json!({"path": parts.uri.path(), "length": length, "host": parts.headers.contains_key("host")});
    let body = http_body_util::Full::new(Bytes::from(told.to_string())).map_err(|never| match never {});
    Ok(Response::new(body.boxed_unsync()))
}

struct Logs;

#[async_trait]
impl JsonService for Logs {
    async fn call(&self, caller: &Caller, target: &str, body: Value) -> Result<Value, JsonServiceError> {
        match target {
            "Logs_20140328.DescribeLogGroups" => {
                Ok(json!({"logGroups": [], "echo": body, "as": caller.account_id}))
            }
            _ => Err(JsonServiceError {
                status: 400,
                kind: "ResourceNotFoundException".into(),
                message: "The specified log group does not exist.".into(),
            }),
        }
    }
}
