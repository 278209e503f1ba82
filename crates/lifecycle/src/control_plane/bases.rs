use std::path::Path;

use hearth_builder::{BaseArchive, BuildError};
use hearth_state::Table;
use hearth_storage::disk;
use hearth_wire::{ApiError, Caller, Timestamp, types::*};
use tokio::io::AsyncReadExt;

use super::internal;
use crate::{
    Service,
    artifact::{Artifact, NoArtifact},
    image::policy,
};

impl Service {
    pub(crate) async fn import_base(
        &self,
        caller: &Caller,
        request: ImportBaseRequest,
    ) -> Result<ImportBaseResponse, ApiError> {
        let (bucket, key) = policy::artifact(&request.archive_uri)?;
        let directory = tempfile::tempdir_in(&self.config().directory).map_err(internal)?;
        disk::give(directory.path(), None, None, 0o711).map_err(internal)?;
        let path = directory.path().join("archive");
        let artifact = Artifact {
            account: &caller.account_id,
            bucket,
            key,
            role: None,
        };
        let copied = self.node().copy_artifact(&artifact, &path).await;
        let bytes = copied.map_err(|error| match error {
            NoArtifact::Refused(code, cause) => {
                ApiError::validation(format!("{code}: {}: {cause}", request.archive_uri))
            }
            NoArtifact::Io(error) => internal(error),
        })?;
        let looks_like_one = looks_like_an_archive(&path).await.map_err(internal)?;
        if !looks_like_one {
            return Err(ApiError::validation(format!(
                "ARCHIVE_INVALID: {}: it is no tar archive, compressed by gzip or not",
                request.archive_uri
            )));
        }
        let archive = |kind: &str| BaseArchive {
            path: path.clone(),
            bytes,
            kind: kind.into(),
            names: vec![request.name.clone()],
        };
        // Which of the two it is shows only when it is read, and that happens in the guest.
        let mut imported = self.node().builder.import_base(archive("docker-archive")).await;
        if matches!(imported, Err(BuildError::ArchiveInvalid(_))) {
            imported = self.node().builder.import_base(archive("oci-archive")).await;
        }
        imported.map_err(|error| match error {
            BuildError::Internal(_) => internal(error),
            other => ApiError::validation(other.to_string()),
        })?;
        let item = BaseItem {
            name: request.name.clone(),
            created_at: Timestamp::now(),
        };
        self.node()
            .state
            .put(Table::Bases, &item.name, &caller.account_id, &item)
            .await
            .map_err(internal)?;
        let mut bases = self.bases().lock().await;
        bases.retain(|base| base.name != item.name);
        bases.push(item);
        Ok(ImportBaseResponse {
            name: request.name,
            digest: None,
        })
    }

    pub(crate) async fn list_bases(
        &self,
        _: &Caller,
        _: ListBasesRequest,
    ) -> Result<ListBasesResponse, ApiError> {
        let own = self.node().builder.own_bases().map_err(internal)?;
        let mut items: Vec<BaseItem> = own
            .into_iter()
            .map(|name| BaseItem {
                name,
                created_at: self.started_at(),
            })
            .collect();
        items.extend(self.bases().lock().await.iter().cloned());
        items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListBasesResponse { items })
    }
}

/// By the marks of tar and gzip alone: what is in it is read in a guest.
async fn looks_like_an_archive(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(512).read_to_end(&mut head).await?;
    Ok(head.starts_with(&[0x1f, 0x8b]) || head.get(257..262) == Some(b"ustar"))
}
