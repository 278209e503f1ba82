//! Keys and roles. Who may manage them has been decided before.

use hearth_iam::{KeyError, KeyRecord, RoleRecord};
use hearth_wire::{ApiError, Caller, types::*};

use super::internal;
use crate::Service;

impl Service {
    pub(crate) async fn create_key(
        &self,
        caller: &Caller,
        request: CreateKeyRequest,
    ) -> Result<CreateKeyResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        let record = self
            .node()
            .iam
            .create_key(
                account,
                request.user_name.as_deref(),
                request.administrator.unwrap_or_default(),
                request.policy.as_deref(),
            )
            .await
            .map_err(refusal)?;
        Ok(CreateKeyResponse {
            secret_access_key: record.secret_access_key.clone(),
            key: key_item(record),
        })
    }

    pub(crate) async fn list_keys(
        &self,
        caller: &Caller,
        request: ListKeysRequest,
    ) -> Result<ListKeysResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        let keys = self.node().iam.keys(Some(account));
        Ok(ListKeysResponse {
            items: keys.into_iter().map(key_item).collect(),
        })
    }

    pub(crate) async fn revoke_key(
        &self,
        caller: &Caller,
        request: RevokeKeyRequest,
    ) -> Result<RevokeKeyResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        self.node()
            .iam
            .revoke_key(&request.access_key_id, Some(account))
            .await
            .map_err(refusal)?;
        Ok(RevokeKeyResponse {})
    }

    pub(crate) async fn create_role(
        &self,
        caller: &Caller,
        request: CreateRoleRequest,
    ) -> Result<CreateRoleResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        let record = self
            .node()
            .iam
            .create_role(account, &request.name, &request.policy)
            .await
            .map_err(refusal)?;
        Ok(role_item(caller, record))
    }

    pub(crate) async fn list_roles(
        &self,
        caller: &Caller,
        request: ListRolesRequest,
    ) -> Result<ListRolesResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        let roles = self.node().iam.roles(account);
        Ok(ListRolesResponse {
            items: roles.into_iter().map(|role| role_item(caller, role)).collect(),
        })
    }

    pub(crate) async fn delete_role(
        &self,
        caller: &Caller,
        request: DeleteRoleRequest,
    ) -> Result<DeleteRoleResponse, ApiError> {
        let account = request.account.as_ref().unwrap_or(&caller.account_id);
        self.node()
            .iam
            .remove_role(account, &request.name)
            .await
            .map_err(refusal)?;
        Ok(DeleteRoleResponse {})
    }
}

fn refusal(error: KeyError) -> ApiError {
    match error {
        KeyError::NotFound(message) => ApiError::not_found(message),
        KeyError::Exists(message) => ApiError::conflict(message),
        KeyError::Policy(_) | KeyError::Last(_) => ApiError::validation(error.to_string()),
        KeyError::State(_) | KeyError::Random(_) => internal(error),
    }
}

fn key_item(record: KeyRecord) -> KeyItem {
    KeyItem {
        access_key_id: record.access_key_id,
        account: record.account,
        user_name: record.user,
        administrator: record.administrator,
        policy: record.policy,
        created_at: record.created_at,
    }
}

fn role_item(caller: &Caller, record: RoleRecord) -> RoleItem {
    RoleItem {
        role_arn: format!(
            "arn:{}:iam::{}:role/{}",
            caller.partition, record.account, record.name
        ),
        name: record.name,
        policy: record.policy,
        created_at: record.created_at,
    }
}
