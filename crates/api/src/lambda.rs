//! One call of the REST-JSON operations.

use hearth_wire::{ApiError, Operation, constraints, json};
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
    let routed = Operation::route_to(request.method().as_str(), request.uri().path());
    let readable = Operation::check_query(request.uri().query().unwrap_or_default());
    let (operation, labels) = match routed.and_then(|routed| readable.map(|()| routed)) {
        Ok(routed) => routed,
        Err(error) => {
            router.discard(request).await;
            return Err(error);
        }
    };
    let verified = router.verified(scope, request, request_id).await?;
    let body = if operation.has_body() && !verified.body.is_empty() {
        json::parse(&verified.body)?
    } else {
        Value::Null
    };
    let input = operation.gather(labels, verified.parts.uri.query().unwrap_or_default(), body)?;
    constraints::validate(operation, &input)?;
    let call = verified.call(hearth_wire::Request::Operation(operation, input.clone()));
    let (guard, control_plane) = (&router.services.guard, &*router.services.control_plane);
    let outcome = match guard.admit(&call).await {
        Ok(()) => operation.call(control_plane, &call.caller, input).await,
        Err(refusal) => Err(refusal),
    };
    let (status, error) = match &outcome {
        Ok(_) => (operation.status(), None),
        Err(error) => (error.status(), Some(error.kind.name())),
    };
    guard.ended(&call, status, error).await;
    info!(
        request_id,
        operation = operation.name(),
        account = call.caller.account_id,
        status,
        "called"
    );
    outcome.map(|body| (status, body))
}
