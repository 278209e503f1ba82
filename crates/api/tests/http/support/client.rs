use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{KEY_ID, REGION, SECRET, Server};

/// How a request is signed; the default is right.
#[derive(Clone)]
pub(crate) struct Signing {
    pub(crate) key_id: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) session_token: Option<&'static str>,
    pub(crate) region: &'static str,
    pub(crate) service: &'static str,
    pub(crate) time: SystemTime,
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            key_id: KEY_ID,
            secret: SECRET,
            session_token: None,
            region: REGION,
            service: "lambda",
            time: SystemTime::now(),
        }
    }
}

impl Signing {
    pub(crate) fn service(service: &'static str) -> Self {
        Self {
            service,
            ..Self::default()
        }
    }

    pub(crate) fn skewed(seconds: i64) -> Self {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let now = SystemTime::now();
        Self {
            time: if seconds < 0 {
                now - distance
            } else {
                now + distance
            },
            ..Self::default()
        }
    }

    pub(crate) fn sign(&self, request: &mut Request<Bytes>) {
        let token = self.session_token.map(str::to_owned);
        let identity = Credentials::new(self.key_id, self.secret, token, None, "test").into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(SigningSettings::default())
            .build()
            .expect("parameters")
            .into();
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.uri().to_string(),
            headers,
            SignableBody::Bytes(request.body()),
        );
        let (instructions, _) = sign(signable.expect("signable"), &parameters)
            .expect("signs")
            .into_parts();
        instructions.apply_to_request_http1x(request);
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// Status and error type.
    pub(crate) fn error(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.header("x-amzn-errortype").unwrap_or_default(),
        )
    }
}

impl Server {
    pub(crate) async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut tls = (*self.client_tls).clone();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from("localhost").expect("name");
        TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .expect("TLS")
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
        let uri = format!("https://localhost:{}{path}", self.address.port());
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json");
        request.body(body.into()).expect("request")
    }

    /// Signs and sends one request over HTTP/1.1.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(&Signing::default(), method, path, body.to_owned())
            .await
    }

    pub(crate) async fn call_as(
        &self,
        signing: &Signing,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = self.request(method, path, body);
        signing.sign(&mut request);
        self.send(request).await
    }

    /// Sends a signed request without a body over HTTP/1.1 and gives the connection, whose answer nobody has read.
    pub(crate) async fn begin(&self, method: &str, path: &str) -> TlsStream<TcpStream> {
        let mut request = self.request(method, path, "");
        Signing::default().sign(&mut request);
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost:{}\r\n",
            self.address.port()
        );
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().expect("text"));
        }
        let mut stream = self.connect(b"http/1.1").await;
        stream
            .write_all(format!("{text}\r\n").as_bytes())
            .await
            .expect("sent");
        stream
    }

    /// Sends one request over HTTP/1.1 as it is.
    pub(crate) async fn send(&self, mut request: Request<Bytes>) -> Answer {
        let stream = self.connect(b"http/1.1").await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("handshake");
        let connection = tokio::spawn(connection);
        let host = format!("localhost:{}", self.address.port())
            .parse()
            .expect("host");
        request.headers_mut().insert("host", host);
        *request.uri_mut() = request
            .uri()
            .path_and_query()
            .expect("path")
            .as_str()
            .parse()
            .expect("path");
        let answer = collect(
            sender
                .send_request(request.map(Full::new))
                .await
                .expect("an answer"),
        )
        .await;
        connection.abort();
        answer
    }

    /// Sends one request over HTTP/2 as it is.
    pub(crate) async fn send_http2(&self, request: Request<Bytes>) -> Answer {
        let stream = self.connect(b"h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("handshake");
        let connection = tokio::spawn(connection);
        let answer = collect(
            sender
                .send_request(request.map(Full::new))
                .await
                .expect("an answer"),
        )
        .await;
        connection.abort();
        answer
    }
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}
