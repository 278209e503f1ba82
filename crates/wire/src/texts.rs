//! The recorded error texts of spec 4.5, each once; clients match on them.

use std::fmt::Display;

use crate::{ApiError, ErrorKind, enums::MicrovmImageState};

/// The memory tiers of spec 10, in MiB.
pub const MEMORY_TIERS_MIB: [i32; 5] = [512, 1024, 2048, 4096, 8192];

/// The name is taken, also while its image is being deleted.
pub fn image_exists(name: &str) -> ApiError {
    ApiError::validation(format!(
        "A MicroVM image with the name '{name}' already exists in this account"
    ))
}

/// No such version of the managed base image.
pub fn unknown_base_version(base_arn: impl Display, version: &str) -> ApiError {
    ApiError::validation(format!(
        "No managed MicroVM Image with arn {base_arn} and version {version} is available"
    ))
}

/// The memory size is none of [`MEMORY_TIERS_MIB`].
pub fn unsupported_memory(mib: i32, base_arn: impl Display) -> ApiError {
    ApiError::validation(format!(
        "The requested memory size of {mib} MiB is not supported by base MicroVM image {base_arn}. Supported memory \
         sizes in MiB are: {MEMORY_TIERS_MIB:?}."
    ))
}

/// The code artifact is not in S3.
pub fn not_an_s3_uri() -> ApiError {
    ApiError::validation("CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>")
}

/// A runtime hook is enabled but `ready` is not.
pub fn ready_hook_required() -> ApiError {
    ApiError::validation(
        "The ready (/ready) MicroVM image hook must be enabled when any MicroVM lifecycle hook (run, resume, suspend, \
         or terminate) is enabled. It tells the service when the application is able to answer hooks.",
    )
}

/// The account has as many images in the region as it may.
pub fn too_many_images(most: usize) -> ApiError {
    ApiError::quota(format!(
        "The maximum number of MicroVM images ({most}) has been reached for this account."
    ))
}

/// The image has as many versions as it may.
pub fn too_many_versions(most: usize) -> ApiError {
    ApiError::quota(format!(
        "The maximum number of versions ({most}) has been reached for this MicroVM image."
    ))
}

/// The account builds as much at a time as it may.
pub fn too_many_builds(most: usize) -> ApiError {
    ApiError::quota(format!(
        "The maximum number of concurrent builds ({most}) has been reached for this account."
    ))
}

/// More environment variables than the account may set.
pub fn too_many_environment_variables(most: usize) -> ApiError {
    ApiError::quota(format!(
        "The maximum number of environment variables ({most}) has been exceeded for this MicroVM image."
    ))
}

/// A payload for an image whose run hook is off.
pub fn run_hook_required() -> ApiError {
    ApiError::validation("The run hook must be enabled in the MicroVM image to pass the run hook payload.")
}

/// An environment variable the service sets itself (spec 6).
pub fn reserved_environment_variable(key: &str) -> ApiError {
    ApiError::validation(format!(
        "The environment variable key {key} is reserved and cannot be set on a MicroVM image."
    ))
}

/// A key of the caller's own, which this service cannot use.
pub fn no_customer_key(key: &str) -> ApiError {
    ApiError::validation(format!(
        "The KMS key {key} cannot be used: this service does not encrypt with keys that customers manage."
    ))
}

/// No such image.
pub fn image_not_found(arn: impl Display) -> ApiError {
    ApiError::not_found(format!("MicroVMImage not found for MicroVMImageID: {arn}"))
}

/// No such version, or no such image on a version's route.
pub fn version_not_found(arn: impl Display, version: &str) -> ApiError {
    ApiError::not_found(format!(
        "MicroVMImage not found for MicroVMImage: {arn}, Version: {version}"
    ))
}

/// No such build of a version.
pub fn build_not_found(arn: impl Display, version: &str, build_id: &str) -> ApiError {
    ApiError::not_found(format!(
        "MicroVMImage build not found for MicroVMImage: {arn}, Version: {version}, BuildId: {build_id}"
    ))
}

/// RunMicrovm without a version: the image is missing or has no usable version.
pub fn no_active_version(arn: impl Display) -> ApiError {
    ApiError::not_found(format!("No active version found for MicroVM image {arn}"))
}

/// RunMicrovm with a version that is missing or not usable.
pub fn version_not_active(arn: impl Display, version: &str) -> ApiError {
    ApiError::not_found(format!(
        "No active version found for MicroVM image {arn} and version {version}"
    ))
}

/// RunMicrovm while a version's snapshot, which belongs to another platform, is made again.
pub fn snapshot_being_rebuilt(arn: impl Display, version: &str, cause: impl Display) -> ApiError {
    ApiError::conflict(format!(
        "The snapshot of MicroVM image {arn} and version {version} is being made again for this node: {cause}. \
         Try again when its build is SUCCESSFUL."
    ))
}

/// RunMicrovm after that came to nothing.
pub fn snapshot_not_rebuilt(arn: impl Display, version: &str, reason: &str) -> ApiError {
    ApiError::conflict(format!(
        "The snapshot of MicroVM image {arn} and version {version} could not be made again for this node: {reason}. \
         Update the image."
    ))
}

/// Suspend or resume of a MicroVM whose snapshot this node cannot load.
pub fn microvm_of_another_node(id: &str, cause: impl Display) -> ApiError {
    ApiError::conflict(format!(
        "The MicroVM {id} cannot be suspended or resumed on this node as it is now: {cause}"
    ))
}

/// No such MicroVM.
pub fn microvm_not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("MicroVM not found: {id}"))
}

/// A change asked of a terminated MicroVM.
pub fn microvm_terminated(id: &str) -> ApiError {
    ApiError::validation(format!(
        "The MicroVM {id} has been terminated and its state cannot be changed."
    ))
}

/// A change of an image that is being changed.
pub fn image_busy(state: MicrovmImageState) -> ApiError {
    ApiError::conflict(format!("MicroVM Image is already in state: {state}"))
}

/// Deletion of an image that MicroVMs still use.
pub fn image_in_use() -> ApiError {
    ApiError::validation("Cannot delete microvm image with running microvms.")
}

/// Deletion of an image that is being built or changed.
pub fn image_not_deletable(state: MicrovmImageState) -> ApiError {
    ApiError::validation(format!(
        "Cannot delete MicroVM image in its current state: {state}"
    ))
}

/// Deletion of an image's only version.
pub fn last_version() -> ApiError {
    ApiError::validation("This is the last version. Please delete the entire image")
}

/// A managed connector that does not exist.
pub fn unrecognized_connector(arn: impl Display) -> ApiError {
    ApiError::validation(format!("Unrecognized managed network connector ARN: {arn}"))
}

/// A connector that is not named by an ARN.
pub fn malformed_connector() -> ApiError {
    ApiError::validation("Malformed network connector ARN")
}

/// A shell token for a MicroVM without shell ingress.
pub fn shell_ingress_required() -> ApiError {
    ApiError::validation(
        "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.",
    )
}

/// A shell token for a MicroVM with a forbidden combination of ingress connectors.
pub fn all_ingress_combined() -> ApiError {
    ApiError::validation(
        "ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or SHELL_INGRESS \
         instead",
    )
}

/// A token that would live longer than `maximum` minutes.
pub fn token_expiry_too_long(minutes: u32, maximum: u32) -> ApiError {
    ApiError::validation(format!(
        "ExpirationMinutes {minutes} exceeded max allowed of {maximum}."
    ))
}

/// A port range whose end is before its start (spec 19).
pub fn reversed_port_range(start: u16, end: u16) -> ApiError {
    ApiError::validation(format!(
        "The start port {start} of a port range must not exceed its end port {end}."
    ))
}

/// The account's memory quota is used up.
pub fn memory_exhausted() -> ApiError {
    ApiError::quota("The base maximum allocated memory limit has been reached for this account.")
}

/// The same client token came with another request before.
pub fn client_token_reused() -> ApiError {
    ApiError::conflict("The client token was already used with different request parameters.")
}

/// A page token that this service did not make, or made for another request.
pub fn invalid_next_token() -> ApiError {
    ApiError::silent(ErrorKind::Validation)
}

/// An image identifier that is no ARN, on image operations.
pub fn invalid_arn(value: &str) -> ApiError {
    ApiError::validation(format!("Invalid ARN format: {value}"))
}

/// A connector that does not exist, where lambda-core is asked (spec 4.7).
pub fn connector_not_found(identifier: impl Display) -> ApiError {
    ApiError::new(
        ErrorKind::ConnectorNotFound,
        format!("Network connector not found for: {identifier}"),
    )
}

/// A member that the model calls optional and the service wants (spec 4.7).
pub fn connector_member_required(text: &'static str) -> ApiError {
    ApiError::new(ErrorKind::InvalidParameterValue, text)
}

/// An operator role that may not do what a connector needs, or is none of the caller's (spec 4.7).
pub fn connector_role_unauthorized() -> ApiError {
    connector_member_required(
        "Encountered unauthorized operation while calling EC2 due to invalid ConnectorOperatorRole permissions",
    )
}

/// The name of a connector is taken.
pub fn connector_exists(arn: impl Display) -> ApiError {
    ApiError::new(
        ErrorKind::ResourceConflict,
        format!("Network connector already exists: {arn}"),
    )
}

/// A connector that is being created, changed or deleted.
pub fn connector_busy(arn: impl Display) -> ApiError {
    ApiError::new(
        ErrorKind::ResourceConflict,
        format!(
            "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
        ),
    )
}

/// A connector that MicroVMs and images cannot use now.
pub fn connector_not_usable(arn: impl Display) -> ApiError {
    ApiError::validation(format!(
        "Network connector {arn} cannot be used: it must be in state ACTIVE and associated with MicroVm"
    ))
}
