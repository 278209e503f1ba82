//! The one table of operations: name, method, path, status, members, and the call into the [`ControlPlane`].

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    ApiError, Caller,
    constraints::{self, Member, tables},
    types::*,
};

macro_rules! operations {
    ($($(#[$doc:meta])* $operation:ident: $method:literal $path:literal => $status:literal,
        $call:ident($request:ident) -> $response:ident, $members:ident;)+) => {
        /// An operation of the API; its `Debug` form is its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[$doc])* $operation),+
        }

        impl Operation {
            /// All operations.
            pub const ALL: &'static [Self] = &[$(Self::$operation),+];

            /// The name in the service model.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$operation => stringify!($operation)),+ }
            }

            /// HTTP method and path pattern; a segment in braces is a label.
            pub const fn route(self) -> (&'static str, &'static str) {
                match self { $(Self::$operation => ($method, $path)),+ }
            }

            /// HTTP status of success; 204 has no body.
            pub const fn status(self) -> u16 {
                match self { $(Self::$operation => $status),+ }
            }

            /// The request's members with their constraints, in the order in which violations are reported.
            pub const fn members(self) -> &'static [Member] {
                match self { $(Self::$operation => tables::$members),+ }
            }

            /// Validates `request`, calls the control plane, and gives the JSON text of the response.
            pub async fn call(
                self,
                control_plane: &dyn ControlPlane,
                caller: &Caller,
                request: Value,
            ) -> Result<Vec<u8>, ApiError> {
                match self {
                    $(Self::$operation => {
                        let request: $request = self.decode(request)?;
                        let response: $response = control_plane.$call(caller, request).await?;
                        serde_json::to_vec(&response).map_err(|_| ApiError::internal())
                    })+
                }
            }
        }

        /// What the API asks of the rest of the service: one method per operation.
        #[async_trait]
        pub trait ControlPlane: Send + Sync + 'static {
            $($(#[$doc])*
            async fn $call(&self, caller: &Caller, request: $request) -> Result<$response, ApiError>;)+
        }
    };
}

impl Operation {
    /// Checks every constraint and gives the typed request. `request` holds body, path and query members in one object.
    pub fn decode<T: DeserializeOwned>(self, request: Value) -> Result<T, ApiError> {
        constraints::validate(self, &request)?;
        serde_json::from_value(constraints::without_nulls(request))
            .map_err(|_| ApiError::serialization("The request does not have the expected structure"))
    }
}

operations! {
    /// Creates an image and starts its first build.
    CreateMicrovmImage: "POST" "/2025-09-09/microvm-images" => 201,
        create_microvm_image(CreateMicrovmImageRequest) -> CreateMicrovmImageResponse, CREATE_MICROVM_IMAGE;
    /// Builds a new version from a full specification.
    UpdateMicrovmImage: "PUT" "/2025-09-09/microvm-images/{imageIdentifier}" => 200,
        update_microvm_image(UpdateMicrovmImageRequest) -> UpdateMicrovmImageResponse, UPDATE_MICROVM_IMAGE;
    /// Shows an image.
    GetMicrovmImage: "GET" "/2025-09-09/microvm-images/{imageIdentifier}" => 200,
        get_microvm_image(GetMicrovmImageRequest) -> GetMicrovmImageResponse, ONE_IMAGE;
    /// Lists the account's images.
    ListMicrovmImages: "GET" "/2025-09-09/microvm-images" => 200,
        list_microvm_images(ListMicrovmImagesRequest) -> ListMicrovmImagesResponse, LIST_MICROVM_IMAGES;
    /// Deletes an image with all its versions.
    DeleteMicrovmImage: "DELETE" "/2025-09-09/microvm-images/{imageIdentifier}" => 200,
        delete_microvm_image(DeleteMicrovmImageRequest) -> DeleteMicrovmImageResponse, ONE_IMAGE;
    /// Shows a version.
    GetMicrovmImageVersion: "GET" "/2025-09-09/microvm-images/{imageIdentifier}/versions/{imageVersion}" => 200,
        get_microvm_image_version(GetMicrovmImageVersionRequest) -> GetMicrovmImageVersionResponse, ONE_VERSION;
    /// Lists an image's versions.
    ListMicrovmImageVersions: "GET" "/2025-09-09/microvm-images/{imageIdentifier}/versions" => 200,
        list_microvm_image_versions(ListMicrovmImageVersionsRequest) -> ListMicrovmImageVersionsResponse,
        LIST_OF_IMAGE;
    /// Switches a version between ACTIVE and INACTIVE.
    UpdateMicrovmImageVersion: "PATCH" "/2025-09-09/microvm-images/{imageIdentifier}/versions/{imageVersion}" => 200,
        update_microvm_image_version(UpdateMicrovmImageVersionRequest) -> UpdateMicrovmImageVersionResponse,
        UPDATE_MICROVM_IMAGE_VERSION;
    /// Deletes a version.
    DeleteMicrovmImageVersion: "DELETE" "/2025-09-09/microvm-images/{imageIdentifier}/versions/{imageVersion}" => 200,
        delete_microvm_image_version(DeleteMicrovmImageVersionRequest) -> DeleteMicrovmImageVersionResponse,
        ONE_VERSION;
    /// Lists a version's builds.
    ListMicrovmImageBuilds: "GET" "/2025-09-09/microvm-images/{imageIdentifier}/versions/{imageVersion}/builds" => 200,
        list_microvm_image_builds(ListMicrovmImageBuildsRequest) -> ListMicrovmImageBuildsResponse,
        LIST_MICROVM_IMAGE_BUILDS;
    /// Shows a build.
    GetMicrovmImageBuild:
        "GET" "/2025-09-09/microvm-images/{imageIdentifier}/versions/{imageVersion}/builds/{buildId}" => 200,
        get_microvm_image_build(GetMicrovmImageBuildRequest) -> GetMicrovmImageBuildResponse, ONE_BUILD;
    /// Lists the managed base images.
    ListManagedMicrovmImages: "GET" "/2025-09-09/managed-microvm-images" => 200,
        list_managed_microvm_images(ListManagedMicrovmImagesRequest) -> ListManagedMicrovmImagesResponse, LIST;
    /// Lists the versions of a managed base image.
    ListManagedMicrovmImageVersions: "GET" "/2025-09-09/managed-microvm-images/{imageIdentifier}/versions" => 200,
        list_managed_microvm_image_versions(ListManagedMicrovmImageVersionsRequest)
        -> ListManagedMicrovmImageVersionsResponse, LIST_OF_IMAGE;
    /// Launches a MicroVM.
    RunMicrovm: "POST" "/2025-09-09/microvms" => 200,
        run_microvm(RunMicrovmRequest) -> RunMicrovmResponse, RUN_MICROVM;
    /// Shows a MicroVM.
    GetMicrovm: "GET" "/2025-09-09/microvms/{microvmIdentifier}" => 200,
        get_microvm(GetMicrovmRequest) -> GetMicrovmResponse, ONE_MICROVM;
    /// Lists the account's MicroVMs.
    ListMicrovms: "GET" "/2025-09-09/microvms" => 200,
        list_microvms(ListMicrovmsRequest) -> ListMicrovmsResponse, LIST_MICROVMS;
    /// Suspends a MicroVM.
    SuspendMicrovm: "POST" "/2025-09-09/microvms/{microvmIdentifier}/suspend" => 200,
        suspend_microvm(SuspendMicrovmRequest) -> SuspendMicrovmResponse, ONE_MICROVM;
    /// Resumes a MicroVM.
    ResumeMicrovm: "POST" "/2025-09-09/microvms/{microvmIdentifier}/resume" => 200,
        resume_microvm(ResumeMicrovmRequest) -> ResumeMicrovmResponse, ONE_MICROVM;
    /// Ends a MicroVM.
    TerminateMicrovm: "DELETE" "/2025-09-09/microvms/{microvmIdentifier}" => 200,
        terminate_microvm(TerminateMicrovmRequest) -> TerminateMicrovmResponse, ONE_MICROVM;
    /// Mints a token for a MicroVM's endpoint.
    CreateMicrovmAuthToken: "POST" "/2025-09-09/microvms/{microvmIdentifier}/auth-token" => 200,
        create_microvm_auth_token(CreateMicrovmAuthTokenRequest) -> CreateMicrovmAuthTokenResponse,
        CREATE_MICROVM_AUTH_TOKEN;
    /// Mints a token for a MicroVM's shell.
    CreateMicrovmShellAuthToken: "POST" "/2025-09-09/microvms/{microvmIdentifier}/shell-auth-token" => 200,
        create_microvm_shell_auth_token(CreateMicrovmShellAuthTokenRequest) -> CreateMicrovmShellAuthTokenResponse,
        CREATE_MICROVM_SHELL_AUTH_TOKEN;
    /// Adds tags to a resource.
    TagResource: "POST" "/2017-03-31/tags/{Resource}" => 204,
        tag_resource(TagResourceRequest) -> TagResourceResponse, TAG_RESOURCE;
    /// Takes tags from a resource.
    UntagResource: "DELETE" "/2017-03-31/tags/{Resource}" => 204,
        untag_resource(UntagResourceRequest) -> UntagResourceResponse, UNTAG_RESOURCE;
    /// Lists a resource's tags.
    ListTags: "GET" "/2017-03-31/tags/{Resource}" => 200,
        list_tags(ListTagsRequest) -> ListTagsResponse, LIST_TAGS;
    /// Creates a network connector; it becomes ACTIVE or FAILED in the background.
    CreateNetworkConnector: "POST" "/2026-04-04/network-connectors" => 202,
        create_network_connector(CreateNetworkConnectorRequest) -> CreateNetworkConnectorResponse,
        CREATE_NETWORK_CONNECTOR;
    /// Shows a connector or one of its versions.
    GetNetworkConnector: "GET" "/2026-04-04/network-connectors/{Identifier}" => 200,
        get_network_connector(GetNetworkConnectorRequest) -> GetNetworkConnectorResponse, ONE_CONNECTOR;
    /// Lists the account's connectors.
    ListNetworkConnectors: "GET" "/2026-04-04/network-connectors" => 200,
        list_network_connectors(ListNetworkConnectorsRequest) -> ListNetworkConnectorsResponse, LIST_CONNECTORS;
    /// Makes a new version of a connector, when something changes.
    UpdateNetworkConnector: "PUT" "/2026-04-04/network-connectors/{Identifier}" => 202,
        update_network_connector(UpdateNetworkConnectorRequest) -> UpdateNetworkConnectorResponse,
        UPDATE_NETWORK_CONNECTOR;
    /// Deletes a connector or one of its versions.
    DeleteNetworkConnector: "DELETE" "/2026-04-04/network-connectors/{Identifier}" => 202,
        delete_network_connector(DeleteNetworkConnectorRequest) -> DeleteNetworkConnectorResponse, ONE_CONNECTOR;
    /// Lists a connector's versions.
    ListNetworkConnectorVersions: "GET" "/2026-04-04/network-connectors/{Identifier}/versions" => 200,
        list_network_connector_versions(ListNetworkConnectorVersionsRequest)
        -> ListNetworkConnectorVersionsResponse, LIST_CONNECTOR_VERSIONS;
    /// Our own: makes an archive a container base that Dockerfiles can name.
    ImportBase: "POST" "/hearth/v1/bases" => 200,
        import_base(ImportBaseRequest) -> ImportBaseResponse, IMPORT_BASE;
    /// Our own: lists the container bases.
    ListBases: "GET" "/hearth/v1/bases" => 200,
        list_bases(ListBasesRequest) -> ListBasesResponse, NOTHING;
    /// Our own: makes an access key.
    CreateKey: "POST" "/hearth/v1/keys" => 200,
        create_key(CreateKeyRequest) -> CreateKeyResponse, CREATE_KEY;
    /// Our own: lists access keys, never their secrets.
    ListKeys: "GET" "/hearth/v1/keys" => 200,
        list_keys(ListKeysRequest) -> ListKeysResponse, OF_ACCOUNT;
    /// Our own: revokes an access key.
    RevokeKey: "DELETE" "/hearth/v1/keys/{accessKeyId}" => 200,
        revoke_key(RevokeKeyRequest) -> RevokeKeyResponse, REVOKE_KEY;
    /// Our own: makes a role.
    CreateRole: "POST" "/hearth/v1/roles" => 200,
        create_role(CreateRoleRequest) -> CreateRoleResponse, CREATE_ROLE;
    /// Our own: lists roles.
    ListRoles: "GET" "/hearth/v1/roles" => 200,
        list_roles(ListRolesRequest) -> ListRolesResponse, OF_ACCOUNT;
    /// Our own: removes a role.
    DeleteRole: "DELETE" "/hearth/v1/roles/{name}" => 200,
        delete_role(DeleteRoleRequest) -> DeleteRoleResponse, DELETE_ROLE;
    /// Our own: what an account has used.
    GetUsage: "GET" "/hearth/v1/usage" => 200,
        get_usage(GetUsageRequest) -> GetUsageResponse, GET_USAGE;
    /// Our own: what was changed, by whom and when.
    ListAudit: "GET" "/hearth/v1/audit" => 200,
        list_audit(ListAuditRequest) -> ListAuditResponse, LIST_AUDIT;
}
