use hearth_wire::{ApiError, Caller, Operation, Timestamp, arn::ImageArn, page, texts, types::*};

use crate::{
    Service,
    image::{
        base::{BASE_NAME, BaseVersion},
        record::ARCHITECTURE,
    },
};

/// When the managed base image came into being (spec section 5).
const CREATED: Timestamp = Timestamp::from_millis(1_781_654_400_000);

impl Service {
    pub(crate) async fn list_managed_microvm_images(
        &self,
        caller: &Caller,
        request: ListManagedMicrovmImagesRequest,
    ) -> Result<ListManagedMicrovmImagesResponse, ApiError> {
        let image = ManagedMicrovmImageSummary {
            image_arn: ImageArn::managed(caller, BASE_NAME).to_string(),
            created_at: CREATED,
            updated_at: Some(CREATED),
        };
        let scope = page::scope(caller, Operation::ListManagedMicrovmImages, &[]);
        let token = request.next_token.as_deref();
        let page = self
            .inner
            .page_key
            .paginate(&scope, request.max_results, token, [image], |image| {
                image.image_arn.clone()
            })?;
        Ok(ListManagedMicrovmImagesResponse {
            items: page.items,
            next_token: page.next_token,
        })
    }

    pub(crate) async fn list_managed_microvm_image_versions(
        &self,
        caller: &Caller,
        request: ListManagedMicrovmImageVersionsRequest,
    ) -> Result<ListManagedMicrovmImageVersionsResponse, ApiError> {
        let arn = ImageArn::for_managed(&request.image_identifier, caller)?;
        if arn.name != BASE_NAME {
            return Err(texts::image_not_found(&arn));
        }
        let versions = self.config().base_versions.iter().enumerate();
        let versions = versions.map(|(place, BaseVersion { version, status })| {
            let version = ManagedMicrovmImageVersion {
                image_arn: arn.to_string(),
                image_version: version.clone(),
                status: Some(*status),
                supported_cpu_configurations: Some(vec![CpuConfiguration {
                    architecture: ARCHITECTURE,
                }]),
                created_at: CREATED,
                updated_at: Some(CREATED),
            };
            (place, version)
        });
        let scope = page::scope(
            caller,
            Operation::ListManagedMicrovmImageVersions,
            &[Some(&arn.name)],
        );
        let token = request.next_token.as_deref();
        let page =
            self.inner
                .page_key
                .paginate(&scope, request.max_results, token, versions, |(place, _)| *place)?;
        let items = page.items.into_iter().map(|(_, version)| version).collect();
        Ok(ListManagedMicrovmImageVersionsResponse {
            items,
            next_token: page.next_token,
        })
    }
}
