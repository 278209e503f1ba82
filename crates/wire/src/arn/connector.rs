use std::{fmt, ops::RangeInclusive};

use super::{Fields, is_account, is_name};
use crate::{ApiError, Caller, texts};

const KIND: &str = "network-connector";
const MANAGED: &str = "aws-network-connector";
/// Before the port, or the first and the last of them, in the name of a connector that opens ports to everybody.
const PUBLIC: &str = "PUBLIC_INGRESS_";

/// A connector the service provides (spec 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManagedConnector {
    /// HTTP and shell.
    AllIngress,
    /// HTTP only; what a MicroVM has when none is named.
    HttpIngress,
    /// Shell only.
    ShellIngress,
    /// Nothing comes in.
    NoIngress,
    /// Outbound TCP to the internet.
    InternetEgress,
}

impl ManagedConnector {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AllIngress,
        Self::HttpIngress,
        Self::ShellIngress,
        Self::NoIngress,
        Self::InternetEgress,
    ];

    /// The last segment of the ARN.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllIngress => "ALL_INGRESS",
            Self::HttpIngress => "HTTP_INGRESS",
            Self::ShellIngress => "SHELL_INGRESS",
            Self::NoIngress => "NO_INGRESS",
            Self::InternetEgress => "INTERNET_EGRESS",
        }
    }

    /// Whether it governs traffic into the MicroVM.
    pub const fn is_ingress(self) -> bool {
        !matches!(self, Self::InternetEgress)
    }

    /// Its ARN in the caller's region.
    pub fn arn(self, caller: &Caller) -> String {
        let Caller {
            partition, region, ..
        } = caller;
        format!(
            "arn:{partition}:lambda:{region}:aws:{KIND}:{MANAGED}:{}",
            self.name()
        )
    }
}

/// What a connector member of a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectorArn {
    /// One the service provides.
    Managed(ManagedConnector),
    /// Ports that need no token, an extension of ours: `PUBLIC_INGRESS_8080`, `PUBLIC_INGRESS_8000_8099`.
    Public(RangeInclusive<u16>),
    /// One of the caller's account: `arn:<partition>:lambda:<region>:<account>:network-connector:<id>[:<version>]`.
    Customer {
        /// `nc-<uuid>`, or a name.
        id: String,
        /// A pinned version.
        version: Option<String>,
    },
}

impl ConnectorArn {
    /// Reads a member of a request: 400 for what is no connector's ARN or no known managed one, 403 for another
    /// account's.
    pub fn parse(value: &str, caller: &Caller) -> Result<Self, ApiError> {
        let fields = Fields::parse(value).map_err(|_| texts::malformed_connector())?;
        let resource = fields
            .resource
            .strip_prefix(KIND)
            .and_then(|rest| rest.strip_prefix(':'));
        let resource = resource
            .filter(|_| fields.service == "lambda")
            .ok_or_else(texts::malformed_connector)?;
        let is_local = fields.region == caller.region && fields.partition == caller.partition;
        if fields.account == "aws" {
            let name = resource
                .strip_prefix(MANAGED)
                .and_then(|rest| rest.strip_prefix(':'));
            let name = name.filter(|_| is_local);
            return ManagedConnector::ALL
                .into_iter()
                .find(|connector| Some(connector.name()) == name)
                .map(Self::Managed)
                .or_else(|| name.and_then(public_ports).map(Self::Public))
                .ok_or_else(|| texts::unrecognized_connector(value));
        }
        let (id, version) = match resource.split_once(':') {
            Some((id, version)) => (id, Some(version)),
            None => (resource, None),
        };
        let is_version =
            |version: &str| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        if !is_account(fields.account) || !is_name(id) || !version.is_none_or(is_version) {
            return Err(texts::malformed_connector());
        }
        if fields.account != caller.account_id || !is_local {
            return Err(ApiError::access_denied(format!(
                "The caller is not authorized to perform: lambda:PassNetworkConnector on resource: {value}"
            )));
        }
        Ok(Self::Customer {
            id: id.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    /// The ARN in the caller's account and region.
    pub fn arn(&self, caller: &Caller) -> String {
        match self {
            Self::Managed(connector) => connector.arn(caller),
            Self::Public(ports) => {
                let Caller {
                    partition, region, ..
                } = caller;
                let (first, last) = (ports.start(), ports.end());
                let ports = if first == last {
                    first.to_string()
                } else {
                    format!("{first}_{last}")
                };
                format!("arn:{partition}:lambda:{region}:aws:{KIND}:{MANAGED}:{PUBLIC}{ports}")
            }
            Self::Customer { id, version } => {
                let Caller {
                    partition,
                    region,
                    account_id,
                    ..
                } = caller;
                let qualifier = version
                    .as_ref()
                    .map(|version| format!(":{version}"))
                    .unwrap_or_default();
                format!("arn:{partition}:lambda:{region}:{account_id}:{KIND}:{id}{qualifier}")
            }
        }
    }
}

/// The ports that a managed connector of this name, or with an ARN that ends in it, opens without a token.
pub fn public_ports(name: &str) -> Option<RangeInclusive<u16>> {
    let name = name.rsplit(':').next()?;
    let ports = name.strip_prefix(PUBLIC)?;
    let (first, last) = ports.split_once('_').unwrap_or((ports, ports));
    let port = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.filter(|port| port.to_string() == text)
    };
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

impl fmt::Display for ManagedConnector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller() -> Caller {
        Caller {
            account_id: "111122223333".into(),
            region: "us-east-1".into(),
            partition: "aws".into(),
            access_key_id: "AKIA".into(),
            request_id: "r".into(),
        }
    }

    fn refusal(value: &str) -> (u16, Option<String>) {
        let error = ConnectorArn::parse(value, &caller()).expect_err(value);
        (error.status(), error.message)
    }

    #[test]
    fn every_managed_connector_reads_back_from_its_arn() {
        for connector in ManagedConnector::ALL {
            let arn = connector.arn(&caller());
            assert_eq!(
                ConnectorArn::parse(&arn, &caller()),
                Ok(ConnectorArn::Managed(connector))
            );
        }
        assert_eq!(
            ManagedConnector::InternetEgress.arn(&caller()),
            "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS"
        );
    }

    #[test]
    fn an_unknown_managed_connector_is_unrecognized_and_a_bare_name_malformed() {
        let unknown = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NOPE";
        assert_eq!(
            refusal(unknown),
            (
                400,
                Some(format!("Unrecognized managed network connector ARN: {unknown}"))
            )
        );
        for malformed in [
            "INTERNET_EGRESS",
            "arn:aws:lambda:us-east-1:111122223333:network-connector:a:b",
            "",
            "arn:",
        ] {
            assert_eq!(
                refusal(malformed),
                (400, Some("Malformed network connector ARN".into())),
                "{malformed}"
            );
        }
    }

    #[test]
    fn public_ports_are_read_strictly_and_back_from_their_arn() {
        for ports in [8080..=8080, 1..=65535] {
            let connector = ConnectorArn::Public(ports);
            assert_eq!(
                ConnectorArn::parse(&connector.arn(&caller()), &caller()),
                Ok(connector)
            );
        }
        for name in [
            "",
            "0",
            "08",
            "+8",
            "8080_",
            "_8080",
            "9_8",
            "70000",
            "1_2_3",
            "8080-8081",
        ] {
            assert_eq!(public_ports(&format!("{PUBLIC}{name}")), None, "{name}");
        }
        assert_eq!(public_ports("HTTP_INGRESS"), None);
    }

    #[test]
    fn another_accounts_connector_is_denied() {
        assert_eq!(
            refusal("arn:aws:lambda:us-east-1:999922223333:network-connector:nc-1").0,
            403
        );
    }

    proptest! {
        #[test]
        fn a_customer_connector_reads_back_from_its_arn(
            id in "[a-zA-Z0-9_-]{1,64}", version in proptest::option::of("[1-9][0-9]{0,3}"),
        ) {
            let connector = ConnectorArn::Customer { id, version };
            prop_assert_eq!(ConnectorArn::parse(&connector.arn(&caller()), &caller()), Ok(connector));
        }

        #[test]
        fn no_input_panics(value in "(arn:)?\\PC{0,80}") {
            let _ = ConnectorArn::parse(&value, &caller());
        }
    }
}
