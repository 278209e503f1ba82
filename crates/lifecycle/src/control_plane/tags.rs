use hearth_state::Table;
use hearth_wire::{ApiError, Caller, Timestamp, arn::ImageArn, texts, types::*};

use super::internal;
use crate::{Service, image::record::ImageRecord};

impl Service {
    pub(crate) async fn tag_resource(
        &self,
        caller: &Caller,
        request: TagResourceRequest,
    ) -> Result<TagResourceResponse, ApiError> {
        self.change_tags(caller, &request.resource, |tags| tags.extend(request.tags))
            .await?;
        Ok(TagResourceResponse {})
    }

    pub(crate) async fn untag_resource(
        &self,
        caller: &Caller,
        request: UntagResourceRequest,
    ) -> Result<UntagResourceResponse, ApiError> {
        self.change_tags(caller, &request.resource, |tags| {
            tags.retain(|key, _| !request.tag_keys.contains(key));
        })
        .await?;
        Ok(UntagResourceResponse {})
    }

    pub(crate) async fn list_tags(
        &self,
        caller: &Caller,
        request: ListTagsRequest,
    ) -> Result<ListTagsResponse, ApiError> {
        if is_connector(&request.resource) {
            let tags = self.connector_tags(caller, &request.resource).await?;
            return Ok(ListTagsResponse { tags });
        }
        let arn = ImageArn::for_image_operation(&request.resource, caller)?;
        let catalog = self.inner.catalog.lock().await;
        let image = catalog.image(&arn).ok_or_else(|| texts::image_not_found(&arn))?;
        Ok(ListTagsResponse {
            tags: image.tags.clone().unwrap_or_default(),
        })
    }

    async fn change_tags(
        &self,
        caller: &Caller,
        resource: &str,
        change: impl FnOnce(&mut std::collections::BTreeMap<String, String>),
    ) -> Result<(), ApiError> {
        if is_connector(resource) {
            return self.change_connector_tags(caller, resource, change).await;
        }
        let arn = ImageArn::for_image_operation(resource, caller)?;
        let mut catalog = self.inner.catalog.lock().await;
        let image = catalog.image(&arn).ok_or_else(|| texts::image_not_found(&arn))?;
        let mut tags = image.tags.clone().unwrap_or_default();
        change(&mut tags);
        let image = ImageRecord {
            tags: Some(tags),
            updated_at: Timestamp::now(),
            ..image.clone()
        };
        self.node()
            .state
            .put(Table::Images, &image.id, &image.account, &image)
            .await
            .map_err(internal)?;
        catalog.put_image(image);
        Ok(())
    }
}

fn is_connector(arn: &str) -> bool {
    arn.split(':').nth(5) == Some("network-connector")
}
