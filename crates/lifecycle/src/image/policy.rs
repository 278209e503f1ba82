//! Which request on an image is legal in which state, and what a specification must satisfy. Pure.

use hearth_wire::{
    ApiError, Caller,
    arn::{ConnectorArn, ImageArn, ManagedConnector},
    enums::{Architecture, MicrovmImageState},
    texts,
    types::{ImageSpecification, Resources},
};

use super::base::{self, BaseVersion};
use crate::{hooks, tiers};

/// Whether an image in this state may be updated, or one of its versions changed.
pub(crate) fn may_change(state: MicrovmImageState) -> Result<(), ApiError> {
    match state {
        MicrovmImageState::Creating
        | MicrovmImageState::Updating
        | MicrovmImageState::Deleting
        | MicrovmImageState::DeleteFailed => Err(texts::image_busy(state)),
        _ => Ok(()),
    }
}

/// Whether an image in this state may be deleted.
pub(crate) fn may_delete(state: MicrovmImageState, live_microvms: usize) -> Result<(), ApiError> {
    match state {
        MicrovmImageState::Creating | MicrovmImageState::Updating | MicrovmImageState::Deleting => {
            Err(texts::image_not_deletable(state))
        }
        _ if live_microvms > 0 => Err(texts::image_in_use()),
        _ => Ok(()),
    }
}

/// Checks the business rules of a specification and fills in what is echoed (spec sections 4.4, 7 step 1).
pub(crate) fn complete(
    mut specification: ImageSpecification,
    caller: &Caller,
    base_versions: &[BaseVersion],
) -> Result<ImageSpecification, ApiError> {
    let base = ImageArn::for_managed(&specification.base_image_arn, caller)?;
    let version = base::for_build(base_versions, &base, specification.base_image_version.as_deref())?;
    specification.base_image_version = Some(version);

    let default = || {
        vec![Resources {
            minimum_memory_in_mib: tiers::DEFAULT_MEMORY_MIB,
        }]
    };
    let resources = specification
        .resources
        .take()
        .filter(|list| !list.is_empty())
        .unwrap_or_else(default);
    for resource in &resources {
        if tiers::find(resource.minimum_memory_in_mib).is_none() {
            return Err(texts::unsupported_memory(resource.minimum_memory_in_mib, &base));
        }
    }
    specification.resources = Some(resources);

    artifact(&specification.code_artifact.uri)?;
    for configuration in specification.cpu_configurations.iter().flatten() {
        if configuration.architecture != Architecture::X8664 {
            return Err(ApiError::validation(format!(
                "The requested CPU architecture {} is not supported by base MicroVM image {base}. \
                 Supported CPU architectures are: [X86_64].",
                configuration.architecture
            )));
        }
    }
    if let Some(given) = &specification.hooks {
        if hooks::any_runtime(given) && hooks::enabled(Some(given), hooks::HookName::Ready).is_none() {
            return Err(texts::ready_hook_required());
        }
        specification.hooks = Some(hooks::effective(given));
    }
    for key in specification
        .environment_variables
        .iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if key == "AWS_REGION" {
            return Err(texts::reserved_environment_variable(key));
        }
    }
    no_customer_key(specification.kms_key_identifier.as_deref())?;
    specification.egress_network_connectors = Some(connectors(
        specification.egress_network_connectors.take(),
        ManagedConnector::InternetEgress,
        caller,
    )?);
    Ok(specification)
}

/// A key that the caller manages would promise an encryption that this service does not do.
pub(crate) fn no_customer_key(key: Option<&str>) -> Result<(), ApiError> {
    key.map_or(Ok(()), |key| Err(texts::no_customer_key(key)))
}

/// Bucket and key of an artifact.
pub(crate) fn artifact(uri: &str) -> Result<(&str, &str), ApiError> {
    uri.strip_prefix("s3://")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(texts::not_an_s3_uri)
}

/// Checks connectors of one direction; none (or an empty list) gives the default (spec sections 14, 22.2).
pub(crate) fn connectors(
    given: Option<Vec<String>>,
    default: ManagedConnector,
    caller: &Caller,
) -> Result<Vec<String>, ApiError> {
    let given = given.unwrap_or_default();
    for arn in &given {
        match ConnectorArn::parse(arn, caller)? {
            ConnectorArn::Managed(connector) if connector.is_ingress() == default.is_ingress() => {}
            ConnectorArn::Public(_) if default.is_ingress() => {}
            ConnectorArn::Managed(_) | ConnectorArn::Public(_) => {
                return Err(texts::unrecognized_connector(arn));
            }
            // Whether it is there, the catalog tells.
            ConnectorArn::Customer { .. } if !default.is_ingress() => {}
            ConnectorArn::Customer { .. } => {
                return Err(ApiError::not_found(format!(
                    "Network connector not found for: {arn}"
                )));
            }
        }
    }
    Ok(if given.is_empty() {
        vec![default.arn(caller)]
    } else {
        given
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::{enums::ManagedMicrovmImageVersionStatus, types::CodeArtifact};

    fn caller() -> Caller {
        Caller {
            account_id: "111122223333".into(),
            region: "eu-west-1".into(),
            partition: "aws".into(),
            access_key_id: "AKIA".into(),
            request_id: "r".into(),
        }
    }

    fn specification() -> ImageSpecification {
        ImageSpecification {
            base_image_arn: ImageArn::managed(&caller(), base::BASE_NAME).to_string(),
            code_artifact: CodeArtifact {
                uri: "s3://bucket/app.zip".into(),
            },
            ..ImageSpecification::default()
        }
    }

    fn bases() -> Vec<BaseVersion> {
        vec![BaseVersion {
            version: "1".into(),
            status: ManagedMicrovmImageVersionStatus::Available,
        }]
    }

    #[test]
    fn defaults_are_echoed_as_recorded() {
        let done = complete(specification(), &caller(), &bases()).expect("valid");
        assert_eq!(done.base_image_version.as_deref(), Some("1.0"));
        assert_eq!(done.resources.expect("filled")[0].minimum_memory_in_mib, 2048);
        assert!(done.egress_network_connectors.expect("filled")[0].ends_with(":INTERNET_EGRESS"));
    }

    #[test]
    fn artifacts_are_s3_uris_with_bucket_and_key() {
        assert_eq!(artifact("s3://b/a/b.zip"), Ok(("b", "a/b.zip")));
        for wrong in ["https://b/k", "s3://b", "s3://b/", "s3:///k", "b/k"] {
            assert!(artifact(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_that_is_being_changed_can_neither_change_nor_go() {
        for state in [
            MicrovmImageState::Creating,
            MicrovmImageState::Updating,
            MicrovmImageState::Deleting,
        ] {
            assert_eq!(may_change(state).expect_err("busy").status(), 409);
            assert_eq!(may_delete(state, 0).expect_err("busy").status(), 400);
        }
        assert_eq!(
            may_delete(MicrovmImageState::Created, 1),
            Err(texts::image_in_use())
        );
        assert_eq!(may_delete(MicrovmImageState::CreateFailed, 0), Ok(()));
        assert_eq!(
            may_change(MicrovmImageState::DeleteFailed)
                .expect_err("half gone")
                .status(),
            409
        );
        assert_eq!(may_delete(MicrovmImageState::DeleteFailed, 0), Ok(()));
    }
}
