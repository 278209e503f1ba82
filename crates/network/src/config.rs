use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::NetworkError;

/// How a [`crate::Network`] is set up. Two daemons on one machine need different prefixes, ranges and state directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How many slots are kept ready.
    pub pool_size: usize,
    /// Addresses of the links between host and namespaces, two per slot; at most a /15 is used.
    pub range: (Ipv4Addr, u8),
    /// Where the guests' name lookups go; empty for the name servers in the host's `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// Prefix of interface, table and namespace names: one to nine of `a-z` and `0-9`, starting with a letter.
    pub prefix: String,
    /// Where namespaces are kept alive as bind mounts. It must lie in the host's own mount namespace.
    pub state_directory: PathBuf,
    /// Destinations that guests may reach although they lie in a closed range. Addresses of the host stay closed.
    pub allow: Vec<(Ipv4Addr, u8)>,
    /// Interfaces towards the Internet; empty for those of the host's default routes.
    pub uplinks: Vec<String>,
    /// Group that may attach to the guests' taps, beside root, from inside their namespaces.
    pub tap_group: Option<u32>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            pool_size: 4,
            range: (Ipv4Addr::new(100, 65, 0, 0), 16),
            resolvers: Vec::new(),
            prefix: "hearth".into(),
            state_directory: "/run/hearth/netns".into(),
            allow: Vec::new(),
            uplinks: Vec::new(),
            tap_group: None,
        }
    }
}

/// Longest prefix: an interface name has 15 bytes, a hyphen and five digits of index included.
const MAX_PREFIX: usize = 9;

impl NetworkConfig {
    /// Refuses what the kernel would refuse later, with the reason.
    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        let refuse = |text: String| Err(NetworkError::Config(text));
        let well_formed = self
            .prefix
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && self.prefix.starts_with(|c: char| c.is_ascii_lowercase());
        if !well_formed || self.prefix.len() > MAX_PREFIX {
            return refuse(format!(
                "prefix {:?} must be one to {MAX_PREFIX} of a-z and 0-9 and start with a letter",
                self.prefix
            ));
        }
        if self.range.1 > 30 || self.range.1 < 8 {
            return refuse(format!(
                "range {}/{} must have a prefix length of 8 to 30",
                self.range.0, self.range.1
            ));
        }
        for &(address, length) in self.allow.iter().chain([&self.range]) {
            if length > 32 || u32::from(address) & !mask(length) != 0 {
                return refuse(format!(
                    "{address}/{length} is not a network address with its prefix length"
                ));
            }
        }
        if !self.state_directory.is_absolute() {
            return refuse(format!(
                "state directory {} must be an absolute path",
                self.state_directory.display()
            ));
        }
        for name in &self.uplinks {
            if name.is_empty() || name.len() > 15 || name.contains('/') || name.starts_with('.') {
                return refuse(format!("{name:?} is not an interface name"));
            }
        }
        Ok(())
    }

    /// How many slots the range holds.
    pub(crate) fn capacity(&self) -> u32 {
        (1u32 << (31 - u32::from(self.range.1))).min(1 << 16)
    }

    /// Name of a slot, of its namespace and of its interface on the host.
    pub(crate) fn name(&self, index: u16) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// The inverse of [`Self::name`]; `None` for a name that is not ours or outside the range.
    pub(crate) fn index(&self, name: &str) -> Option<u16> {
        let index: u16 = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()?;
        (u32::from(index) < self.capacity() && self.name(index) == name).then_some(index)
    }

    /// Both addresses of a slot's /31 link: the host's and the namespace's.
    pub(crate) fn link(&self, index: u16) -> (Ipv4Addr, Ipv4Addr) {
        let first = u32::from(self.range.0) + 2 * u32::from(index);
        (first.into(), (first + 1).into())
    }

    /// Where a slot's namespace is mounted.
    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        self.state_directory.join(name)
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_defaults_are_accepted_and_hold_32768_slots() {
        let config = NetworkConfig::default();
        config.check().expect("defaults are valid");
        assert_eq!(config.capacity(), 32768);
        assert_eq!(
            config.link(0),
            (Ipv4Addr::new(100, 65, 0, 0), Ipv4Addr::new(100, 65, 0, 1))
        );
        assert_eq!(config.link(32767).1, Ipv4Addr::new(100, 65, 255, 255));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_reason() {
        let with = |change: fn(&mut NetworkConfig)| {
            let mut config = NetworkConfig::default();
            change(&mut config);
            config.check().expect_err("must be refused").to_string()
        };
        for prefix in ["", "Hearth", "1st", "a-b", "tenletters", "a*"] {
            let config = NetworkConfig {
                prefix: prefix.into(),
                ..NetworkConfig::default()
            };
            assert!(config.check().is_err(), "{prefix:?}");
        }
        assert!(with(|c| c.range = (Ipv4Addr::new(10, 0, 0, 0), 31)).contains("8 to 30"));
        assert!(with(|c| c.range = (Ipv4Addr::new(10, 0, 0, 1), 24)).contains("not a network address"));
        assert!(with(|c| c.allow = vec![(Ipv4Addr::new(10, 0, 0, 0), 33)]).contains("10.0.0.0/33"));
        assert!(with(|c| c.state_directory = "netns".into()).contains("absolute"));
        assert!(with(|c| c.uplinks = vec!["../../x".into()]).contains("interface name"));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let config = NetworkConfig {
            range: (Ipv4Addr::new(10, 9, 0, 0), 24),
            ..NetworkConfig::default()
        };
        for name in [
            "hearth",
            "hearth-",
            "hearth-x",
            "hearth-01",
            "hearth-+1",
            "hearth2-1",
            "hearth-128",
            "../hearth-1",
        ] {
            assert_eq!(config.index(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_index_has_its_own_name_and_link(a in 0u16..32768, b in 0u16..32768) {
            let config = NetworkConfig::default();
            prop_assert_eq!(config.index(&config.name(a)), Some(a));
            prop_assert!(config.name(a).len() <= 15);
            let (x, y) = (config.link(a), config.link(b));
            prop_assert_eq!(a == b, x == y);
            prop_assert!(x.0 != y.1);
        }
    }
}
