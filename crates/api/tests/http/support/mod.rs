//! A server on loopback with a control plane that only remembers, and clients that sign.

mod client;
mod fake;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
pub(crate) use client::{Answer, Signing};
pub(crate) use fake::{Fake, image_arn};
use hearth_api::{ApiConfig, Body, BoxError, JsonService, JsonServiceError, Services, serve};
use hearth_iam::{Iam, SessionKey, Settings};
use hearth_state::{State, Table};
use hearth_wire::{ApiError, Call, Caller, Guard};
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
    _directory: tempfile::TempDir,
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
        let directory = tempfile::tempdir().expect("temp dir");
        let services = Services {
            control_plane: fake.clone(),
            iam: one_key(directory.path()).await,
            guard: Arc::new(Everybody),
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
            _directory: directory,
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

/// The keys of a daemon whose only key is the one that clients sign with.
async fn one_key(directory: &std::path::Path) -> Iam {
    let state = State::open(&directory.join("state.db"))
        .await
        .expect("a database");
    let key = json!({"accessKeyId": KEY_ID, "secretAccessKey": SECRET, "account": ACCOUNT});
    state
        .put(Table::AccessKeys, KEY_ID, ACCOUNT, &key)
        .await
        .expect("written");
    let sessions = SessionKey::new(&[0; 32]).expect("a key");
    Iam::open(state, sessions, Settings::default(), ACCOUNT)
        .await
        .expect("opens")
}

/// Lets everybody do everything: what policies and rates say is tested where they are.
struct Everybody;

#[async_trait]
impl Guard for Everybody {
    async fn admit(&self, _call: &Call) -> Result<(), ApiError> {
        Ok(())
    }

    async fn ended(&self, _call: &Call, _status: u16, _error: Option<&str>) {}
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
