//! `hearth forward`: ports of a MicroVM on this machine.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::endpoint::{Endpoint, refused};
use crate::error::{Error, Result};
use crate::output::Out;
use crate::service::Service;
use crate::vm::id;
use crate::vm::token::{Ports, mint};

const TOKEN_MINUTES: i32 = 60;
/// A token is renewed while it is still good for a while.
const TOKEN_AGE: Duration = Duration::from_secs(50 * 60);

/// Forwards ports.
#[derive(Args)]
pub(crate) struct Forward {
    /// Id of the MicroVM, or its beginning
    id: String,
    /// A port in the MicroVM, and the port on this machine if it shall be another (0: any); may be repeated
    #[arg(required = true, value_name = "PORT[:LOCAL]")]
    ports: Vec<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Route {
    remote: u16,
    local: u16,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (remote, local) = text.split_once(':').unwrap_or((text, text));
        let remote = remote.parse().ok().filter(|port: &u16| *port != 0);
        let route = remote.zip(local.parse().ok());
        route
            .map(|(remote, local)| Self { remote, local })
            .ok_or_else(|| "a route is written PORT or PORT:LOCAL".to_owned())
    }
}

/// What every connection needs.
struct Tunnels {
    service: Service,
    endpoint: Endpoint,
    id: String,
    ports: Vec<Ports>,
    token: Mutex<Option<(Instant, String)>>,
}

impl Forward {
    /// Runs until it is interrupted.
    pub(crate) async fn run(self, service: Service, out: Out) -> Result<()> {
        let id = id::resolve(&service, &self.id).await?;
        let endpoint = Endpoint::of(&service, &id).await?;
        let tunnels = Arc::new(Tunnels {
            service,
            endpoint,
            id,
            ports: self.ports.iter().map(|route| Ports::One(route.remote)).collect(),
            token: Mutex::new(None),
        });
        // Says at once what would otherwise be said to the first connection.
        tunnels.token().await?;
        let mut listening = Vec::new();
        for route in self.ports {
            let failed = |error: std::io::Error| {
                let cause = format!("cannot listen on 127.0.0.1:{}: {error}", route.local);
                Error::failed(cause, format!("Take another port: {}:LOCAL", route.remote))
            };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, route.local))
                .await
                .map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            let said = json!({ "local": local.to_string(), "port": route.remote });
            out.print(said, || format!("{local} leads to port {}", route.remote))?;
            listening.push(tokio::spawn(tunnels.clone().accept(listener, route.remote)));
        }
        for listener in listening {
            let _never = listener.await;
        }
        Ok(())
    }
}

impl Tunnels {
    async fn accept(self: Arc<Self>, listener: TcpListener, port: u16) -> Infallible {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let tunnels = self.clone();
            tokio::spawn(async move {
                if let Err(error) = tunnels.carry(client, port).await {
                    eprintln!("hearth: port {port}: {}", error.line().unwrap_or_default());
                }
            });
        }
    }

    async fn carry(&self, mut client: TcpStream, port: u16) -> Result<()> {
        // A client that resets its connection is nothing to tell.
        let _ = client.set_nodelay(true);
        let target = format!("127.0.0.1:{port}");
        let request = self
            .endpoint
            .request(&target, &self.token().await?)
            .method(Method::CONNECT)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        let response = self.endpoint.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_GATEWAY => {
                return Err(Error::failed(
                    "nothing listens there, or the MicroVM does not run",
                    "",
                ));
            }
            status => return Err(refused(status)),
        }
        let tunnel = hyper::upgrade::on(response)
            .await
            .map_err(|error| Error::Transport(error.to_string()))?;
        // How a connection ends is between the two that use it.
        let _ended = tokio::io::copy_bidirectional(&mut client, &mut TokioIo::new(tunnel)).await;
        Ok(())
    }

    async fn token(&self) -> Result<String> {
        let mut token = self.token.lock().await;
        if let Some((made, token)) = &*token
            && made.elapsed() < TOKEN_AGE
        {
            return Ok(token.clone());
        }
        let minted = mint(&self.service, &self.id, &self.ports, TOKEN_MINUTES).await?;
        let minted = minted.into_values().next();
        let minted = minted.ok_or_else(|| Error::failed("the service gave no token", ""))?;
        *token = Some((Instant::now(), minted.clone()));
        Ok(minted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_port_and_perhaps_another() {
        let route = |remote, local| Ok(Route { remote, local });
        assert_eq!("5432".parse(), route(5432, 5432));
        assert_eq!("5432:15432".parse(), route(5432, 15432));
        assert_eq!("22:0".parse(), route(22, 0));
        for bad in ["", "0", "x", "1:", ":1", "1:2:3", "65536"] {
            assert!(bad.parse::<Route>().is_err(), "{bad}");
        }
    }
}
