//! One call of the REST-JSON operations.

use hearth_wire::{ApiError, Operation, json};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use tracing::info;

use crate::{Body, answer::Protocol, router::Router, scope::Scope};

pub(crate) async fn handle(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Response<Body> {
    match call(router, scope, request, request_id).await {
        Ok((204, _)) => Protocol::RestJson.response(204, "", request_id),
        Ok((status, body)) => Protocol::RestJson.response(status, body, request_id),
        Err(error) => Protocol::RestJson.error(&error, request_id),
    }
}

async fn call(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Result<(u16, Vec<u8>), ApiError> {
    let (operation, labels) = Operation::route_to(request.method().as_str(), request.uri().path())?;
    let (parts, body, caller) = router.verified(scope, request, request_id).await?;
    let body = if operation.has_body() && !body.is_empty() {
        json::parse(&body)?
    } else {
        Value::Null
    };
    let input = operation.gather(labels, parts.uri.query().unwrap_or_default(), body)?;
    let outcome = operation
        .call(&*router.services.control_plane, &caller, input)
        .await;
    let status = outcome
        .as_ref()
        .map_or_else(ApiError::status, |_| operation.status());
    info!(
        request_id,
        operation = operation.name(),
        account = caller.account_id,
        status,
        "called"
    );
    outcome.map(|body| (status, body))
}
