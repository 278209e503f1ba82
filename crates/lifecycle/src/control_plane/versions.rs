use hearth_state::{Changes, Table};
use hearth_wire::{
    ApiError, Caller, Operation, Timestamp,
    arn::ImageArn,
    enums::{MicrovmImageState, MicrovmImageVersionState},
    page, texts,
    types::*,
};

use super::internal;
use crate::{
    Service,
    catalog::Catalog,
    image::{
        base::{self, BaseVersion},
        policy,
        record::{ARCHITECTURE, BuildRecord, CHIPSET, ImageRecord, VersionRecord, version_key},
    },
};

/// The spelling of a version in records: `1` is `1.0`.
pub(super) fn canonical(version: &str) -> String {
    if version.contains('.') {
        version.to_owned()
    } else {
        format!("{version}.0")
    }
}

fn find<'a>(
    catalog: &'a Catalog,
    arn: &ImageArn,
    version: &str,
) -> Result<(&'a ImageRecord, &'a VersionRecord), ApiError> {
    let missing = || texts::version_not_found(arn, version);
    let image = catalog.image(arn).ok_or_else(missing)?;
    let key = version_key(&image.id, &canonical(version));
    Ok((image, catalog.version(&key).ok_or_else(missing)?))
}

impl Service {
    pub(crate) async fn get_microvm_image_version(
        &self,
        caller: &Caller,
        request: GetMicrovmImageVersionRequest,
    ) -> Result<GetMicrovmImageVersionResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let catalog = self.inner.catalog.lock().await;
        Ok(find(&catalog, &arn, &request.image_version)?.1.object())
    }

    pub(crate) async fn list_microvm_image_versions(
        &self,
        caller: &Caller,
        request: ListMicrovmImageVersionsRequest,
    ) -> Result<ListMicrovmImageVersionsResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let catalog = self.inner.catalog.lock().await;
        let image = catalog.image(&arn).ok_or_else(|| texts::image_not_found(&arn))?;
        let scope = page::scope(caller, Operation::ListMicrovmImageVersions, &[Some(&image.id)]);
        let page = self.inner.page_key.paginate(
            &scope,
            request.max_results,
            request.next_token.as_deref(),
            catalog.versions_of(&image.id),
            |version| u32::MAX - version.number,
        )?;
        let items = page.items.into_iter().map(VersionRecord::object).collect();
        Ok(ListMicrovmImageVersionsResponse {
            items,
            next_token: page.next_token,
        })
    }

    pub(crate) async fn update_microvm_image_version(
        &self,
        caller: &Caller,
        request: UpdateMicrovmImageVersionRequest,
    ) -> Result<UpdateMicrovmImageVersionResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let mut catalog = self.inner.catalog.lock().await;
        let (image, version) = find(&catalog, &arn, &request.image_version)?;
        policy::may_change(image.state)?;
        if version.state != MicrovmImageVersionState::Successful {
            return Err(ApiError::validation(format!(
                "The status of version {} cannot be changed in its current state: {}",
                version.version, version.state
            )));
        }
        let now = Timestamp::now();
        let version = VersionRecord {
            status: request.status,
            updated_at: now,
            ..version.clone()
        };
        let mut image = ImageRecord {
            updated_at: now,
            ..image.clone()
        };
        let changed =
            catalog
                .versions_of(&image.id)
                .into_iter()
                .map(|other| match other.version == version.version {
                    true => &version,
                    false => other,
                });
        image.latest_active_version = newest_runnable(changed);
        self.write(&mut catalog, image, Some(version.clone()), None)
            .await?;
        if version.is_runnable() {
            self.settle_snapshot(version.key());
        }
        Ok(version.object())
    }

    pub(crate) async fn delete_microvm_image_version(
        &self,
        caller: &Caller,
        request: DeleteMicrovmImageVersionRequest,
    ) -> Result<DeleteMicrovmImageVersionResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let mut catalog = self.inner.catalog.lock().await;
        let (image, version) = find(&catalog, &arn, &request.image_version)?;
        policy::may_change(image.state)?;
        let versions = catalog.versions_of(&image.id);
        if versions.len() == 1 {
            return Err(texts::last_version());
        }
        let (key, deleted) = (version.key(), version.version.clone());
        let mut image = ImageRecord {
            updated_at: Timestamp::now(),
            ..image.clone()
        };
        let mut left = versions.into_iter().filter(|other| other.version != deleted);
        image.latest_active_version = newest_runnable(left.clone());
        if image.latest_failed_version.as_ref() == Some(&deleted) {
            image.latest_failed_version = left
                .find(|version| version.state == MicrovmImageVersionState::Failed)
                .map(|version| version.version.clone());
        }
        self.write(&mut catalog, image, None, Some(&key)).await?;
        drop(catalog);
        let service = self.clone();
        tokio::spawn(async move { service.remove_unused_snapshots().await });
        Ok(DeleteMicrovmImageVersionResponse {
            image_identifier: arn.to_string(),
            image_version: deleted,
            state: MicrovmImageVersionState::Deleting,
        })
    }

    async fn write(
        &self,
        catalog: &mut Catalog,
        image: ImageRecord,
        version: Option<VersionRecord>,
        deleted: Option<&str>,
    ) -> Result<(), ApiError> {
        let mut changes = Changes::new()
            .put(Table::Images, &image.id, &image.account, &image)
            .map_err(internal)?;
        if let Some(version) = &version {
            changes = changes
                .put(Table::Versions, &version.key(), &version.account, version)
                .map_err(internal)?;
        }
        if let Some(key) = deleted {
            changes = changes.delete(Table::Versions, key);
        }
        self.node().state.commit(changes).await.map_err(internal)?;
        catalog.put_image(image);
        if let Some(version) = version {
            catalog.put_version(version);
        }
        if let Some(key) = deleted {
            catalog.remove_version(key);
        }
        Ok(())
    }

    pub(crate) async fn list_microvm_image_builds(
        &self,
        caller: &Caller,
        request: ListMicrovmImageBuildsRequest,
    ) -> Result<ListMicrovmImageBuildsResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let catalog = self.inner.catalog.lock().await;
        let (_, version) = find(&catalog, &arn, &request.image_version)?;
        let is_wanted = |build: &BuildRecord| {
            request.architecture.is_none_or(|wanted| wanted == ARCHITECTURE)
                && request.chipset.is_none_or(|wanted| wanted == CHIPSET)
                && request
                    .chipset_generation
                    .as_ref()
                    .is_none_or(|wanted| *wanted == build.generation)
        };
        let filters = [
            Some(version.key()),
            request.architecture.map(|wanted| wanted.to_string()),
            request.chipset.map(|wanted| wanted.to_string()),
            request.chipset_generation.clone(),
        ];
        let filters = filters.each_ref().map(Option::as_deref);
        let scope = page::scope(caller, Operation::ListMicrovmImageBuilds, &filters);
        let page = self.inner.page_key.paginate(
            &scope,
            request.max_results,
            request.next_token.as_deref(),
            version
                .builds
                .iter()
                .enumerate()
                .filter(|(_, build)| is_wanted(build)),
            |(place, _)| *place,
        )?;
        let builds = page.items.into_iter().map(|(_, build)| build);
        let items = builds.map(|build| version.build_summary(build)).collect();
        Ok(ListMicrovmImageBuildsResponse {
            items,
            next_token: page.next_token,
        })
    }

    pub(crate) async fn get_microvm_image_build(
        &self,
        caller: &Caller,
        request: GetMicrovmImageBuildRequest,
    ) -> Result<GetMicrovmImageBuildResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let catalog = self.inner.catalog.lock().await;
        let (_, version) = find(&catalog, &arn, &request.image_version)?;
        let build = version.builds.iter().find(|build| build.id == request.build_id);
        let build =
            build.ok_or_else(|| texts::build_not_found(&arn, &request.image_version, &request.build_id))?;
        Ok(GetMicrovmImageBuildResponse {
            build: version.build_summary(build),
            snapshot_build: build.sizes.clone(),
        })
    }
}

/// What an unpinned RunMicrovm takes.
pub(super) fn newest_runnable<'a>(newest_first: impl Iterator<Item = &'a VersionRecord>) -> Option<String> {
    newest_first
        .into_iter()
        .find(|version| version.is_runnable())
        .map(|version| version.version.clone())
}

/// The version a RunMicrovm names, or the newest that can be launched (spec section 8).
pub(super) fn for_run<'a>(
    catalog: &'a Catalog,
    base_versions: &[BaseVersion],
    arn: &ImageArn,
    wanted: Option<&str>,
) -> Result<(&'a ImageRecord, &'a VersionRecord), ApiError> {
    let missing = || match wanted {
        Some(version) => texts::version_not_active(arn, version),
        None => texts::no_active_version(arn),
    };
    let going = [MicrovmImageState::Deleting, MicrovmImageState::DeleteFailed];
    let image = catalog
        .image(arn)
        .filter(|image| !going.contains(&image.state))
        .ok_or_else(missing)?;
    let version = catalog.versions_of(&image.id).into_iter().find(|version| {
        let built_on = version.specification.base_image_version.as_deref();
        version.is_runnable()
            && base::may_run(base_versions, built_on.unwrap_or_default())
            && wanted.is_none_or(|wanted| canonical(wanted) == version.version)
    });
    Ok((image, version.ok_or_else(missing)?))
}
