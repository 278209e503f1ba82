//! One build: artifact → root disk → snapshot → validated. It ends in a version that is SUCCESSFUL or FAILED.

use std::path::{Path, PathBuf};

use hearth_builder::{Build, BuildError, ContainerConfig};
use hearth_guest::snapshot::root_path;
use hearth_logs::LogWriter;
use hearth_metadata::Subject;
use hearth_storage::{disk, durable};
use hearth_wire::{
    Timestamp,
    arn::ImageArn,
    types::{ImageSpecification, Logging, SnapshotBuild},
};

use super::{policy, record::VersionRecord, snapshot};
use crate::{
    application,
    artifact::{Artifact, NoArtifact},
    microvm::{default_group, default_stream},
    node::Node,
    permissions::Actor,
    tiers::{self, Tier},
};

/// What a build that ended well has made.
pub(crate) struct Made {
    pub container: ContainerConfig,
    pub sizes: SnapshotBuild,
}

impl Made {
    /// Of memory, disk and code.
    pub(crate) fn bytes(&self) -> u64 {
        snapshot_bytes(&self.sizes)
    }
}

/// Of memory, disk and code.
pub(crate) fn snapshot_bytes(sizes: &SnapshotBuild) -> u64 {
    let sizes = [
        sizes.memory_snapshot_size_in_bytes,
        sizes.disk_snapshot_size_in_bytes,
        sizes.code_install_size_in_bytes,
    ];
    sizes
        .into_iter()
        .flatten()
        .filter_map(|bytes| u64::try_from(bytes).ok())
        .sum()
}

/// What is told of a build that failed.
pub(crate) struct Failed {
    pub reason: String,
    /// Sizes known so far (spec section 7.1).
    pub sizes: Option<SnapshotBuild>,
}

impl Failed {
    fn early(reason: impl ToString) -> Failed {
        Failed {
            reason: reason.to_string(),
            sizes: None,
        }
    }

    fn node(error: impl std::fmt::Display) -> Failed {
        Failed::early(format!("INTERNAL_PLATFORM_ERROR: {error}"))
    }
}

/// Carries out the build of a version. The snapshot is in the version's directory when this ends well, and nothing is
/// there when it does not.
pub(crate) async fn build(node: &Node, image: &ImageArn, version: &VersionRecord) -> Result<Made, Failed> {
    let directory = node.snapshot_directory(&version.image_id, version.snapshot());
    let making = making(&directory);
    let mut log = open_log(node, image, version, "0.0").await;
    let clean = || -> std::io::Result<()> {
        durable::remove_directory(&making)?;
        durable::remove_directory(&directory)
    };
    clean().map_err(Failed::node)?;
    let built = build_in(node, image, version, &making, &mut log).await;
    let published = publish(built, &making, &directory);
    if let (Err(failed), Some(log)) = (&published, &mut log) {
        log.line(&format!(
            "Build of version {} failed: {}",
            version.version, failed.reason
        ));
    }
    if let Some(log) = &mut log {
        let _the_log_reports_it = log.flush().await;
    }
    published
}

/// Where a snapshot is made before it is complete.
pub(crate) fn making(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".making");
    name.into()
}

fn publish<T>(made: Result<T, Failed>, making: &Path, directory: &Path) -> Result<T, Failed> {
    let published = made.and_then(|made| {
        durable::publish_directory(making, directory).map_err(Failed::node)?;
        Ok(made)
    });
    if published.is_err()
        && let Err(error) = durable::remove_directory(making)
    {
        tracing::warn!(%error, "files of a failed build stay behind");
    }
    published
}

/// Makes a snapshot named `name` from the root disk of a version that was built before. The old snapshot stays.
pub(crate) async fn rebuild(
    node: &Node,
    image: &ImageArn,
    version: &VersionRecord,
    name: &str,
    cause: &str,
) -> Result<SnapshotBuild, Failed> {
    let former = node.snapshot_directory(&version.image_id, version.snapshot());
    let directory = node.snapshot_directory(&version.image_id, name);
    let making = making(&directory);
    let mut log = open_log(node, image, version, "0.0").await;
    if let Some(log) = &mut log {
        log.line(&format!(
            "The snapshot of version {} is made again: {cause}",
            version.version
        ));
    }
    let made = async {
        let container = version.container.as_ref();
        let container = container.ok_or_else(|| Failed::node("nothing is known of its container"))?;
        std::fs::create_dir_all(&making)
            .and_then(|()| disk::give(&making, None, None, 0o711))
            .and_then(|()| std::fs::hard_link(root_path(&former), root_path(&making)))
            .map_err(Failed::node)?;
        let mut sizes = SnapshotBuild {
            code_install_size_in_bytes: version.sizes().and_then(|sizes| sizes.code_install_size_in_bytes),
            ..Default::default()
        };
        snapshot_in(node, image, version, &making, container, &mut sizes).await?;
        Ok(sizes)
    };
    let published = publish(made.await, &making, &directory);
    if let Some(log) = &mut log {
        match &published {
            Ok(_) => log.line("The snapshot was made again."),
            Err(failed) => log.line(&format!(
                "The snapshot could not be made again: {}",
                failed.reason
            )),
        }
        let _the_log_reports_it = log.flush().await;
    }
    published
}

async fn build_in(
    node: &Node,
    image: &ImageArn,
    version: &VersionRecord,
    directory: &Path,
    log: &mut Option<LogWriter>,
) -> Result<Made, Failed> {
    let specification = &version.specification;
    let tier = tier_of(specification);
    std::fs::create_dir_all(directory)
        .and_then(|()| disk::give(directory, None, None, 0o711))
        .and_then(|()| disk::give(&node.image_directory(&version.image_id), None, None, 0o711))
        .map_err(Failed::node)?;
    let context = directory.join("context.zip");
    fetch(node, image, specification, &context).await?;
    let cache_key = version.image_id.as_str();
    let root_disk = root_path(directory);
    let egress = node.config.network.egress(&version.ways);
    let request = Build {
        egress: &egress,
        cache_key,
        context: &context,
        limit_bytes: tier.disk_bytes,
        root_disk: &root_disk,
    };
    let container = node
        .builder
        .build(&request, log.as_mut())
        .await
        .map_err(container_failure)?;
    durable::remove_file(&context).map_err(Failed::node)?;
    let code = disk::allocated_bytes(&root_disk).map_err(Failed::node)? as i64;
    let mut sizes = SnapshotBuild {
        code_install_size_in_bytes: Some(code),
        ..Default::default()
    };
    if container.argv().is_empty() {
        return Err(Failed::early(
            "CONTAINER_BUILD_FAILED: the image has neither ENTRYPOINT nor CMD",
        ));
    }
    snapshot_in(node, image, version, directory, &container, &mut sizes).await?;
    Ok(Made { container, sizes })
}

/// Makes the root disk in `directory` a snapshot, and validates it.
async fn snapshot_in(
    node: &Node,
    image: &ImageArn,
    version: &VersionRecord,
    directory: &Path,
    container: &ContainerConfig,
    sizes: &mut SnapshotBuild,
) -> Result<(), Failed> {
    let specification = &version.specification;
    let surroundings = snapshot::Surroundings {
        egress: node.config.network.egress(&version.ways),
        subject: Subject {
            id: format!("build-{}", version.build_id()),
            region: image.region.clone(),
            role_arn: Some(specification.build_role_arn.clone()),
        },
    };
    let with_sizes = |reason: snapshot::SnapshotError, sizes: &SnapshotBuild| Failed {
        reason: reason.to_string(),
        sizes: Some(sizes.clone()),
    };
    let application = application::of(container, specification, image, &version.version);
    let hooks = specification.hooks.as_ref();
    let application_log = open_log(node, image, version, &version.version).await;
    let made = snapshot::take(
        node,
        directory,
        tier_of(specification),
        &surroundings,
        application,
        hooks,
        application_log,
    )
    .await
    .map_err(|error| with_sizes(error, sizes))?;
    sizes.memory_snapshot_size_in_bytes =
        Some(disk::allocated_bytes(&made.memory()).map_err(Failed::node)? as i64);
    sizes.disk_snapshot_size_in_bytes =
        Some(disk::allocated_bytes(&made.scratch()).map_err(Failed::node)? as i64);
    sizes.vmm = Some(made.platform().to_string());
    let validate_log = open_log(node, image, version, &version.version).await;
    snapshot::validate(node, &made, &surroundings, hooks, validate_log)
        .await
        .map_err(|error| with_sizes(error, sizes))?;
    Ok(())
}

/// The tier a specification asks for; the rules have been checked when it was accepted.
pub(crate) fn tier_of(specification: &ImageSpecification) -> Tier {
    let asked = specification
        .resources
        .iter()
        .flatten()
        .next()
        .map(|resources| resources.minimum_memory_in_mib);
    asked.and_then(tiers::find).unwrap_or(tiers::TIERS[2])
}

/// A build acts as its role.
fn actor<'a>(image: &'a ImageArn, specification: &'a ImageSpecification) -> Actor<'a> {
    Actor {
        account: &image.account,
        region: &image.region,
        role_arn: &specification.build_role_arn,
    }
}

/// Copies the artifact next to the build.
async fn fetch(
    node: &Node,
    image: &ImageArn,
    specification: &ImageSpecification,
    to: &Path,
) -> Result<(), Failed> {
    let uri = &specification.code_artifact.uri;
    let (bucket, key) =
        policy::artifact(uri).map_err(|error| Failed::early(error.message.unwrap_or_default()))?;
    let artifact = Artifact {
        account: &image.account,
        bucket,
        key,
        role: Some(actor(image, specification)),
    };
    match node.copy_artifact(&artifact, to).await {
        Ok(_length) => Ok(()),
        Err(NoArtifact::Refused(code, cause)) => Err(Failed::early(format!("{code}: {uri}: {cause}"))),
        Err(NoArtifact::Io(error)) => Err(Failed::node(error)),
    }
}

fn container_failure(error: BuildError) -> Failed {
    match error {
        BuildError::Failed(cause) => Failed::early(format!(
            "CONTAINER_BUILD_FAILED: The container image build failed. {cause}"
        )),
        other => Failed::early(other),
    }
}

/// The log stream of a build, unless the image turned logging off or the build role may not write it.
async fn open_log(
    node: &Node,
    image: &ImageArn,
    version: &VersionRecord,
    shown_version: &str,
) -> Option<LogWriter> {
    let names = match &version.specification.logging {
        Some(Logging::Disabled(_)) => return None,
        Some(Logging::CloudWatch(names)) => names.clone(),
        None => Default::default(),
    };
    let group = names.log_group.unwrap_or_else(|| default_group(&image.name));
    let stream = names.log_stream.unwrap_or_else(|| {
        default_stream(
            Timestamp::now(),
            shown_version,
            &format!("microvm-{}", version.build_id()),
        )
    });
    if !node.may_log(actor(image, &version.specification), &group, &stream) {
        return None;
    }
    let opened = node.logs.writer(&image.account, &group, &stream).await;
    opened
        .inspect_err(|error| tracing::warn!(%error, "a build's log could not be opened"))
        .ok()
}
