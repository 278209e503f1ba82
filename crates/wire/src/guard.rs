use std::net::IpAddr;

use async_trait::async_trait;
use serde_json::Value;

use crate::{ApiError, Caller, Operation, Sensitive};

/// A call whose signature is verified, before it is carried out.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who signed.
    pub caller: Caller,
    /// What came along with a temporary key.
    pub session_token: Option<Sensitive>,
    /// Where the connection came from.
    pub source: IpAddr,
    /// As the client names itself.
    pub user_agent: Option<String>,
    /// What is asked for.
    pub request: Request,
}

/// What a call asks for.
#[derive(Debug, Clone)]
pub enum Request {
    /// An operation of the table, with its members; they satisfy their constraints.
    Operation(Operation, Value),
    /// An operation of `logs`, with its body.
    Logs(String, Value),
    /// An action of `sts`, with the ARN it is about.
    Sts(String, String),
    /// An action of `s3` on the ARN of a bucket or object, or on `*`.
    S3(String, String),
}

impl Call {
    /// The service's name in credential scopes.
    pub fn service(&self) -> &'static str {
        match &self.request {
            Request::Operation(..) => "lambda",
            Request::Logs(..) => "logs",
            Request::Sts(..) => "sts",
            Request::S3(..) => "s3",
        }
    }

    /// The operation's name.
    pub fn name(&self) -> &str {
        match &self.request {
            Request::Operation(operation, _) => operation.name(),
            Request::Logs(name, _) | Request::Sts(name, _) | Request::S3(name, _) => name,
        }
    }
}

/// Decides about calls before they are carried out and hears what came of them.
#[async_trait]
pub trait Guard: Send + Sync + 'static {
    /// Refuses a call, or lets it go on.
    async fn admit(&self, call: &Call) -> Result<(), ApiError>;

    /// A call has ended: its HTTP status, and the error's name when it was refused or failed.
    async fn ended(&self, call: &Call, status: u16, error: Option<&str>);
}
