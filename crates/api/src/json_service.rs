//! One call of a JSON 1.1 service: the operation stands in a header, everything else in the body.

use hearth_wire::{ApiError, Call, ErrorKind, json};
use http::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{Body, JsonService, JsonServiceError, answer::Protocol, router::Router, scope::Scope};

pub(crate) async fn handle(
    router: &Router,
    service: &dyn JsonService,
    scope: &Scope,
    request: http::Request<Incoming>,
    request_id: &str,
) -> Response<Body> {
    let (call, target, body) = match read(router, scope, request, request_id).await {
        Ok(call) => call,
        Err(error) => return Protocol::Json.error(&error, request_id),
    };
    let guard = &router.services.guard;
    if let Err(error) = guard.admit(&call).await {
        guard.ended(&call, error.status(), Some(error.kind.name())).await;
        return Protocol::Json.error(&error, request_id);
    }
    let outcome = service.call(&call.caller, &target, body).await;
    let (status, error) = match &outcome {
        Ok(_) => (200, None),
        Err(JsonServiceError { status, kind, .. }) => (*status, Some(kind.as_str())),
    };
    guard.ended(&call, status, error).await;
    match outcome {
        Ok(Value::Null) => Protocol::Json.response(200, "", request_id),
        Ok(body) => Protocol::Json.response(200, body.to_string(), request_id),
        Err(error) => Protocol::Json.service_error(&error, request_id),
    }
}

async fn read(
    router: &Router,
    scope: &Scope,
    request: http::Request<Incoming>,
    request_id: &str,
) -> Result<(Call, String, Value), ApiError> {
    let verified = router.verified(scope, request, request_id).await?;
    let parts = &verified.parts;
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let target = target.filter(|_| parts.method == "POST" && parts.uri.path() == "/");
    let target = target.map(str::to_owned).ok_or_else(|| {
        ApiError::new(
            ErrorKind::UnknownOperation,
            "The requested operation is not recognized by the service.",
        )
    })?;
    let body = if verified.body.is_empty() {
        json!({})
    } else {
        json::parse(&verified.body)?
    };
    let name = target.rsplit('.').next().unwrap_or_default().to_owned();
    // The events themselves are of no interest to any policy.
    let about = match &body {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| value.is_string())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        _ => Value::Null,
    };
    Ok((
        verified.call(hearth_wire::Request::Logs(name, about)),
        target,
        body,
    ))
}
