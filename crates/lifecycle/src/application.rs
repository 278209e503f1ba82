//! What the agent is told to start: the container's configuration plus the service's environment (spec sections 6, 11).

use hearth_agent_protocol::Application;
use hearth_builder::ContainerConfig;
use hearth_wire::{arn::ImageArn, enums::Capability, types::ImageSpecification};

/// The application of an image version.
pub(crate) fn of(
    container: &ContainerConfig,
    specification: &ImageSpecification,
    arn: &ImageArn,
    version: &str,
) -> Application {
    let mut env = container.env.clone();
    let own = specification.environment_variables.iter().flatten();
    env.extend(own.map(|(key, value)| format!("{key}={}", value.0)));
    env.push(format!("AWS_LAMBDA_MICROVM_IMAGE_NAME={}", arn.name));
    env.push(format!("AWS_LAMBDA_MICROVM_IMAGE_ARN={arn}"));
    env.push(format!("AWS_LAMBDA_MICROVM_IMAGE_VERSION={version}"));
    env.push(format!("AWS_REGION={}", arn.region));
    let capabilities = specification
        .additional_os_capabilities
        .as_deref()
        .unwrap_or_default();
    Application {
        argv: container.argv(),
        env,
        working_directory: container.working_dir.clone(),
        user: container.user.clone(),
        all_capabilities: capabilities.contains(&Capability::All),
        extra_certificates: String::new(),
        wall_clock_ns: hearth_guest::agent::wall_clock_ns(),
    }
}
