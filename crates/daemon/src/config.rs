//! The operator's settings. Every one has a default; unknown names are refused.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

/// All settings, with the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub data: PathBuf,
    pub settings: Settings,
}

/// The settings file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the AWS APIs are served.
    pub listen: SocketAddr,
    /// Where the MicroVMs' endpoints are served.
    pub endpoint_listen: SocketAddr,
    /// Parent domain of all endpoints.
    pub endpoint_domain: String,
    /// Region that `hearth env` sets; requests may name any.
    pub region: String,
    /// Account of the first key: twelve digits.
    pub account: String,
    /// Directory of kernel, initramfs, builder and container bases; `<data>/base` when absent.
    pub base: Option<PathBuf>,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// `auto` probes KVM; `kvm` and `tcg` insist.
    pub acceleration: AccelerationChoice,
    /// Certificates that builds trust: a PEM file such as the host's own bundle.
    pub trusted_certificates: Option<PathBuf>,
    /// First user id of VMM processes; each network slot has its own.
    pub first_user_id: u32,
    /// Group id of VMM processes.
    pub group_id: u32,
    /// Builds at a time.
    pub concurrent_builds: usize,
    /// Virtual CPUs of the builder.
    pub builder_vcpus: u32,
    /// Seconds until something must listen in an image without a ready hook.
    pub listen_timeout_seconds: u64,
    /// Seconds for which terminated MicroVMs stay readable.
    pub terminated_retention_seconds: u64,
    /// Baseline memory of all MicroVMs of an account, in MiB.
    pub memory_quota_mib: u64,
    /// Processes started ahead.
    pub pool: PoolSettings,
    /// The guests' network.
    pub network: NetworkSettings,
    /// Where metrics and the activity of MicroVMs are served, in clear and without a key: keep it on loopback.
    pub admin_listen: SocketAddr,
    /// Whether every request at an endpoint is logged.
    pub access_log: bool,
    /// Certificate chain (PEM) of the endpoints, for `*.<endpoint_domain>`; the daemon's own when absent.
    pub endpoint_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub endpoint_key: Option<PathBuf>,
    /// What endpoints carry.
    pub limits: LimitSettings,
    /// What keeps a MicroVM from being idle, beside traffic at its endpoint.
    pub busy: BusySettings,
}

/// What keeps a MicroVM from being idle, beside traffic at its endpoint. All off: the service's own rule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BusySettings {
    /// Use of one host CPU, in percent, from which it is busy; 0 is off.
    pub cpu_percent: u32,
    /// Whether a lease counts while it lasts.
    pub leases: bool,
    /// Whether an open stream, tunnel or shell counts although nothing moves.
    pub open_streams: bool,
}

/// What one endpoint carries, for each virtual CPU of its MicroVM's size; 0 is no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitSettings {
    /// Client connections at a time.
    pub connections_per_vcpu: u32,
    /// Requests per second.
    pub requests_per_second_per_vcpu: u32,
    /// Bytes per second each way.
    pub bytes_per_second_per_vcpu: u64,
}

/// How guest code is to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccelerationChoice {
    Auto,
    Kvm,
    Tcg,
}

/// Processes started ahead.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PoolSettings {
    /// For each hot image version.
    pub per_image: usize,
    /// For all together.
    pub total: usize,
}

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
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9700)),
            endpoint_listen: SocketAddr::from(([127, 0, 0, 1], 443)),
            endpoint_domain: "microvm.localhost".into(),
            region: "us-east-1".into(),
            account: "000000000001".into(),
            base: None,
            qemu: "qemu-system-x86_64".into(),
            acceleration: AccelerationChoice::Auto,
            trusted_certificates: None,
            first_user_id: 2_000_000,
            group_id: 2_000_000,
            concurrent_builds: 1,
            builder_vcpus: 2,
            listen_timeout_seconds: 10,
            terminated_retention_seconds: 24 * 3600,
            memory_quota_mib: 400 * 1024,
            pool: PoolSettings::default(),
            network: NetworkSettings::default(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9780)),
            access_log: true,
            endpoint_certificate: None,
            endpoint_key: None,
            limits: LimitSettings::default(),
            busy: BusySettings::default(),
        }
    }
}

/// Those of the service (spec section 18.4).
impl Default for LimitSettings {
    fn default() -> LimitSettings {
        LimitSettings {
            connections_per_vcpu: 8,
            requests_per_second_per_vcpu: 10,
            bytes_per_second_per_vcpu: 1_000_000,
        }
    }
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings {
            per_image: 1,
            total: 4,
        }
    }
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
        }
    }
}

impl Config {
    /// Reads the settings file, if one is named or lies in the data directory.
    pub(crate) fn load(data: &Path, file: Option<&Path>) -> anyhow::Result<Config> {
        let own = data.join("hearthd.toml");
        let file = file.or(own.exists().then_some(own.as_path()));
        let settings: Settings = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the settings file {}", file.display()))?;
                toml::from_str(&text)
                    .with_context(|| format!("the settings file {} is wrong", file.display()))?
            }
            None => Settings::default(),
        };
        settings.check()?;
        Ok(Config {
            data: data.to_owned(),
            settings,
        })
    }

    /// Directory of what guests boot from.
    pub(crate) fn base(&self) -> PathBuf {
        self.settings
            .base
            .clone()
            .unwrap_or_else(|| self.data.join("base"))
    }

    /// The endpoint domain as endpoints show it: with the port when it is not 443.
    pub(crate) fn shown_endpoint_domain(&self) -> String {
        match self.settings.endpoint_listen.port() {
            443 => self.settings.endpoint_domain.clone(),
            port => format!("{}:{port}", self.settings.endpoint_domain),
        }
    }

    /// Directory of what does not outlive a reboot.
    pub(crate) fn runtime(&self) -> PathBuf {
        PathBuf::from("/run").join(&self.settings.network.prefix)
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        let account_is_good =
            self.account.len() == 12 && self.account.bytes().all(|byte| byte.is_ascii_digit());
        anyhow::ensure!(
            account_is_good,
            "account {:?} must have twelve digits",
            self.account
        );
        anyhow::ensure!(self.concurrent_builds > 0, "concurrent_builds must be at least 1");
        anyhow::ensure!(
            self.endpoint_certificate.is_some() == self.endpoint_key.is_some(),
            "endpoint_certificate and endpoint_key belong together: set both or neither"
        );
        anyhow::ensure!(self.builder_vcpus > 0, "builder_vcpus must be at least 1");
        Ok(())
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

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let data = tempfile::tempdir().expect("temp dir");
        std::fs::write(data.path().join("hearthd.toml"), "memory_quota = 1\n").expect("written");
        let error = format!("{:#}", Config::load(data.path(), None).expect_err("refused"));
        assert!(error.contains("memory_quota"), "{error}");
    }

    #[test]
    fn the_endpoint_shows_its_port_only_when_it_is_not_the_usual_one() {
        let data = tempfile::tempdir().expect("temp dir");
        let mut config = Config::load(data.path(), None).expect("defaults");
        assert_eq!(config.shown_endpoint_domain(), "microvm.localhost");
        config.settings.endpoint_listen.set_port(8443);
        assert_eq!(config.shown_endpoint_domain(), "microvm.localhost:8443");
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
