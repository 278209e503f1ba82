//! The service as this program sees it: the SDK's clients, and signed calls for the rest.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambdamicrovms::config::retry::RetryConfig;
use aws_sdk_lambdamicrovms::error::{ProvideErrorMetadata, SdkError};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::Http;
use crate::settings::Settings;

/// Clients of everything served at one endpoint.
pub(crate) struct Service {
    /// What they were made from.
    pub(crate) settings: Settings,
    /// Images and MicroVMs.
    pub(crate) microvms: aws_sdk_lambdamicrovms::Client,
    config: SdkConfig,
    http: Http,
}

impl Service {
    /// Makes the clients; sends nothing yet.
    pub(crate) async fn new(settings: Settings) -> Result<Self> {
        let trust = match &settings.ca {
            Some(path) => {
                TrustStore::empty().with_pem_certificate(std::fs::read(path).map_err(Error::file(path))?)
            }
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|error| Error::failed(format!("cannot set up TLS: {error}"), ""))?;
        // Also reports an unreadable bundle, which the SDK's client would only log.
        let http = Http::new(settings.ca.as_deref(), None)?;
        let client = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client)
            .endpoint_url(&settings.endpoint)
            .region(Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            // The service is near: what is worth a retry is worth it soon.
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(100)))
            .load()
            .await;
        Ok(Self {
            microvms: aws_sdk_lambdamicrovms::Client::new(&config),
            config,
            http,
            settings,
        })
    }

    /// The object store.
    pub(crate) fn s3(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// The number of the account that the keys belong to.
    pub(crate) async fn account(&self) -> Result<String> {
        let identity = aws_sdk_sts::Client::new(&self.config)
            .get_caller_identity()
            .send()
            .await;
        let account = identity.map_err(|error| self.error(error))?.account;
        account.ok_or_else(|| Error::failed("the service did not tell the account's number", ""))
    }

    /// The ARN of the image called `name`; an ARN stays what it is.
    pub(crate) async fn image_arn(&self, name: &str) -> Result<String> {
        if name.starts_with("arn:") {
            return Ok(name.to_owned());
        }
        Ok(format!(
            "arn:aws:lambda:{}:{}:microvm-image:{name}",
            self.settings.region,
            self.account().await?
        ))
    }

    /// For `map_err` on the SDK's calls.
    pub(crate) fn error<E, R>(&self, error: SdkError<E, R>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        Error::from_sdk(error, &self.settings.endpoint)
    }

    /// Sends a JSON call signed for the service `name`; `target` is the operation of the JSON 1.1
    /// protocol. Answers the JSON of the response, or Null when it has no body.
    pub(crate) async fn call(
        &self,
        name: &str,
        method: Method,
        path: &str,
        target: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value> {
        let body = body.map(|value| value.to_string()).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.settings.endpoint));
        if !body.is_empty() {
            let json = if target.is_some() {
                "application/x-amz-json-1.1"
            } else {
                "application/json"
            };
            request = request.header("content-type", json);
        }
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let request = request.body(body).map_err(|error| self.bad_endpoint(error))?;
        let request = self.signed(name, request)?;
        let response = self
            .http
            .send(request.map(|body| Full::new(Bytes::from(body))))
            .await?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| Error::from_transport(&error, &self.settings.endpoint))?;
        let body = body.to_bytes();
        if parts.status.is_success() {
            if body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&body)
                .map_err(|error| Error::failed(format!("the service did not answer in JSON: {error}"), ""));
        }
        let header = parts
            .headers
            .get("x-amzn-errortype")
            .and_then(|value| value.to_str().ok());
        Err(service_error(parts.status, header, &body))
    }

    /// GET `/health`: the status and the body.
    pub(crate) async fn health(http: &Http, endpoint: &str) -> Result<(StatusCode, Bytes)> {
        let request = Request::get(format!("{endpoint}/health")).body(Full::default());
        let request = request.map_err(|error| Error::failed(format!("{endpoint} is no URL: {error}"), ""))?;
        let response = http.send(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        Ok((
            status,
            body.map_err(|error| Error::from_transport(&error, endpoint))?
                .to_bytes(),
        ))
    }

    fn signed(&self, name: &str, mut request: Request<String>) -> Result<Request<String>> {
        let identity = self.settings.credentials.clone().into();
        let failed =
            |error: &dyn std::fmt::Display| Error::failed(format!("cannot sign the request: {error}"), "");
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.settings.region)
            .name(name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(&error))?
            .into();
        let headers = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let uri = request.uri().to_string();
        let body = SignableBody::Bytes(request.body().as_bytes());
        let signable = SignableRequest::new(request.method().as_str(), uri, headers, body)
            .map_err(|error| failed(&error))?;
        let (instructions, _) = sign(signable, &params)
            .map_err(|error| failed(&error))?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    fn bad_endpoint(&self, error: http::Error) -> Error {
        let cause = format!("{} is no URL: {error}", self.settings.endpoint);
        Error::failed(cause, "Correct AWS_ENDPOINT_URL")
    }
}

/// Reads an error in any of the shapes the services use: type in a header or in `__type`, with or
/// without a name space before it and a URL behind it; message in either case.
fn service_error(status: StatusCode, header: Option<&str>, body: &[u8]) -> Error {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| body[*name].as_str())
            .map(str::to_owned)
    };
    let kind = header.map(str::to_owned).or_else(|| member(["__type", "code"]));
    let kind = kind
        .as_deref()
        .map_or("", |kind| kind.split(':').next().unwrap_or(kind));
    let kind = kind.rsplit('#').next().filter(|kind| !kind.is_empty());
    Error::Service {
        kind: kind.map_or_else(|| format!("HTTP {}", status.as_u16()), str::to_owned),
        message: member(["message", "Message"]).unwrap_or_else(|| "the service gave no message".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(header: Option<&str>, body: &str) -> String {
        service_error(StatusCode::BAD_REQUEST, header, body.as_bytes()).to_string()
    }

    #[test]
    fn the_type_and_message_of_an_error_are_found_in_every_shape() {
        assert_eq!(
            said(Some("ValidationException"), r#"{"message":"no"}"#),
            "ValidationException: no"
        );
        assert_eq!(
            said(
                None,
                r#"{"__type":"com.amazonaws.logs#ResourceNotFoundException","Message":"gone"}"#
            ),
            "ResourceNotFoundException: gone"
        );
        assert_eq!(
            said(Some("ConflictException:http://x/y"), r#"{"message":"busy"}"#),
            "ConflictException: busy"
        );
        assert_eq!(said(None, "<html>"), "HTTP 400: the service gave no message");
    }
}
