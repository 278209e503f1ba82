//! The five sizes of a MicroVM (spec section 10).

/// One size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// What a request names: the baseline.
    pub minimum_memory_mib: i32,
    /// Guest memory: four times the baseline, from the start.
    pub memory_bytes: u64,
    /// Guest CPUs: the peak.
    pub vcpus: u32,
    /// Disk for the container image and what is written at run time.
    pub disk_bytes: u64,
}

/// The tier of a request that names none.
pub const DEFAULT_MEMORY_MIB: i32 = 2048;

const fn tier(minimum_memory_mib: i32, vcpus: u32, disk_gb: u64) -> Tier {
    let memory_bytes = (minimum_memory_mib as u64 * 4) << 20;
    Tier {
        minimum_memory_mib,
        memory_bytes,
        vcpus,
        disk_bytes: disk_gb << 30,
    }
}

/// All tiers, smallest first.
pub const TIERS: [Tier; 5] = [
    tier(512, 1, 8),
    tier(1024, 2, 8),
    tier(2048, 4, 8),
    tier(4096, 8, 16),
    tier(8192, 16, 32),
];

/// The tier with this baseline.
pub fn find(minimum_memory_mib: i32) -> Option<Tier> {
    TIERS
        .into_iter()
        .find(|tier| tier.minimum_memory_mib == minimum_memory_mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_those_of_the_specification() {
        let rows = TIERS.map(|tier| {
            (
                tier.minimum_memory_mib,
                tier.memory_bytes >> 30,
                tier.vcpus,
                tier.disk_bytes >> 30,
            )
        });
        assert_eq!(
            rows,
            [
                (512, 2, 1, 8),
                (1024, 4, 2, 8),
                (2048, 8, 4, 8),
                (4096, 16, 8, 16),
                (8192, 32, 16, 32)
            ]
        );
        assert_eq!(find(3000), None);
    }
}
