//! Images, their versions and connectors as they are in the database, with the ways to find them.

use std::collections::{BTreeMap, HashMap};

use hearth_wire::{Caller, arn::ImageArn};

use crate::{
    connector::record::ConnectorRecord,
    image::record::{ImageRecord, VersionRecord},
};

/// Account, region and name: what an image's ARN tells.
type Name = (String, String, String);

/// Every image, version and connector.
#[derive(Default)]
pub(crate) struct Catalog {
    images: HashMap<String, ImageRecord>,
    names: HashMap<Name, String>,
    /// By key; those of one image stand together.
    versions: BTreeMap<String, VersionRecord>,
    /// By id.
    pub connectors: HashMap<String, ConnectorRecord>,
}

impl Catalog {
    /// Every image.
    pub(crate) fn images(&self) -> impl Iterator<Item = &ImageRecord> {
        self.images.values()
    }

    /// The image with this id.
    pub(crate) fn image_by_id(&self, id: &str) -> Option<&ImageRecord> {
        self.images.get(id)
    }

    /// The image of an ARN.
    pub(crate) fn image(&self, arn: &ImageArn) -> Option<&ImageRecord> {
        let name = (arn.account.clone(), arn.region.clone(), arn.name.clone());
        self.images.get(self.names.get(&name)?)
    }

    /// Adds an image or puts a newer record in the place of its old one.
    pub(crate) fn put_image(&mut self, image: ImageRecord) {
        self.names.insert(name_of(&image), image.id.clone());
        self.images.insert(image.id.clone(), image);
    }

    /// Forgets an image and its versions.
    pub(crate) fn remove_image(&mut self, id: &str) {
        if let Some(image) = self.images.remove(id) {
            self.names.remove(&name_of(&image));
        }
        self.versions.retain(|_, version| version.image_id != id);
    }

    /// The caller's connectors.
    pub(crate) fn connectors_of(&self, caller: &Caller) -> impl Iterator<Item = &ConnectorRecord> {
        let (account, region) = (caller.account_id.clone(), caller.region.clone());
        self.connectors
            .values()
            .filter(move |connector| connector.account == account && connector.region == region)
    }

    /// Every version.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &VersionRecord> {
        self.versions.values()
    }

    /// The version with this key.
    pub(crate) fn version(&self, key: &str) -> Option<&VersionRecord> {
        self.versions.get(key)
    }

    /// An image's versions, newest first.
    pub(crate) fn versions_of(&self, image_id: &str) -> Vec<&VersionRecord> {
        let own = self.versions.range(image_id.to_owned()..);
        let mut versions: Vec<_> = own
            .map(|(_, version)| version)
            .take_while(|version| version.image_id == image_id)
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.number));
        versions
    }

    /// Adds a version or puts a newer record in the place of its old one.
    pub(crate) fn put_version(&mut self, version: VersionRecord) {
        self.versions.insert(version.key(), version);
    }

    /// Forgets a version.
    pub(crate) fn remove_version(&mut self, key: &str) {
        self.versions.remove(key);
    }
}

fn name_of(image: &ImageRecord) -> Name {
    (image.account.clone(), image.region.clone(), image.name.clone())
}
