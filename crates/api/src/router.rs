//! From a request to the service it is for.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use bytes::Bytes;
use futures::FutureExt;
use hearth_crowd::Visit;
use hearth_telemetry::Span;
use hearth_wire::{ApiError, Call, Caller, ErrorKind, Sensitive};
use http::{
    HeaderValue, Method, Request, Response,
    header::{HOST, USER_AGENT},
    request::Parts,
};
use hyper::body::Incoming;
use serde_json::json;
use tower::ServiceExt;
use tracing::error;
use uuid::Uuid;

use crate::{
    ApiConfig, Body, Services,
    answer::{Protocol, missing_authentication},
    body, json_service, lambda,
    scope::{self, Scope},
    signature, sts,
};

pub(crate) struct Router {
    pub(crate) config: ApiConfig,
    pub(crate) services: Services,
}

impl Router {
    /// Answers one request, whatever happens.
    pub(crate) async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        request.extensions_mut().insert(peer);
        let request_id = Uuid::new_v4().to_string();
        let trace = Span::begin("control plane", &request).map(Arc::new);
        if let Some(trace) = &trace {
            request.extensions_mut().insert(trace.clone());
        }
        let answer = AssertUnwindSafe(self.route(request, &request_id))
            .catch_unwind()
            .await;
        let answer = answer.unwrap_or_else(|_| {
            error!(request_id, "a handler panicked");
            Protocol::RestJson.error(&ApiError::internal(), &request_id)
        });
        if let Some(trace) = trace {
            trace.tell("hearth.request_id", request_id);
            trace.answered(answer.status().as_u16());
        }
        answer
    }

    async fn route(&self, request: Request<Incoming>, request_id: &str) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        name_host(&mut parts);
        let scope = match scope::of(&parts) {
            Ok(Some(scope)) => scope,
            Ok(None) if parts.method == Method::GET && parts.uri.path() == "/health" => {
                return health(request_id);
            }
            Ok(None) => return Protocol::RestJson.error(&missing_authentication(), request_id),
            Err(error) => return Protocol::RestJson.error(&error, request_id),
        };
        let request = Request::from_parts(parts, body);
        match scope.service.as_str() {
            "s3" => self.s3(request, request_id).await,
            "lambda" => lambda::handle(self, &scope, request, request_id).await,
            "logs" => json_service::handle(self, &*self.services.logs, &scope, request, request_id).await,
            "sts" => sts::handle(self, &scope, request, request_id).await,
            _ => {
                let message = "Credential should be scoped to correct service: 'lambda'.";
                Protocol::RestJson.error(&ApiError::new(ErrorKind::InvalidSignature, message), request_id)
            }
        }
    }

    async fn s3(&self, request: Request<Incoming>, request_id: &str) -> Response<Body> {
        self.services
            .s3
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|error| {
                error!(request_id, %error, "the S3 service failed");
                Protocol::RestJson.error(&ApiError::internal(), request_id)
            })
    }

    /// Reads a body that does not matter, so that the connection can be used again.
    pub(crate) async fn discard(&self, request: Request<Incoming>) {
        let (limit, patience) = (self.config.max_body_bytes, self.config.body_timeout);
        let _nobody_wants_it = body::read(request.into_body(), limit, patience).await;
    }

    /// Reads the body and verifies the signature.
    pub(crate) async fn verified(
        &self,
        scope: &Scope,
        request: Request<Incoming>,
        request_id: &str,
    ) -> Result<Verified, ApiError> {
        let (parts, body) = request.into_parts();
        let body = body::read(body, self.config.max_body_bytes, self.config.body_timeout).await?;
        let session_token = signature::session_token(&parts)?;
        let identity = self
            .services
            .iam
            .identify(&scope.access_key_id, session_token.as_deref())?;
        let caller = signature::verify(&identity, scope, &parts, body.clone(), request_id).await?;
        if let Some(visit) = parts.extensions.get::<Arc<Visit>>() {
            visit.vouch();
        }
        Ok(Verified {
            parts,
            body,
            caller,
            session_token,
        })
    }
}

/// A request whose signature is good.
pub(crate) struct Verified {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) caller: Caller,
    pub(crate) session_token: Option<Sensitive>,
}

impl Verified {
    /// The call that it is, for the guard.
    pub(crate) fn call(&self, request: hearth_wire::Request) -> Call {
        let peer = self.parts.extensions.get::<SocketAddr>();
        let agent = self.parts.headers.get(USER_AGENT);
        let call = Call {
            caller: self.caller.clone(),
            session_token: self.session_token.clone(),
            source: peer.map_or(IpAddr::from([0, 0, 0, 0]), SocketAddr::ip),
            user_agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
            request,
        };
        self.asks_for(call.service(), call.name());
        call
    }

    /// Names the trace of the request.
    pub(crate) fn asks_for(&self, service: &'static str, operation: &str) {
        if let Some(trace) = self.parts.extensions.get::<Arc<Span>>() {
            trace.asks_for(service, operation);
        }
    }
}

/// HTTP/2 names the host in the URI; signatures cover it as the `host` header.
fn name_host(parts: &mut Parts) {
    let authority = parts
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority {
        parts.headers.entry(HOST).or_insert(authority);
    }
}

fn health(request_id: &str) -> Response<Body> {
    let body = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}).to_string();
    Protocol::RestJson.response(200, body, request_id)
}
