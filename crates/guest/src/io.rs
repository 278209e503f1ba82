//! How much a guest's devices may move: it grows with the virtual CPUs, as everything of a size does.

use hearth_vmm::DiskLimits;

/// What a guest may move in a second for each of its virtual CPUs, after a burst of one second's worth; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoPerVcpu {
    /// Bytes to and from each disk.
    pub disk_bytes: u64,
    /// Requests to each disk.
    pub disk_operations: u64,
    /// Bytes to it, and bytes from it.
    pub network_bytes: u64,
}

impl IoPerVcpu {
    /// The limits of each disk of a guest.
    pub(crate) fn disk(self, vcpus: u32) -> DiskLimits {
        DiskLimits {
            bytes_per_second: self.disk_bytes.saturating_mul(vcpus.into()),
            operations_per_second: self.disk_operations.saturating_mul(vcpus.into()),
        }
    }

    /// Bytes a second each way of a guest's link.
    pub(crate) fn network(self, vcpus: u32) -> u64 {
        self.network_bytes.saturating_mul(vcpus.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_virtual_cpus_and_none_stays_none() {
        let io = IoPerVcpu {
            disk_bytes: 100,
            disk_operations: 0,
            network_bytes: 7,
        };
        assert_eq!(
            io.disk(16),
            DiskLimits {
                bytes_per_second: 1600,
                operations_per_second: 0
            }
        );
        assert_eq!(io.network(4), 28);
        assert_eq!(IoPerVcpu::default().disk(8), DiskLimits::default());
    }
}
