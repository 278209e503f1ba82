use std::collections::HashSet;

use anyhow::Context;
use hearth_admission::is_operation;
use hearth_logs::MAX_MESSAGE_BYTES;

use super::Settings;

/// Users and groups that VMMs may have: as many as network slots.
const USERS: u32 = 65_536;

impl Settings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for account in self.accounts.keys().chain([&self.account]) {
            let is_good = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            anyhow::ensure!(is_good, "account {account:?} must have twelve digits");
        }
        let of_accounts = self.accounts.values().flat_map(|account| account.rates.keys());
        for operation in self.rates.0.keys().chain(of_accounts) {
            anyhow::ensure!(
                is_operation(operation),
                "a rate is set for {operation}, which is no operation"
            );
        }
        self.quotas_of_accounts()?;
        self.network.map()?;
        self.public_ports()?;
        self.check_versions()?;
        self.limits.check()?;
        self.check_logs()?;
        anyhow::ensure!(self.concurrent_builds > 0, "concurrent_builds must be at least 1");
        anyhow::ensure!(
            self.endpoint_certificate.is_some() == self.endpoint_key.is_some(),
            "endpoint_certificate and endpoint_key belong together: set both or neither"
        );
        if let Some(acme) = &self.acme {
            anyhow::ensure!(
                self.endpoint_certificate.is_none(),
                "acme and endpoint_certificate exclude each other: set one of them"
            );
            acme.check(&self.endpoint_domain)?;
        }
        let users = self.first_user_id.checked_add(USERS);
        let users = users.context("first_user_id leaves no room for 65,536 users")?;
        anyhow::ensure!(
            self.first_user_id > 0 && !(self.first_user_id + 1..=users).contains(&self.group_id),
            "first_user_id must not be 0, and group_id must not be one of the 65,536 after it: each VMM has a group of its own"
        );
        anyhow::ensure!(self.builder_vcpus > 0, "builder_vcpus must be at least 1");
        Ok(())
    }

    /// A rate that no line fits into would drop them all.
    fn check_logs(&self) -> anyhow::Result<()> {
        let logs = &self.logs;
        anyhow::ensure!(
            logs.bytes_per_second > 0,
            "logs.bytes_per_second must be at least 1"
        );
        let least = 2 * MAX_MESSAGE_BYTES as u64;
        anyhow::ensure!(
            logs.burst_bytes >= least,
            "logs.burst_bytes is {}; it must be at least {least}: the longest line must fit",
            logs.burst_bytes
        );
        Ok(())
    }

    fn check_versions(&self) -> anyhow::Result<()> {
        let versions: Vec<&str> = self
            .base_versions
            .iter()
            .map(|base| base.version.as_str())
            .collect();
        let is_number = |text: &&str| {
            text.parse::<u32>()
                .is_ok_and(|number| number.to_string() == **text)
        };
        anyhow::ensure!(
            !versions.is_empty() && versions.iter().all(is_number),
            "base_versions needs at least one version, and each must be a number such as \"1\""
        );
        anyhow::ensure!(are_different(&versions), "base_versions names a version twice");
        let generations = &self.chipset_generations;
        let is_word = |text: &String| !text.is_empty() && !text.contains(char::is_whitespace);
        anyhow::ensure!(
            !generations.is_empty() && generations.iter().all(is_word),
            "chipset_generations needs at least one name, without spaces"
        );
        anyhow::ensure!(
            are_different(generations),
            "chipset_generations names a generation twice"
        );
        Ok(())
    }
}

fn are_different<T: Eq + std::hash::Hash>(items: &[T]) -> bool {
    items.iter().collect::<HashSet<_>>().len() == items.len()
}

#[cfg(test)]
mod tests {
    use crate::config::check;

    #[test]
    fn versions_and_generations_are_checked() {
        for good in [
            "",
            "base_versions = [{ version = \"2\", status = \"AVAILABLE\" }, { version = \"1\", status = \"RECALLED\" }]",
            "chipset_generations = [\"4\", \"3\"]",
        ] {
            check(good).expect(good);
        }
        for bad in [
            "base_versions = []",
            "base_versions = [{ version = \"1.0\", status = \"AVAILABLE\" }]",
            "base_versions = [{ version = \"1\", status = \"EXPIRED\" }, { version = \"1\", status = \"AVAILABLE\" }]",
            "chipset_generations = []",
            "chipset_generations = [\"4\", \"4\"]",
            "chipset_generations = [\"a b\"]",
        ] {
            check(bad).expect_err(bad);
        }
    }

    #[test]
    fn the_logs_rate_has_room_for_a_line() {
        let check = |text: &str| check(&format!("[logs]\n{text}"));
        check("bytes_per_second = 1\nburst_bytes = 524288").expect("good");
        for bad in ["bytes_per_second = 0", "burst_bytes = 524287"] {
            let name = bad.split(' ').next().expect("a name");
            let error = check(bad).expect_err(bad).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
