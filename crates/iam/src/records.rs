//! What is written down of keys and roles.

use hearth_wire::{Sensitive, Timestamp};
use serde::{Deserialize, Serialize};

/// The record of an access key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// `AKIA…`.
    pub access_key_id: String,
    /// Shown once, when the key is made.
    pub secret_access_key: Sensitive,
    /// Twelve digits.
    pub account: String,
    /// Whom the key is for; `None` acts as the account itself.
    #[serde(default)]
    pub user: Option<String>,
    /// May do everything in its account, and manage every account. Records without this member are older than policies
    /// and can only be of the first key.
    #[serde(default = "of_the_first_key")]
    pub administrator: bool,
    /// What the key may do beyond that; nothing without one.
    #[serde(default)]
    pub policy: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created_at: Timestamp,
}

fn of_the_first_key() -> bool {
    true
}

/// The record of a role. Services and principals of its own account may assume it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleRecord {
    /// Twelve digits.
    pub account: String,
    /// The name, without a path.
    pub name: String,
    /// `AROA…`: another role of the same name later has another.
    pub id: String,
    /// What the role may do; `None` once it was removed, so that its name does not count as never created.
    pub policy: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl RoleRecord {
    /// Key in the database.
    pub(crate) fn key(account: &str, name: &str) -> String {
        format!("{account}:{name}")
    }
}
