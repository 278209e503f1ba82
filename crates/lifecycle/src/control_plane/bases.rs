use futures::TryStreamExt;
use hearth_builder::{BaseArchive, BuildError};
use hearth_state::Table;
use hearth_storage::disk;
use hearth_wire::{ApiError, Caller, Timestamp, types::*};
use tokio::io::AsyncWriteExt;

use super::internal;
use crate::{Service, image::policy};

impl Service {
    pub(crate) async fn import_base(
        &self,
        caller: &Caller,
        request: ImportBaseRequest,
    ) -> Result<ImportBaseResponse, ApiError> {
        let (bucket, key) = policy::artifact(&request.archive_uri)?;
        let refused = |code: &str, cause: &dyn std::fmt::Display| {
            ApiError::validation(format!("{code}: {}: {cause}", request.archive_uri))
        };
        let objects = &self.node().objects;
        let object = objects
            .fetch(&caller.account_id, None, bucket, key)
            .await
            .map_err(|error| refused(error.build_code(), &error))?;
        let directory = tempfile::tempdir_in(&self.config().directory).map_err(internal)?;
        disk::give(directory.path(), None, None, 0o711).map_err(internal)?;
        let path = directory.path().join("archive");
        let bytes = object.info.size;
        let mut file = tokio::fs::File::create_new(&path).await.map_err(internal)?;
        let mut stream = std::pin::pin!(object.stream(None));
        while let Some(bytes) = stream.try_next().await.map_err(internal)? {
            file.write_all(&bytes).await.map_err(internal)?;
        }
        file.flush().await.map_err(internal)?;
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
