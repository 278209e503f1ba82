//! Commands about images.

mod archive;
mod build;
mod describe;
mod dockerignore;
mod follow;
mod project;
mod remove;

use clap::Subcommand;

use crate::error::Result;
use crate::output::Out;
use crate::service::Service;

/// What can be done with images.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build an image, or its next version, from a directory with a Dockerfile
    Build(build::Build),
    /// List images
    Ls,
    /// Show an image, its versions and what became of their builds
    Show {
        /// Name or ARN
        name: String,
    },
    /// Remove an image and all its versions
    Rm {
        /// Name or ARN
        name: String,
    },
}

impl Command {
    /// Runs the command.
    pub(crate) async fn run(self, service: &Service, out: Out) -> Result<()> {
        match self {
            Self::Build(build) => build.run(service, out).await,
            Self::Ls => describe::list(service, out).await,
            Self::Show { name } => describe::show(service, &name, out).await,
            Self::Rm { name } => remove::remove(service, &name, out).await,
        }
    }
}
