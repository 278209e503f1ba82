//! The API's operations: identifiers, business rules, answers. One file a resource.

mod access;
mod audit;
mod bases;
pub(crate) mod connectors;
mod images;
mod managed;
mod microvms;
mod tags;
mod tokens;
mod usage;
mod versions;

use async_trait::async_trait;
use hearth_wire::{ApiError, Caller, ControlPlane, types::*};

use crate::Service;

/// An error that is ours: the details go to the log, not to the caller.
fn internal(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "an operation failed");
    ApiError::internal()
}

macro_rules! delegate {
    ($($operation:ident($request:ident) -> $response:ident;)+) => {
        #[async_trait]
        impl ControlPlane for Service {
            $(async fn $operation(&self, caller: &Caller, request: $request) -> Result<$response, ApiError> {
                self.$operation(caller, request).await
            })+
        }
    };
}

delegate! {
    create_microvm_image(CreateMicrovmImageRequest) -> CreateMicrovmImageResponse;
    update_microvm_image(UpdateMicrovmImageRequest) -> UpdateMicrovmImageResponse;
    get_microvm_image(GetMicrovmImageRequest) -> GetMicrovmImageResponse;
    list_microvm_images(ListMicrovmImagesRequest) -> ListMicrovmImagesResponse;
    delete_microvm_image(DeleteMicrovmImageRequest) -> DeleteMicrovmImageResponse;
    get_microvm_image_version(GetMicrovmImageVersionRequest) -> GetMicrovmImageVersionResponse;
    list_microvm_image_versions(ListMicrovmImageVersionsRequest) -> ListMicrovmImageVersionsResponse;
    update_microvm_image_version(UpdateMicrovmImageVersionRequest) -> UpdateMicrovmImageVersionResponse;
    delete_microvm_image_version(DeleteMicrovmImageVersionRequest) -> DeleteMicrovmImageVersionResponse;
    list_microvm_image_builds(ListMicrovmImageBuildsRequest) -> ListMicrovmImageBuildsResponse;
    get_microvm_image_build(GetMicrovmImageBuildRequest) -> GetMicrovmImageBuildResponse;
    list_managed_microvm_images(ListManagedMicrovmImagesRequest) -> ListManagedMicrovmImagesResponse;
    list_managed_microvm_image_versions(ListManagedMicrovmImageVersionsRequest) -> ListManagedMicrovmImageVersionsResponse;
    run_microvm(RunMicrovmRequest) -> RunMicrovmResponse;
    get_microvm(GetMicrovmRequest) -> GetMicrovmResponse;
    list_microvms(ListMicrovmsRequest) -> ListMicrovmsResponse;
    suspend_microvm(SuspendMicrovmRequest) -> SuspendMicrovmResponse;
    resume_microvm(ResumeMicrovmRequest) -> ResumeMicrovmResponse;
    terminate_microvm(TerminateMicrovmRequest) -> TerminateMicrovmResponse;
    create_microvm_auth_token(CreateMicrovmAuthTokenRequest) -> CreateMicrovmAuthTokenResponse;
    create_microvm_shell_auth_token(CreateMicrovmShellAuthTokenRequest) -> CreateMicrovmShellAuthTokenResponse;
    tag_resource(TagResourceRequest) -> TagResourceResponse;
    untag_resource(UntagResourceRequest) -> UntagResourceResponse;
    list_tags(ListTagsRequest) -> ListTagsResponse;
    create_network_connector(CreateNetworkConnectorRequest) -> CreateNetworkConnectorResponse;
    get_network_connector(GetNetworkConnectorRequest) -> GetNetworkConnectorResponse;
    list_network_connectors(ListNetworkConnectorsRequest) -> ListNetworkConnectorsResponse;
    update_network_connector(UpdateNetworkConnectorRequest) -> UpdateNetworkConnectorResponse;
    delete_network_connector(DeleteNetworkConnectorRequest) -> DeleteNetworkConnectorResponse;
    list_network_connector_versions(ListNetworkConnectorVersionsRequest) -> ListNetworkConnectorVersionsResponse;
    import_base(ImportBaseRequest) -> ImportBaseResponse;
    list_bases(ListBasesRequest) -> ListBasesResponse;
    create_key(CreateKeyRequest) -> CreateKeyResponse;
    list_keys(ListKeysRequest) -> ListKeysResponse;
    revoke_key(RevokeKeyRequest) -> RevokeKeyResponse;
    create_role(CreateRoleRequest) -> CreateRoleResponse;
    list_roles(ListRolesRequest) -> ListRolesResponse;
    delete_role(DeleteRoleRequest) -> DeleteRoleResponse;
    get_usage(GetUsageRequest) -> GetUsageResponse;
    list_audit(ListAuditRequest) -> ListAuditResponse;
}
