//! One call of a JSON 1.1 service: the operation stands in a header, everything else in the body.

use hearth_wire::{ApiError, Caller, ErrorKind, json};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{Body, JsonService, answer::Protocol, router::Router, scope::Scope};

pub(crate) async fn handle(
    router: &Router,
    service: &dyn JsonService,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Response<Body> {
    let (caller, target, body) = match read(router, scope, request, request_id).await {
        Ok(call) => call,
        Err(error) => return Protocol::Json.error(&error, request_id),
    };
    match service.call(&caller, &target, body).await {
        Ok(Value::Null) => Protocol::Json.response(200, "", request_id),
        Ok(body) => Protocol::Json.response(200, body.to_string(), request_id),
        Err(error) => Protocol::Json.service_error(&error, request_id),
    }
}

async fn read(
    router: &Router,
    scope: &Scope,
    request: Request<Incoming>,
    request_id: &str,
) -> Result<(Caller, String, Value), ApiError> {
    let (parts, body, caller) = router.verified(scope, request, request_id).await?;
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let target = target.filter(|_| parts.method == "POST" && parts.uri.path() == "/");
    let target = target.ok_or_else(|| {
        ApiError::new(
            ErrorKind::UnknownOperation,
            "The requested operation is not recognized by the service.",
        )
    })?;
    let body = if body.is_empty() {
        json!({})
    } else {
        json::parse(&body)?
    };
    Ok((caller, target.to_owned(), body))
}
