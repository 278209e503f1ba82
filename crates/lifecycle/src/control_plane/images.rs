use hearth_state::{Changes, Table};
use hearth_wire::{
    ApiError, Caller, Operation, Timestamp,
    arn::ImageArn,
    enums::{BuildState, MicrovmImageState, MicrovmImageVersionState, MicrovmImageVersionStatus},
    page, texts,
    types::*,
};

use super::{connectors, internal};
use crate::{
    Service,
    catalog::Catalog,
    connector::record::Way,
    idempotency::ClientToken,
    image::{
        policy,
        record::{BuildRecord, ImageRecord, VersionRecord},
    },
    microvm::{MicrovmRecord, record::Stage},
};

impl Service {
    pub(crate) async fn create_microvm_image(
        &self,
        caller: &Caller,
        request: CreateMicrovmImageRequest,
    ) -> Result<CreateMicrovmImageResponse, ApiError> {
        let client_token = ClientToken::of(request.client_token.as_deref(), &request);
        let specification = policy::complete(request.specification, caller, &self.config().base_versions)?;
        let arn = ImageArn::of(caller, &request.name);
        let mut catalog = self.inner.catalog.lock().await;
        let existing = catalog
            .images()
            .filter(|image| image.account == caller.account_id && image.region == caller.region)
            .map(|image| (image.client_token.as_ref(), image));
        if let Some(image) = ClientToken::find(client_token.as_ref(), existing)? {
            let versions = catalog.versions_of(&image.id);
            let first = versions
                .last()
                .ok_or_else(|| internal("an image without versions"))?;
            return Ok(created(image, first));
        }
        if catalog.image(&arn).is_some() {
            return Err(texts::image_exists(&request.name));
        }
        let quotas = self.config().quotas(&caller.account_id);
        let own = catalog
            .images()
            .filter(|image| image.account == caller.account_id && image.region == caller.region);
        if own.count() >= quotas.images {
            return Err(texts::too_many_images(quotas.images));
        }
        self.may_build(&catalog, caller, &specification)?;
        let ways = ways_of(&catalog, caller, &specification)?;
        let now = Timestamp::now();
        let image = ImageRecord {
            id: uuid::Uuid::new_v4().to_string(),
            account: caller.account_id.clone(),
            region: caller.region.clone(),
            partition: caller.partition.clone(),
            name: request.name,
            state: MicrovmImageState::Creating,
            latest_active_version: None,
            latest_failed_version: None,
            versions_made: 1,
            tags: request.tags,
            created_at: now,
            updated_at: now,
            client_token,
        };
        let version = self.first_state(&image, specification, ways, None, now);
        self.accept(&mut catalog, image.clone(), version.clone()).await?;
        Ok(created(&image, &version))
    }

    pub(crate) async fn update_microvm_image(
        &self,
        caller: &Caller,
        request: UpdateMicrovmImageRequest,
    ) -> Result<UpdateMicrovmImageResponse, ApiError> {
        let client_token = ClientToken::of(request.client_token.as_deref(), &request);
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let mut catalog = self.inner.catalog.lock().await;
        let image = catalog.image(&arn).ok_or_else(|| texts::image_not_found(&arn))?;
        let specification = policy::complete(request.specification, caller, &self.config().base_versions)?;
        let versions = catalog.versions_of(&image.id);
        let existing = versions
            .iter()
            .map(|version| (version.client_token.as_ref(), *version));
        if let Some(version) = ClientToken::find(client_token.as_ref(), existing)? {
            return Ok(updated(image, version));
        }
        policy::may_change(image.state)?;
        let quotas = self.config().quotas(&caller.account_id);
        if versions.len() >= quotas.versions_per_image {
            return Err(texts::too_many_versions(quotas.versions_per_image));
        }
        self.may_build(&catalog, caller, &specification)?;
        let ways = ways_of(&catalog, caller, &specification)?;
        let now = Timestamp::now();
        let image = ImageRecord {
            state: MicrovmImageState::Updating,
            versions_made: image.versions_made + 1,
            updated_at: now,
            ..image.clone()
        };
        let version = self.first_state(&image, specification, ways, client_token, now);
        self.accept(&mut catalog, image.clone(), version.clone()).await?;
        Ok(updated(&image, &version))
    }

    /// The account's quotas of everything that is built.
    fn may_build(
        &self,
        catalog: &Catalog,
        caller: &Caller,
        specification: &ImageSpecification,
    ) -> Result<(), ApiError> {
        let quotas = self.config().quotas(&caller.account_id);
        let variables = specification.environment_variables.as_ref();
        if variables.is_some_and(|variables| variables.len() > quotas.environment_variables) {
            return Err(texts::too_many_environment_variables(
                quotas.environment_variables,
            ));
        }
        let building = catalog.versions().filter(|version| {
            let building = matches!(
                version.state,
                MicrovmImageVersionState::Pending | MicrovmImageVersionState::InProgress
            );
            building && version.account == caller.account_id
        });
        if building.count() >= quotas.concurrent_builds {
            return Err(texts::too_many_builds(quotas.concurrent_builds));
        }
        Ok(())
    }

    /// A version whose builds have not begun.
    fn first_state(
        &self,
        image: &ImageRecord,
        specification: ImageSpecification,
        ways: Vec<Way>,
        client_token: Option<ClientToken>,
        now: Timestamp,
    ) -> VersionRecord {
        let generations = self.config().chipset_generations.iter();
        let builds = generations.map(|generation| BuildRecord {
            id: uuid::Uuid::new_v4().to_string(),
            generation: generation.clone(),
            state: BuildState::Pending,
            reason: None,
            created_at: now,
            sizes: None,
        });
        VersionRecord {
            image_id: image.id.clone(),
            account: image.account.clone(),
            image_arn: image.arn().to_string(),
            version: format!("{}.0", image.versions_made),
            number: image.versions_made,
            specification,
            ways,
            state: MicrovmImageVersionState::Pending,
            status: MicrovmImageVersionStatus::Inactive,
            created_at: now,
            updated_at: now,
            builds: builds.collect(),
            container: None,
            snapshot: None,
            client_token,
        }
    }

    /// Writes down an image with its new version and starts the build.
    async fn accept(
        &self,
        catalog: &mut Catalog,
        image: ImageRecord,
        version: VersionRecord,
    ) -> Result<(), ApiError> {
        let key = version.key();
        let changes = Changes::new()
            .put(Table::Images, &image.id, &image.account, &image)
            .and_then(|changes| changes.put(Table::Versions, &key, &version.account, &version))
            .map_err(internal)?;
        self.node().state.commit(changes).await.map_err(internal)?;
        catalog.put_image(image);
        catalog.put_version(version);
        self.start_build(key);
        Ok(())
    }

    pub(crate) async fn get_microvm_image(
        &self,
        caller: &Caller,
        request: GetMicrovmImageRequest,
    ) -> Result<GetMicrovmImageResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let catalog = self.inner.catalog.lock().await;
        let image = catalog.image(&arn).ok_or_else(|| texts::image_not_found(&arn))?;
        Ok(GetMicrovmImageResponse {
            image: image.summary(),
            updated_at: Some(image.updated_at),
            tags: image.tags.clone().unwrap_or_default(),
        })
    }

    pub(crate) async fn list_microvm_images(
        &self,
        caller: &Caller,
        request: ListMicrovmImagesRequest,
    ) -> Result<ListMicrovmImagesResponse, ApiError> {
        let filter = request.name_filter.as_deref();
        let scope = page::scope(caller, Operation::ListMicrovmImages, &[filter]);
        let catalog = self.inner.catalog.lock().await;
        let mut images: Vec<&ImageRecord> = catalog
            .images()
            .filter(|image| image.account == caller.account_id && image.region == caller.region)
            .filter(|image| filter.is_none_or(|filter| image.name.contains(filter)))
            .collect();
        let position = |image: &&ImageRecord| (i64::MAX - image.created_at.as_millis(), image.id.clone());
        images.sort_by_key(position);
        let page = self.inner.page_key.paginate(
            &scope,
            request.max_results,
            request.next_token.as_deref(),
            images,
            position,
        )?;
        let items = page.items.into_iter().map(ImageRecord::summary).collect();
        Ok(ListMicrovmImagesResponse {
            items,
            next_token: page.next_token,
        })
    }

    pub(crate) async fn delete_microvm_image(
        &self,
        caller: &Caller,
        request: DeleteMicrovmImageRequest,
    ) -> Result<DeleteMicrovmImageResponse, ApiError> {
        let arn = ImageArn::for_image_operation(&request.image_identifier, caller)?;
        let mut catalog = self.inner.catalog.lock().await;
        let mut image = catalog
            .image(&arn)
            .ok_or_else(|| texts::image_not_found(&arn))?
            .clone();
        let is_live =
            |record: &MicrovmRecord| record.image_id == image.id && record.stage != Stage::Terminated;
        let live = self
            .registry()
            .all()
            .filter(|microvm| is_live(&microvm.record.borrow()))
            .count();
        policy::may_delete(image.state, live)?;
        image.state = MicrovmImageState::Deleting;
        image.updated_at = Timestamp::now();
        self.node()
            .state
            .put(Table::Images, &image.id, &image.account, &image)
            .await
            .map_err(internal)?;
        let id = image.id.clone();
        catalog.put_image(image);
        drop(catalog);
        let service = self.clone();
        tokio::spawn(async move { service.finish_image_deletion(&id).await });
        Ok(DeleteMicrovmImageResponse {
            image_identifier: arn.to_string(),
            state: MicrovmImageState::Deleting,
        })
    }
}

/// What the build may reach.
fn ways_of(
    catalog: &Catalog,
    caller: &Caller,
    specification: &ImageSpecification,
) -> Result<Vec<Way>, ApiError> {
    let connectors = specification.egress_network_connectors.as_deref();
    connectors::ways(catalog, caller, connectors.unwrap_or_default())
}

fn created(image: &ImageRecord, version: &VersionRecord) -> CreateMicrovmImageResponse {
    CreateMicrovmImageResponse {
        image: image.summary(),
        updated_at: Some(image.updated_at),
        tags: image.tags.clone(),
        image_version: version.version.clone(),
        specification: version.specification.clone(),
        build_phase_overrides: None,
        role_configuration: None,
    }
}

fn updated(image: &ImageRecord, version: &VersionRecord) -> UpdateMicrovmImageResponse {
    UpdateMicrovmImageResponse {
        image: image.summary(),
        updated_at: image.updated_at,
        image_version: version.version.clone(),
        specification: version.specification.clone(),
        build_phase_overrides: None,
        role_configuration: None,
    }
}
