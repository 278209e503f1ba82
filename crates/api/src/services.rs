use std::sync::Arc;

use async_trait::async_trait;
use hearth_iam::Iam;
use hearth_wire::{Caller, ControlPlane, Guard};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use tower::util::BoxCloneSyncService;

use crate::{Body, BoxError};

/// What the port serves.
#[derive(Clone)]
pub struct Services {
    /// Answers the operations of `lambda`.
    pub control_plane: Arc<dyn ControlPlane>,
    /// Knows the access keys, and answers `sts`.
    pub iam: Iam,
    /// Decides which calls go on.
    pub guard: Arc<dyn Guard>,
    /// Answers `s3`; gets the request as it came, with the peer's `SocketAddr` among its extensions, and verifies its
    /// signature and permission itself.
    pub s3: S3Service,
    /// Answers `logs`.
    pub logs: Arc<dyn JsonService>,
}

/// The S3 front end. The request's body has not been read; an error becomes a 500 without details.
pub type S3Service = BoxCloneSyncService<Request<Incoming>, Response<Body>, BoxError>;

/// A service of the AWS JSON 1.1 protocol.
#[async_trait]
pub trait JsonService: Send + Sync + 'static {
    /// Performs one call. `target` is the whole `X-Amz-Target`, such as `Logs_20140328.DescribeLogGroups`.
    async fn call(&self, caller: &Caller, target: &str, body: Value) -> Result<Value, JsonServiceError>;
}

/// What a [`JsonService`] answers instead of its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonServiceError {
    /// HTTP status.
    pub status: u16,
    /// Error shape, such as `ResourceNotFoundException`.
    pub kind: String,
    /// For people.
    pub message: String,
}
