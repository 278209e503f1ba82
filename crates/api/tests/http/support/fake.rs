use std::sync::Mutex;

use async_trait::async_trait;
use hearth_wire::{ApiError, Caller, ControlPlane, Timestamp, enums::*, texts, types::*};
use tokio::sync::Notify;

use super::{ACCOUNT, REGION};

/// Remembers every request it got, as `(operation, caller, debug form)`.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) calls: Mutex<Vec<(&'static str, Caller, String)>>,
    /// A call for `slow` waits for this, and tells when it is over.
    pub(crate) may_end: Notify,
    pub(crate) ended: Notify,
}

impl Fake {
    pub(crate) fn count(&self) -> usize {
        self.calls.lock().expect("calls").len()
    }

    /// All but those for `slow` are done at once.
    async fn work(&self, request: &str) {
        if request.contains(r#""slow""#) {
            self.may_end.notified().await;
            self.ended.notify_one();
        }
    }

    pub(crate) fn last(&self) -> (&'static str, Caller, String) {
        self.calls.lock().expect("calls").last().cloned().expect("a call")
    }
}

pub(crate) fn image_arn(name: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:microvm-image:{name}")
}

fn summary(name: &str) -> MicrovmImageSummary {
    MicrovmImageSummary {
        image_arn: image_arn(name),
        name: name.to_owned(),
        state: MicrovmImageState::Creating,
        latest_active_image_version: None,
        latest_failed_image_version: None,
        created_at: Timestamp::from_millis(1_785_000_000_123),
        id: None,
    }
}

fn microvm(request: &RunMicrovmRequest) -> Microvm {
    Microvm {
        microvm_id: "microvm-1".into(),
        state: MicrovmState::Pending,
        endpoint: "e.lambda-microvm.eu-west-1.on.aws".into(),
        image_arn: request.image_identifier.clone(),
        image_version: "1.0".into(),
        execution_role_arn: None,
        idle_policy: request.idle_policy,
        maximum_duration_in_seconds: 28800,
        started_at: Timestamp::from_millis(1_785_000_000_000),
        terminated_at: None,
        state_reason: None,
        termination_reason_code: None,
        kms_key_identifier: None,
        ingress_network_connectors: vec![],
        egress_network_connectors: vec![],
    }
}

fn build() -> MicrovmImageBuildSummary {
    MicrovmImageBuildSummary {
        image_arn: image_arn("demo"),
        image_version: "1.0".into(),
        build_id: "b".into(),
        build_state: BuildState::Successful,
        architecture: Architecture::X8664,
        chipset: Chipset::Intel,
        chipset_generation: "4".into(),
        state_reason: None,
        created_at: Timestamp::from_millis(0),
        termination_reason_code: None,
    }
}

fn version(image_version: &str) -> MicrovmImageVersion {
    MicrovmImageVersion {
        specification: ImageSpecification::default(),
        image_arn: image_arn("demo"),
        image_version: image_version.into(),
        state: MicrovmImageVersionState::Successful,
        status: MicrovmImageVersionStatus::Active,
        created_at: Timestamp::from_millis(0),
        updated_at: None,
        state_reason: None,
        tags: None,
        version_state_time_bucket: None,
    }
}

macro_rules! fake {
    ($($call:ident($request:ident: $input:ty) -> $output:ty $answer:block)+) => {
        #[async_trait]
        impl ControlPlane for Fake {
            $(async fn $call(&self, caller: &Caller, $request: $input) -> Result<$output, ApiError> {
                let request = format!("{:?}", $request);
                let call = (stringify!($call), caller.clone(), request.clone());
                self.calls.lock().expect("calls").push(call);
                self.work(&request).await;
                $answer
            })+
        }
    };
}

fake! {
    create_microvm_image(request: CreateMicrovmImageRequest) -> CreateMicrovmImageResponse {
        Ok(CreateMicrovmImageResponse {
            image: summary(&request.name),
            updated_at: None,
            tags: request.tags,
            image_version: "1.0".into(),
            specification: request.specification,
            build_phase_overrides: None,
            role_configuration: None,
        })
    }
    update_microvm_image(request: UpdateMicrovmImageRequest) -> UpdateMicrovmImageResponse {
        Ok(UpdateMicrovmImageResponse {
            image: summary("demo"),
            updated_at: Timestamp::from_millis(0),
            image_version: "2.0".into(),
            specification: request.specification,
            build_phase_overrides: None,
            role_configuration: None,
        })
    }
    get_microvm_image(request: GetMicrovmImageRequest) -> GetMicrovmImageResponse {
        if request.image_identifier != image_arn("demo") {
            return Err(texts::image_not_found(request.image_identifier));
        }
        Ok(GetMicrovmImageResponse { image: summary("demo"), updated_at: None, tags: Default::default() })
    }
    list_microvm_images(_request: ListMicrovmImagesRequest) -> ListMicrovmImagesResponse {
        Ok(ListMicrovmImagesResponse { items: vec![summary("demo")], next_token: None })
    }
    delete_microvm_image(_request: DeleteMicrovmImageRequest) -> DeleteMicrovmImageResponse {
        Err(ApiError::throttled(7))
    }
    get_microvm_image_version(request: GetMicrovmImageVersionRequest) -> GetMicrovmImageVersionResponse {
        Ok(version(&request.image_version))
    }
    list_microvm_image_versions(_request: ListMicrovmImageVersionsRequest) -> ListMicrovmImageVersionsResponse {
        Ok(ListMicrovmImageVersionsResponse { items: vec![version("1.0")], next_token: None })
    }
    update_microvm_image_version(_request: UpdateMicrovmImageVersionRequest) -> UpdateMicrovmImageVersionResponse {
        Err(texts::image_busy(MicrovmImageState::Updating))
    }
    delete_microvm_image_version(_request: DeleteMicrovmImageVersionRequest) -> DeleteMicrovmImageVersionResponse {
        Err(texts::last_version())
    }
    list_microvm_image_builds(_request: ListMicrovmImageBuildsRequest) -> ListMicrovmImageBuildsResponse {
        Ok(ListMicrovmImageBuildsResponse { items: vec![build()], next_token: None })
    }
    get_microvm_image_build(_request: GetMicrovmImageBuildRequest) -> GetMicrovmImageBuildResponse {
        Ok(GetMicrovmImageBuildResponse { build: build(), snapshot_build: None })
    }
    list_managed_microvm_images(_request: ListManagedMicrovmImagesRequest) -> ListManagedMicrovmImagesResponse {
        Ok(ListManagedMicrovmImagesResponse::default())
    }
    list_managed_microvm_image_versions(_request: ListManagedMicrovmImageVersionsRequest)
        -> ListManagedMicrovmImageVersionsResponse {
        panic!("a fault of the service with secret details")
    }
    run_microvm(request: RunMicrovmRequest) -> RunMicrovmResponse {
        Ok(microvm(&request))
    }
    get_microvm(request: GetMicrovmRequest) -> GetMicrovmResponse {
        Err(texts::microvm_not_found(&request.microvm_identifier))
    }
    list_microvms(request: ListMicrovmsRequest) -> ListMicrovmsResponse {
        Ok(ListMicrovmsResponse { items: vec![], next_token: request.next_token })
    }
    suspend_microvm(_request: SuspendMicrovmRequest) -> SuspendMicrovmResponse {
        Ok(SuspendMicrovmResponse {})
    }
    resume_microvm(_request: ResumeMicrovmRequest) -> ResumeMicrovmResponse {
        Ok(ResumeMicrovmResponse {})
    }
    terminate_microvm(_request: TerminateMicrovmRequest) -> TerminateMicrovmResponse {
        Ok(TerminateMicrovmResponse {})
    }
    create_microvm_auth_token(_request: CreateMicrovmAuthTokenRequest) -> CreateMicrovmAuthTokenResponse {
        Ok(CreateMicrovmAuthTokenResponse::of("a..b.c.d".into()))
    }
    create_microvm_shell_auth_token(_request: CreateMicrovmShellAuthTokenRequest)
        -> CreateMicrovmShellAuthTokenResponse {
        Err(texts::shell_ingress_required())
    }
    tag_resource(_request: TagResourceRequest) -> TagResourceResponse {
        Ok(TagResourceResponse {})
    }
    untag_resource(_request: UntagResourceRequest) -> UntagResourceResponse {
        Ok(UntagResourceResponse {})
    }
    list_tags(_request: ListTagsRequest) -> ListTagsResponse {
        Ok(ListTagsResponse::default())
    }
    create_network_connector(request: CreateNetworkConnectorRequest) -> CreateNetworkConnectorResponse {
        Ok(NetworkConnector {
            name: request.name,
            last_modified: Some(Timestamp::from_millis(1_785_000_000_123)),
            ..NetworkConnector::default()
        })
    }
    get_network_connector(request: GetNetworkConnectorRequest) -> GetNetworkConnectorResponse {
        Err(texts::connector_not_found(&request.identifier))
    }
    list_network_connectors(_request: ListNetworkConnectorsRequest) -> ListNetworkConnectorsResponse {
        Ok(ListNetworkConnectorsResponse::default())
    }
    update_network_connector(request: UpdateNetworkConnectorRequest) -> UpdateNetworkConnectorResponse {
        Ok(NetworkConnector { id: request.identifier, ..NetworkConnector::default() })
    }
    delete_network_connector(request: DeleteNetworkConnectorRequest) -> DeleteNetworkConnectorResponse {
        Ok(NetworkConnector { id: request.identifier, ..NetworkConnector::default() })
    }
    list_network_connector_versions(_request: ListNetworkConnectorVersionsRequest)
        -> ListNetworkConnectorVersionsResponse {
        Ok(ListNetworkConnectorVersionsResponse::default())
    }
    import_base(request: ImportBaseRequest) -> ImportBaseResponse {
        Ok(ImportBaseResponse { name: request.name, digest: None })
    }
    list_bases(_request: ListBasesRequest) -> ListBasesResponse {
        Err(texts::memory_exhausted())
    }
    create_key(request: CreateKeyRequest) -> CreateKeyResponse {
        let key = KeyItem { account: request.account.unwrap_or_default(), ..Default::default() };
        Ok(CreateKeyResponse { key, secret_access_key: "secret".into() })
    }
    list_keys(_request: ListKeysRequest) -> ListKeysResponse {
        Ok(ListKeysResponse::default())
    }
    revoke_key(_request: RevokeKeyRequest) -> RevokeKeyResponse {
        Ok(RevokeKeyResponse {})
    }
    create_role(request: CreateRoleRequest) -> CreateRoleResponse {
        Ok(RoleItem { name: request.name, ..Default::default() })
    }
    list_roles(_request: ListRolesRequest) -> ListRolesResponse {
        Ok(ListRolesResponse::default())
    }
    delete_role(_request: DeleteRoleRequest) -> DeleteRoleResponse {
        Ok(DeleteRoleResponse {})
    }
    get_usage(_request: GetUsageRequest) -> GetUsageResponse {
        Ok(GetUsageResponse::default())
    }
    list_audit(_request: ListAuditRequest) -> ListAuditResponse {
        Ok(ListAuditResponse::default())
    }
}
