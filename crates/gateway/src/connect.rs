//! Raw TCP for clients that ask for it: `CONNECT 127.0.0.1:5432` at an endpoint (an extension of ours).
//!
//! The TLS server name says which MicroVM is meant, for the request itself names only the guest's port. Token, grant,
//! gate and limits are those of every request; the bytes after the 200 are the application's alone.

use http::{HeaderValue, Request};

use crate::respond::Refusal;
use crate::target::parse_port;

/// Names of the guest's loopback that a tunnel may lead to.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The guest port that a CONNECT asks for.
pub(crate) fn port<B>(request: &Request<B>) -> Result<u16, Refusal> {
    let authority = request.uri().authority().ok_or(Refusal::InvalidRequest)?;
    if !LOOPBACK.contains(&authority.host()) {
        return Err(Refusal::InvalidRequest);
    }
    let port = authority.port().ok_or(Refusal::InvalidPort)?;
    parse_port(port.as_str())
}

/// The endpoint that a CONNECT is sent to: the TLS server name, else Host.
pub(crate) fn endpoint<B>(request: &Request<B>, server_name: Option<&str>) -> Result<HeaderValue, Refusal> {
    let name = server_name.and_then(|name| HeaderValue::from_str(name).ok());
    name.or_else(|| request.headers().get(http::header::HOST).cloned())
        .ok_or(Refusal::InvalidRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(target: &str) -> Result<u16, Refusal> {
        let uri = target.parse::<http::Uri>().map_err(|_| Refusal::InvalidRequest)?;
        port(&Request::connect(uri).body(()).expect("a request"))
    }

    #[test]
    fn a_tunnel_leads_to_a_port_of_the_guest_itself_only() {
        for target in ["127.0.0.1:5432", "localhost:5432", "[::1]:5432"] {
            assert_eq!(ask(target), Ok(5432), "{target}");
        }
        for target in [
            "169.254.169.254:80",
            "10.0.0.1:22",
            "example.com:443",
            "one.vm.localhost:22",
        ] {
            assert_eq!(ask(target), Err(Refusal::InvalidRequest), "{target}");
        }
        for target in ["127.0.0.1", "127.0.0.1:0"] {
            assert_eq!(ask(target), Err(Refusal::InvalidPort), "{target}");
        }
    }
}
