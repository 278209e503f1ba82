use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Our own: calls that could change something, oldest first; for administrators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListAuditRequest {
    /// Of one account; of all when absent.
    pub account: Option<String>,
    /// Epoch seconds; the oldest record that is kept when absent.
    pub from: Option<i64>,
    /// Epoch seconds; now when absent.
    pub to: Option<i64>,
    /// A part of the principal's ARN, or an access key's id.
    pub who: Option<String>,
    /// An operation's name, or a part of the resource.
    pub what: Option<String>,
    /// `SUCCEEDED`, or `FAILED` for calls that were refused as well.
    pub outcome: Option<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

/// A page; it can be empty although there are more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListAuditResponse {
    pub items: Vec<AuditItem>,
    pub next_token: Option<String>,
}

/// A call that has ended. No member can hold a secret: bodies are not part of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditItem {
    pub time: Timestamp,
    pub request_id: String,
    pub account: String,
    /// The principal's ARN; null when its key was gone by then.
    pub principal: Option<String>,
    pub access_key_id: String,
    /// Address of the client.
    pub source: String,
    pub user_agent: Option<String>,
    pub region: String,
    /// `lambda`, `s3`, `logs` or `sts`.
    pub service: String,
    pub operation: String,
    pub resource: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// The error's name.
    pub error: Option<String>,
}
