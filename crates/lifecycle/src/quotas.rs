//! What an account may have (spec section 29).

use serde::{Deserialize, Serialize};

/// The quotas of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Baseline memory of all its MicroVMs that are not terminated, in MiB.
    pub memory_mib: u64,
    /// Images in each region.
    pub images: usize,
    /// Network connectors in each region.
    pub network_connectors: usize,
    /// Versions of each image.
    pub versions_per_image: usize,
    /// Versions that are being built or wait for it.
    pub concurrent_builds: usize,
    /// Environment variables of an image version.
    pub environment_variables: usize,
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas {
            memory_mib: 400 * 1024,
            images: 100,
            network_connectors: 100,
            versions_per_image: 50,
            concurrent_builds: 5,
            environment_variables: 100,
        }
    }
}
