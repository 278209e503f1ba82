use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Unit;
use crate::Sensitive;

/// The one header a client has to send, with this exact case (spec 4.4).
pub const AUTH_TOKEN_HEADER: &str = "X-aws-proxy-auth";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmAuthTokenRequest {
    pub microvm_identifier: String,
    pub expiration_in_minutes: u32,
    pub allowed_ports: Vec<PortSpecification>,
}

/// One grant of ports (spec 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortSpecification {
    Port(u16),
    Range(PortRange),
    AllPorts(Unit),
}

/// Both ends belong to the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    pub start_port: u16,
    pub end_port: u16,
}

/// Header names and values a client adds to its requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmAuthTokenResponse {
    pub auth_token: BTreeMap<String, Sensitive>,
}

impl CreateMicrovmAuthTokenResponse {
    /// The answer that carries `token` under [`AUTH_TOKEN_HEADER`].
    pub fn of(token: String) -> Self {
        Self {
            auth_token: BTreeMap::from([(AUTH_TOKEN_HEADER.to_owned(), Sensitive(token))]),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmShellAuthTokenRequest {
    pub microvm_identifier: String,
    pub expiration_in_minutes: u32,
}

pub type CreateMicrovmShellAuthTokenResponse = CreateMicrovmAuthTokenResponse;
