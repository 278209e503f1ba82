use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context;
use hearth_lifecycle::NetworkMap;
use hearth_network::{Allowed, Destination, Protocol};
use serde::Deserialize;

use super::ports;

/// The guests' network.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkSettings {
    /// Prefix of names on the host.
    pub prefix: String,
    /// Address range of the links between host and namespaces, e.g. `100.65.0.0/16`.
    pub range: String,
    /// Ready slots.
    pub slots: usize,
    /// Name servers; the host's when empty.
    pub resolvers: Vec<SocketAddr>,
    /// Destinations open although they lie in a private range, e.g. `10.1.0.0/16`.
    pub allow: Vec<String>,
    /// Interfaces towards the Internet; those of the default routes when empty.
    pub uplinks: Vec<String>,
    /// What the subnets of network connectors are on this node.
    pub subnets: BTreeMap<String, SubnetSettings>,
    /// What the security groups of network connectors are on this node.
    pub security_groups: BTreeMap<String, SecurityGroupSettings>,
}

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubnetSettings {
    /// Address ranges it reaches, e.g. `10.1.0.0/16`.
    pub ranges: Vec<String>,
}

/// A security group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecurityGroupSettings {
    /// Destinations it allows.
    pub allow: Vec<AllowSettings>,
}

/// Destinations that are allowed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowSettings {
    /// An address range such as `10.1.0.0/16`, or a host name such as `api.example.com` or `*.example.com`.
    pub to: String,
    /// Both when absent.
    pub protocol: Option<ProtocolSetting>,
    /// One port or a range such as `8000-8999`; all when absent.
    pub ports: Option<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProtocolSetting {
    Tcp,
    Udp,
}

impl Default for NetworkSettings {
    fn default() -> NetworkSettings {
        NetworkSettings {
            prefix: "hearth".into(),
            range: "100.65.0.0/16".into(),
            slots: 2,
            resolvers: Vec::new(),
            allow: Vec::new(),
            uplinks: Vec::new(),
            subnets: BTreeMap::new(),
            security_groups: BTreeMap::new(),
        }
    }
}

impl NetworkSettings {
    /// What subnets and security groups mean on this node.
    pub(crate) fn map(&self) -> anyhow::Result<NetworkMap> {
        let mut map = NetworkMap::default();
        for (id, subnet) in &self.subnets {
            let ranges = subnet.ranges.iter().map(|text| text.parse());
            let ranges = ranges
                .collect::<Result<_, _>>()
                .with_context(|| format!("network.subnets.{id} is wrong"))?;
            map.subnets.insert(id.clone(), ranges);
        }
        for (id, group) in &self.security_groups {
            let allowed = group.allow.iter().map(AllowSettings::read);
            let allowed = allowed
                .collect::<anyhow::Result<_>>()
                .with_context(|| format!("network.security_groups.{id} is wrong"))?;
            map.security_groups.insert(id.clone(), allowed);
        }
        Ok(map)
    }
}

impl AllowSettings {
    fn read(&self) -> anyhow::Result<Allowed> {
        let destination = if self.to.contains('/') {
            Destination::Range(self.to.parse()?)
        } else {
            Destination::Name(self.to.parse()?)
        };
        let ports = self.ports.as_deref().map_or(Some(0..=u16::MAX), ports);
        let ports = ports.with_context(|| {
            let given = self.ports.as_deref().unwrap_or_default();
            format!("{given:?} is neither a port nor a range of ports such as 8000-8999")
        })?;
        Ok(Allowed {
            destination,
            protocol: self.protocol.map(|protocol| match protocol {
                ProtocolSetting::Tcp => Protocol::Tcp,
                ProtocolSetting::Udp => Protocol::Udp,
            }),
            ports,
        })
    }
}

/// Reads `a.b.c.d/n`.
pub(crate) fn cidr(text: &str) -> anyhow::Result<(Ipv4Addr, u8)> {
    let read = || {
        Some(text.split_once('/')?)
            .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)))
    };
    read().with_context(|| format!("{text:?} is not an address range such as 10.1.0.0/16"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn subnets_and_security_groups_are_read_or_refused_by_name() {
        let load = |text: &str| {
            let data = tempfile::tempdir().expect("temp dir");
            std::fs::write(data.path().join("hearthd.toml"), text).expect("written");
            Config::load(data.path(), None)
                .map(|config| config.settings.network.map().expect("checked"))
                .map_err(|error| format!("{error:#}"))
        };
        let map = load(
            "[network.subnets.subnet-a]\nranges = ['10.1.0.0/16']\n\
             [network.security_groups.sg-a]\n\
             allow = [{ to = '*.example.com', protocol = 'tcp', ports = '443' }, { to = '10.1.0.0/24' }]\n",
        )
        .expect("good");
        assert_eq!(map.subnets["subnet-a"].len(), 1);
        assert_eq!(map.security_groups["sg-a"][0].ports, 443..=443);
        assert_eq!(map.security_groups["sg-a"][1].ports, 0..=65535);
        for (text, told) in [
            (
                "[network.subnets.subnet-a]\nranges = ['169.254.0.0/16']\n",
                "never",
            ),
            (
                "[network.security_groups.sg-a]\nallow = [{ to = '10.0.0.0/8', ports = '9-8' }]\n",
                "9-8",
            ),
            (
                "[network.security_groups.sg-a]\nallow = [{ to = 'a b' }]\n",
                "sg-a",
            ),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn ranges_are_read_or_refused() {
        assert_eq!(
            cidr("10.1.0.0/16").expect("good"),
            (Ipv4Addr::new(10, 1, 0, 0), 16)
        );
        for wrong in ["10.1.0.0", "10.1/16", "x/8", "10.0.0.0/x"] {
            assert!(cidr(wrong).is_err(), "{wrong}");
        }
    }
}
