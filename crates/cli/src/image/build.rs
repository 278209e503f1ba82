//! `hearth image build`: a directory becomes an image.

use std::path::PathBuf;
use std::time::Instant;

use aws_sdk_lambdamicrovms::types::{Capability, CodeArtifact, Resources};
use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::image::follow::{self, Outcome};
use crate::image::{archive, project};
use crate::output::{Out, spinner};
use crate::s3;
use crate::service::Service;

/// Builds an image.
#[derive(Args)]
pub(crate) struct Build {
    /// The directory with the Dockerfile; `hearth.toml` in it may say what the options say
    dir: PathBuf,
    /// The image's name; when it exists already, its next version is built
    #[arg(long)]
    name: String,
    #[command(flatten)]
    options: project::Options,
}

/// The version that a request started to build.
struct Started {
    arn: String,
    version: String,
    at_ms: i64,
}

impl Build {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        let begun = Instant::now();
        let project = project::Project::load(&self.dir, &self.options)?;
        let bar = spinner(format!("packing {}", self.dir.display()));
        let archive = archive::pack(&self.dir)?;
        bar.finish_and_clear();
        let arn = service.image_arn(&self.name).await?;
        let uri = s3::upload(service, archive.path(), &self.name, ".zip").await?;
        let started = self.start(service, &arn, &uri, &project).await?;
        match follow::follow(service, &started.arn, &started.version, started.at_ms, out).await? {
            Outcome::Built => {}
            Outcome::Failed(reason) => {
                let cause = format!("{} {} was not built: {reason}", self.name, started.version);
                return Err(Error::failed(
                    cause,
                    format!("See the log above, or `hearth logs --image {}`", self.name),
                ));
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let value = json!({
            "imageArn": started.arn,
            "name": self.name,
            "imageVersion": started.version,
            "state": "SUCCESSFUL",
            "seconds": seconds,
        });
        out.print(value, || {
            format!(
                "{} {} built in {seconds:.1} s\nnext: hearth run {}",
                self.name, started.version, self.name
            )
        })
    }

    /// Creates the image, or its next version when it exists.
    async fn start(
        &self,
        service: &Service,
        arn: &str,
        uri: &str,
        project: &project::Project,
    ) -> Result<Started> {
        let client = &service.microvms;
        let base = base_image(service).await?;
        let role = match &project.role {
            Some(role) => role.clone(),
            None => format!(
                "arn:aws:iam::{}:role/hearth-build",
                arn.split(':').nth(4).unwrap_or_default()
            ),
        };
        let artifact = CodeArtifact::Uri(uri.to_owned());
        let resources = project
            .memory
            .map(|mib| Resources::builder().minimum_memory_in_mib(mib).build());
        let resources = resources
            .transpose()
            .map_err(|error| Error::failed(error.to_string(), ""))?;
        let resources = resources.map(|resources| vec![resources]);
        let capabilities = project.all_capabilities.then(|| vec![Capability::All]);
        let exists = client
            .get_microvm_image()
            .image_identifier(arn)
            .send()
            .await
            .map_err(|e| service.error(e));
        match exists {
            Ok(_) => {
                let request = client
                    .update_microvm_image()
                    .image_identifier(arn)
                    .base_image_arn(base)
                    .build_role_arn(role)
                    .code_artifact(artifact)
                    .set_resources(resources)
                    .set_additional_os_capabilities(capabilities)
                    .set_hooks(project.hooks())
                    .set_environment_variables(project.environment());
                let image = request.send().await.map_err(|error| service.error(error))?;
                // The time of the service's clock, which the log's events carry, too.
                let at_ms = image.updated_at.to_millis().unwrap_or_default();
                Ok(Started {
                    arn: image.image_arn,
                    version: image.image_version,
                    at_ms,
                })
            }
            Err(error) if error.is_not_found() => {
                let request = client
                    .create_microvm_image()
                    .name(&self.name)
                    .base_image_arn(base)
                    .build_role_arn(role)
                    .code_artifact(artifact)
                    .set_resources(resources)
                    .set_additional_os_capabilities(capabilities)
                    .set_hooks(project.hooks())
                    .set_environment_variables(project.environment());
                let image = request.send().await.map_err(|error| service.error(error))?;
                let at_ms = image.created_at.to_millis().unwrap_or_default();
                Ok(Started {
                    arn: image.image_arn,
                    version: image.image_version,
                    at_ms,
                })
            }
            Err(error) => Err(error),
        }
    }
}

/// The managed image to build upon: the service offers one.
async fn base_image(service: &Service) -> Result<String> {
    let listed = service
        .microvms
        .list_managed_microvm_images()
        .send()
        .await
        .map_err(|error| service.error(error))?;
    let first = listed.items.into_iter().next().map(|item| item.image_arn);
    first.ok_or_else(|| {
        Error::failed(
            "the service offers no managed image to build upon",
            "See `hearth doctor`",
        )
    })
}
