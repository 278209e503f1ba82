//! What the daemon tells those who run it, at its listener for operators.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::Http;
use crate::service::Service;

/// The answer to a question; null where the service is another, which does not tell.
pub(crate) async fn get(service: &Service, path: &str) -> Result<Value> {
    let Some(admin) = &service.settings.admin else {
        return Ok(Value::Null);
    };
    let request = Request::get(format!("http://{admin}{path}"))
        .body(Full::<Bytes>::default())
        .map_err(|error| Error::failed(format!("the admin address {admin:?} is wrong: {error}"), ""))?;
    let response = Http::new(service.settings.ca.as_deref(), None)?
        .send(request)
        .await?;
    if response.status() != StatusCode::OK {
        return Ok(Value::Null);
    }
    let body = response.into_body().collect().await;
    let body =
        body.map_err(|error| Error::failed(format!("the daemon's answer was cut: {error}"), "Try again"))?;
    Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default())
}

/// What runs each MicroVM, by its id; null where nobody tells, which keeps no listing away.
pub(crate) async fn vmms(service: &Service) -> Value {
    get(service, "/vmms").await.unwrap_or_default()
}
