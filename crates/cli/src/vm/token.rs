//! `hearth token`: a token for a MicroVM's endpoint.

use std::collections::BTreeMap;
use std::str::FromStr;

use aws_sdk_lambdamicrovms::types::{PortRange, PortSpecification};
use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::Out;
use crate::service::Service;
use crate::vm::id;

/// The port an endpoint leads to when nothing else is said.
pub(crate) const DEFAULT_PORT: u16 = 8080;

/// Prints a token.
#[derive(Args)]
pub(crate) struct Token {
    /// Id of the MicroVM, or its beginning
    id: String,
    /// A port it opens: N, FIRST-LAST or `all`; may be repeated [default: 8080]
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<Ports>,
    /// How long it is good for, at most 60
    #[arg(long, default_value_t = 60)]
    minutes: i32,
}

impl Token {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let id = id::resolve(service, &self.id).await?;
        let ports = if self.ports.is_empty() {
            vec![Ports::One(DEFAULT_PORT)]
        } else {
            self.ports
        };
        let headers = mint(service, &id, &ports, self.minutes).await?;
        out.print(json!(headers), || {
            headers.values().cloned().collect::<Vec<_>>().join("\n")
        })
    }
}

/// Ports that a token opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ports {
    /// One.
    One(u16),
    /// From the first to the last.
    Range(u16, u16),
    /// Any.
    All,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
        let parsed = match text.split_once('-') {
            None if text == "all" => Some(Self::All),
            None => port(text).map(Self::One),
            Some((first, last)) => port(first)
                .zip(port(last))
                .map(|(first, last)| Self::Range(first, last)),
        };
        parsed.ok_or_else(|| "a port is a number from 1 to 65535, FIRST-LAST or `all`".to_owned())
    }
}

/// A token as the headers to send it in.
pub(crate) async fn mint(
    service: &Service,
    id: &str,
    ports: &[Ports],
    minutes: i32,
) -> Result<BTreeMap<String, String>> {
    let ports = ports
        .iter()
        .map(|ports| ports.specification())
        .collect::<Result<Vec<_>>>()?;
    let request = service
        .microvms
        .create_microvm_auth_token()
        .microvm_identifier(id);
    let answer = request
        .set_allowed_ports(Some(ports))
        .expiration_in_minutes(minutes)
        .send()
        .await;
    Ok(answer
        .map_err(|error| service.error(error))?
        .auth_token
        .into_iter()
        .collect())
}

impl Ports {
    fn specification(self) -> Result<PortSpecification> {
        Ok(match self {
            Self::All => PortSpecification::AllPorts,
            Self::One(port) => PortSpecification::Port(port.into()),
            Self::Range(first, last) => {
                let range = PortRange::builder()
                    .start_port(first.into())
                    .end_port(last.into())
                    .build();
                PortSpecification::Range(range.map_err(|error| Error::failed(error.to_string(), ""))?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_a_range_or_all() {
        assert_eq!("8080".parse(), Ok(Ports::One(8080)));
        assert_eq!("8000-8010".parse(), Ok(Ports::Range(8000, 8010)));
        assert_eq!("all".parse(), Ok(Ports::All));
        for bad in ["", "0", "65536", "-1", "1-", "http"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }
}
