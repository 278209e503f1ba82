//! `hearth curl`: a request to a MicroVM's endpoint.

use std::io::Read;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::http::Http;
use crate::output::Out;
use crate::service::Service;
use crate::vm::id;
use crate::vm::token::{DEFAULT_PORT, Ports, mint};

/// What `curl -f` ends with when the server answers 400 or more.
const HTTP_ERROR_EXIT: u8 = 22;

/// Sends a request.
#[derive(Args)]
pub(crate) struct Curl {
    /// Id of the MicroVM, or its beginning
    id: String,
    /// Path and query
    #[arg(default_value = "/")]
    path: String,
    /// The port in the MicroVM
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The method [default: GET, or POST with --data]
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<Method>,
    /// The body; @FILE reads it from a file, @- from standard input
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    body: Option<String>,
    /// A header, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Curl {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let id = id::resolve(service, &self.id).await?;
        let endpoint = id::get(service, &id).await?.endpoint;
        let token = mint(service, &id, &[Ports::One(self.port)], 5).await?;
        let request = self.request(&endpoint, token.iter())?;
        let http = Http::new(service.settings.ca.as_deref(), service.settings.gateway)?;
        let response = http.send(request).await?;
        let (parts, mut body) = response.into_parts();
        let failed = |error: hyper::Error| Error::from_transport(&error, &endpoint);
        if out.json {
            let body = body.collect().await.map_err(failed)?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            out.line(&json!({ "status": parts.status.as_u16(), "headers": headers_json(&parts.headers), "body": body }).to_string())?;
        } else {
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(failed)?.into_data() {
                    out.bytes(&data)?;
                }
            }
        }
        if parts.status.as_u16() < 400 {
            return Ok(());
        }
        eprintln!("hearth: the endpoint answered {}.", parts.status);
        Err(Error::Exit(HTTP_ERROR_EXIT))
    }

    fn request<'a>(
        self,
        endpoint: &str,
        token: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<Request<Full<Bytes>>> {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let method = self.method.unwrap_or(if self.body.is_some() {
            Method::POST
        } else {
            Method::GET
        });
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{endpoint}{slash}{}", self.path))
            .header("x-aws-proxy-port", self.port)
            .header(header::ACCEPT, "*/*")
            .header(header::USER_AGENT, concat!("hearth/", env!("CARGO_PKG_VERSION")));
        for (name, value) in token {
            request = request.header(name, value);
        }
        let body = self.body.as_deref().map(body).transpose()?;
        let mut request = request
            .body(Full::new(body.clone().unwrap_or_default()))
            .map_err(|error| {
                Error::usage(
                    format!("no request can be made of this: {error}"),
                    "See `hearth curl --help`",
                )
            })?;
        let headers = request.headers_mut();
        if body.is_some() {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
        }
        // The first of a name replaces what is set here, further ones of the name are added.
        let mut given = HeaderMap::new();
        given.extend(self.headers);
        headers.extend(given);
        Ok(request)
    }
}

/// The bytes that `--data` stands for.
fn body(data: &str) -> Result<Bytes> {
    match data.strip_prefix('@') {
        None => Ok(Bytes::copy_from_slice(data.as_bytes())),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(Error::file("standard input"))?;
            Ok(bytes.into())
        }
        Some(path) => Ok(std::fs::read(path).map_err(Error::file(path))?.into()),
    }
}

fn header(text: &str) -> std::result::Result<(HeaderName, HeaderValue), String> {
    let parse = || {
        let (name, value) = text.split_once(':')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    };
    parse().ok_or_else(|| "a header is written `Name: value`".to_owned())
}

/// Headers as a JSON object; those that come twice are joined by commas.
fn headers_json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        object.insert(name.to_string(), values.join(", ").into());
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        curl: Curl,
    }

    fn request(line: &[&str]) -> Request<Full<Bytes>> {
        let line = Line::try_parse_from([&["curl"], line].concat()).expect("parses");
        let token = ("X-aws-proxy-auth".to_owned(), "TOKEN".to_owned());
        line.curl
            .request("vm.example", [(&token.0, &token.1)].into_iter())
            .expect("a request")
    }

    #[test]
    fn a_request_carries_token_and_port_and_is_a_get() {
        let request = request(&["abc", "state?x=1", "--port", "9000"]);
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::GET, "https://vm.example/state?x=1".into())
        );
        assert_eq!(request.headers()["x-aws-proxy-auth"], "TOKEN");
        assert_eq!(request.headers()["x-aws-proxy-port"], "9000");
    }

    #[test]
    fn data_makes_a_post_and_a_given_content_type_wins() {
        let request = request(&["abc", "/run", "-d", "x", "-H", "Content-Type: application/json"]);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(
            request
                .headers()
                .get_all("content-type")
                .iter()
                .collect::<Vec<_>>(),
            ["application/json"]
        );
    }
}
