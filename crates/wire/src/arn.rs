//! ARNs: parsed once here, with the errors of spec 2.

mod connector;
mod image;
mod role;

pub use connector::{ConnectorArn, ManagedConnector, public_ports};
pub use image::ImageArn;
pub use role::RoleArn;

/// Why a string is no ARN; the texts are those that RunMicrovm answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedArn {
    /// Another prefix.
    #[error("Malformed ARN - doesn't start with 'arn:'")]
    Prefix,
    /// Ends before the partition does.
    #[error("Malformed ARN - no AWS partition specified")]
    Partition,
    /// Ends before the service does.
    #[error("Malformed ARN - no service specified")]
    Service,
    /// Ends before the region does.
    #[error("Malformed ARN - no AWS region partition specified")]
    Region,
    /// Ends before the account does.
    #[error("Malformed ARN - no AWS account specified")]
    Account,
    /// Names nothing.
    #[error("Malformed ARN - no resource specified")]
    Resource,
}

/// The six fields of any ARN.
struct Fields<'a> {
    partition: &'a str,
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Fields<'a> {
    fn parse(value: &'a str) -> Result<Self, MalformedArn> {
        let rest = value.strip_prefix("arn:").ok_or(MalformedArn::Prefix)?;
        let (partition, rest) = rest
            .split_once(':')
            .filter(|(partition, _)| !partition.is_empty())
            .ok_or(MalformedArn::Partition)?;
        let (service, rest) = rest
            .split_once(':')
            .filter(|(service, _)| !service.is_empty())
            .ok_or(MalformedArn::Service)?;
        let (region, rest) = rest.split_once(':').ok_or(MalformedArn::Region)?;
        let (account, resource) = rest.split_once(':').ok_or(MalformedArn::Account)?;
        if resource.is_empty() {
            return Err(MalformedArn::Resource);
        }
        Ok(Self {
            partition,
            service,
            region,
            account,
            resource,
        })
    }
}

/// Twelve digits.
fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())
}

/// What names of ours are made of.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
