//! Objects that builds and imports are made from: out of the account's own bucket on this node, else out of the external
//! S3 service, where one is configured.

use std::{io, path::Path};

use futures::TryStreamExt;
use hearth_external_s3::FetchError;
use hearth_storage::objects::{Object, ObjectsError};
use tokio::io::AsyncWriteExt;

use crate::{node::Node, permissions::Actor};

/// What is to be copied.
pub(crate) struct Artifact<'a> {
    pub account: &'a str,
    pub bucket: &'a str,
    pub key: &'a str,
    /// For which role; none reads it for the caller, who may.
    pub role: Option<Actor<'a>>,
}

/// Why it was not copied.
pub(crate) enum NoArtifact {
    /// A build's failure code (spec section 7.1) and the cause.
    Refused(&'static str, String),
    /// This node's disk.
    Io(io::Error),
}

impl From<io::Error> for NoArtifact {
    fn from(error: io::Error) -> NoArtifact {
        NoArtifact::Io(error)
    }
}

const TOO_LARGE: &str = "the archive is too large";

impl Node {
    /// Copies an object into a new file. It is the tenant's: bytes, nothing more. Gives its length.
    pub(crate) async fn copy_artifact(&self, artifact: &Artifact<'_>, to: &Path) -> Result<u64, NoArtifact> {
        let Artifact {
            account,
            bucket,
            key,
            role,
        } = *artifact;
        let external = self.external_s3.as_ref();
        let decides_itself = |role: Actor<'_>| external.is_some_and(|external| external.knows(role.role_arn));
        if let Some(role) = role.filter(|role| !decides_itself(*role))
            && !self.may_read(role, bucket, key)
        {
            let cause = format!("the role {} may not read it (s3:GetObject)", role.role_arn);
            return Err(NoArtifact::Refused("S3_ACCESS_DENIED", cause));
        }
        match (self.objects.fetch(account, None, bucket, key).await, external) {
            (Ok(object), _) => copy(object, to).await,
            (Err(ObjectsError::NoSuchBucket | ObjectsError::AccessDenied), Some(external)) => {
                let role = role.map(|role| role.role_arn);
                let fetched = external
                    .fetch(role, bucket, key, to, hearth_builder::MAX_CONTEXT_BYTES)
                    .await;
                fetched.map_err(|error| match error {
                    FetchError::Refused { code, cause } => NoArtifact::Refused(code, cause),
                    FetchError::TooLarge => NoArtifact::Refused("ARCHIVE_INVALID", TOO_LARGE.into()),
                    FetchError::Io(error) => NoArtifact::Io(error),
                })
            }
            (Err(error), _) => Err(NoArtifact::Refused(error.build_code(), error.to_string())),
        }
    }
}

async fn copy(object: Object, to: &Path) -> Result<u64, NoArtifact> {
    let length = object.info.size;
    if length > hearth_builder::MAX_CONTEXT_BYTES {
        return Err(NoArtifact::Refused("ARCHIVE_INVALID", TOO_LARGE.into()));
    }
    let mut file = tokio::fs::File::create_new(to).await?;
    let mut stream = std::pin::pin!(object.stream(None));
    while let Some(bytes) = stream.try_next().await? {
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    Ok(length)
}
