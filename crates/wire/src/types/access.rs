use serde::{Deserialize, Serialize};

use crate::{Sensitive, Timestamp};

/// Our own: makes an access key. Without a policy, and unless it is an administrator's, it may do nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateKeyRequest {
    /// The caller's own account when absent; only an administrator may name another.
    pub account: Option<String>,
    pub user_name: Option<String>,
    pub administrator: Option<bool>,
    /// A policy document, as text.
    pub policy: Option<String>,
}

/// The only answer that ever holds the secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateKeyResponse {
    #[serde(flatten)]
    pub key: KeyItem,
    pub secret_access_key: Sensitive,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyItem {
    pub access_key_id: String,
    pub account: String,
    pub user_name: Option<String>,
    pub administrator: bool,
    pub policy: Option<String>,
    pub created_at: Timestamp,
}

/// Our own: lists the keys of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListKeysRequest {
    pub account: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListKeysResponse {
    pub items: Vec<KeyItem>,
}

/// Our own: revokes a key at once and for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeKeyRequest {
    pub access_key_id: String,
    pub account: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeKeyResponse {}

/// Our own: makes a role that this service and the account's principals may assume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateRoleRequest {
    pub account: Option<String>,
    pub name: String,
    pub policy: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleItem {
    pub role_arn: String,
    pub name: String,
    pub policy: Option<String>,
    pub created_at: Timestamp,
}

pub type CreateRoleResponse = RoleItem;

/// Our own: lists the roles of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListRolesRequest {
    pub account: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListRolesResponse {
    pub items: Vec<RoleItem>,
}

/// Our own: removes a role; its sessions may do nothing from then on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteRoleRequest {
    pub account: Option<String>,
    pub name: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRoleResponse {}
