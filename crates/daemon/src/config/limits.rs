use hearth_guest::IoPerVcpu;
use serde::Deserialize;

/// Limits of devices, a second and virtual CPU.
const LEAST_BYTES: u64 = 65_536;
const LEAST_OPERATIONS: u64 = 10;
const MOST: u64 = 1_000_000_000_000;

/// What one endpoint carries and the guest's devices move, for each virtual CPU of the MicroVM's size; 0 is no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitSettings {
    /// Client connections at a time.
    pub connections_per_vcpu: u32,
    /// Requests per second.
    pub requests_per_second_per_vcpu: u32,
    /// Bytes per second each way.
    pub bytes_per_second_per_vcpu: u64,
    /// Bytes per second that a guest reads and writes, of each disk.
    pub disk_bytes_per_second_per_vcpu: u64,
    /// Requests per second, of each disk.
    pub disk_operations_per_second_per_vcpu: u64,
    /// Bytes per second to a guest, and as many from it to what lies beyond its namespace.
    pub network_bytes_per_second_per_vcpu: u64,
}

/// Endpoints' are those of the service (spec section 18.4). Devices' are what no ordinary build or application notices.
impl Default for LimitSettings {
    fn default() -> LimitSettings {
        LimitSettings {
            connections_per_vcpu: 8,
            requests_per_second_per_vcpu: 10,
            bytes_per_second_per_vcpu: 1_000_000,
            disk_bytes_per_second_per_vcpu: 250_000_000,
            disk_operations_per_second_per_vcpu: 20_000,
            network_bytes_per_second_per_vcpu: 125_000_000,
        }
    }
}

impl LimitSettings {
    /// What a guest's devices may move.
    pub(crate) fn io(&self) -> IoPerVcpu {
        IoPerVcpu {
            disk_bytes: self.disk_bytes_per_second_per_vcpu,
            disk_operations: self.disk_operations_per_second_per_vcpu,
            network_bytes: self.network_bytes_per_second_per_vcpu,
        }
    }

    /// A device that moves less than one large request a second is of no use; more than the most is a slip of the pen.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let io = self.io();
        for (name, value, least) in [
            ("disk_bytes", io.disk_bytes, LEAST_BYTES),
            ("disk_operations", io.disk_operations, LEAST_OPERATIONS),
            ("network_bytes", io.network_bytes, LEAST_BYTES),
        ] {
            anyhow::ensure!(
                value == 0 || (least..=MOST).contains(&value),
                "limits.{name}_per_second_per_vcpu is {value}; it must be {least} to {MOST}, or 0, which is no limit"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::check;

    #[test]
    fn limits_of_devices_are_none_or_of_use() {
        let check = |text: &str| check(&format!("[limits]\n{text}"));
        for good in [
            "",
            "disk_bytes_per_second_per_vcpu = 0\ndisk_operations_per_second_per_vcpu = 0\nnetwork_bytes_per_second_per_vcpu = 0",
            "disk_bytes_per_second_per_vcpu = 65536\ndisk_operations_per_second_per_vcpu = 10",
        ] {
            check(good).expect(good);
        }
        for (name, value) in [
            ("disk_bytes_per_second_per_vcpu", "65535"),
            ("disk_operations_per_second_per_vcpu", "9"),
            ("network_bytes_per_second_per_vcpu", "1000"),
            ("network_bytes_per_second_per_vcpu", "1000000000001"),
        ] {
            let error = check(&format!("{name} = {value}")).expect_err(name).to_string();
            assert!(
                error.contains(name) && error.contains(value) && error.contains("or 0"),
                "{error}"
            );
        }
    }
}
