//! A MicroVM's endpoint as more than HTTP requests: connections, WebSockets, tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::error::{Error, Result};
use crate::http::tls_config;
use crate::service::Service;
use crate::vm::id;

/// The header that carries a token.
pub(crate) const TOKEN: &str = "x-aws-proxy-auth";
/// How long a token of this program's own making is good for, at most.
const TOKEN_MINUTES: i32 = 60;

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Where a MicroVM is reached. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Host name, perhaps with a port.
    authority: String,
    gateway: Option<SocketAddr>,
    tls: TlsConnector,
}

impl Endpoint {
    /// The endpoint of a MicroVM.
    pub(crate) async fn of(service: &Service, id: &str) -> Result<Self> {
        let vm = id::get(service, id).await?;
        let mut tls = tls_config(service.settings.ca.as_deref())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            authority: vm.endpoint,
            gateway: service.settings.gateway,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// A request of this endpoint, for `path` with its query.
    pub(crate) fn request(&self, path: &str, token: &str) -> http::request::Builder {
        Request::builder()
            .uri(path)
            .header(http::header::HOST, &self.authority)
            .header(TOKEN, token)
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let failed = |error: std::io::Error| Error::from_transport(&error, &self.authority);
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(self.authority.as_str(), |(host, _)| host);
        let stream = match self.gateway {
            Some(address) => TcpStream::connect(address).await,
            None if host.len() < self.authority.len() => TcpStream::connect(&self.authority).await,
            None => TcpStream::connect((host, 443)).await,
        };
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::failed(format!("{host} is no host name"), ""))?;
        self.tls.connect(name, stream).await.map_err(failed)
    }

    /// Sends one request on a connection of its own; the connection is there for an upgrade.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let failed = |error: hyper::Error| Error::from_transport(&error, &self.authority);
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(failed)
    }

    /// Opens a WebSocket.
    pub(crate) async fn websocket(&self, path: &str, token: &str) -> Result<Socket> {
        let url = format!("wss://{}{path}", self.authority);
        let mut request = url
            .into_client_request()
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        let token = token
            .parse()
            .map_err(|_| Error::failed("the service's token is no header value", ""))?;
        request.headers_mut().insert(TOKEN, token);
        match tokio_tungstenite::client_async(request, self.connect().await?).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(refused(response.status())),
            Err(error) => Err(Error::Transport(error.to_string())),
        }
    }
}

/// What an endpoint's status means to somebody who holds a good token.
pub(crate) fn refused(status: http::StatusCode) -> Error {
    let cure = match status.as_u16() {
        502 => "See whether it runs: hearth ps",
        429 => "It is busy; try again later",
        _ => "",
    };
    Error::failed(format!("the endpoint answered {status}"), cure)
}

/// A token for shells, commands and files.
pub(crate) async fn shell_token(service: &Service, id: &str) -> Result<String> {
    let request = service
        .microvms
        .create_microvm_shell_auth_token()
        .microvm_identifier(id)
        .expiration_in_minutes(TOKEN_MINUTES);
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            return Err(match service.error(error) {
                Error::Service { message, .. } if message.contains("SHELL_INGRESS") => {
                    Error::failed(message, "Launch it with `hearth run --shell`")
                }
                other => other,
            });
        }
    };
    answer
        .auth_token
        .into_values()
        .next()
        .ok_or_else(|| Error::failed("the service gave no token", ""))
}
