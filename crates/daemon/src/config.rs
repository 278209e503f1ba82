//! The operator's settings. Every one has a default; unknown names are refused.

mod accounts;
mod checks;
mod limits;
mod network;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::Context;
use hearth_admission::Rates;
use hearth_audit::AuditConfig;
use hearth_lifecycle::Quotas;
use hearth_logs::Limits;
use hearth_wire::{Sensitive, enums::ManagedMicrovmImageVersionStatus};
use serde::Deserialize;

use self::accounts::AccountSettings;
pub(crate) use self::{
    limits::LimitSettings,
    network::{NetworkSettings, cidr},
};
use crate::acme::AcmeSettings;

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
    /// `auto` takes Firecracker where it can run, else QEMU; `firecracker` and `qemu` insist.
    pub vmm: VmmChoice,
    /// Firecracker's program.
    pub firecracker: PathBuf,
    /// QEMU's program.
    pub qemu: PathBuf,
    /// `auto` probes KVM; `kvm` and `tcg` insist.
    pub acceleration: AccelerationChoice,
    /// Certificates that builds trust: a PEM file such as the host's own bundle.
    pub trusted_certificates: Option<PathBuf>,
    /// The user and group ids of VMM processes are the 65,536 after this one; each network slot has its own.
    pub first_user_id: u32,
    /// Group that may read images; every VMM is in it beside its own.
    pub group_id: u32,
    /// Builds at a time.
    pub concurrent_builds: usize,
    /// Virtual CPUs of the builder.
    pub builder_vcpus: u32,
    /// Seconds that the Dockerfile of one image may take, or the import of a container base.
    pub build_timeout_seconds: u64,
    /// Seconds until something must listen in an image without a ready hook.
    pub listen_timeout_seconds: u64,
    /// Seconds for which terminated MicroVMs stay readable.
    pub terminated_retention_seconds: u64,
    /// Roles must have been created before they can be used.
    pub strict_roles: bool,
    /// What an account may have; see [`Quotas`].
    pub quotas: Quotas,
    /// Calls a second of an account, by operation; 0 is no limit.
    pub rates: Rates,
    /// What single accounts may have instead.
    pub accounts: BTreeMap<String, AccountSettings>,
    /// The audit log.
    pub audit: AuditSettings,
    /// The build and runtime logs.
    pub logs: Limits,
    /// Days for which usage stays readable.
    pub usage_retention_days: u32,
    /// Credentials that guests with a role get instead of this service's own, by the role's ARN.
    pub roles: BTreeMap<String, RoleSettings>,
    /// Somebody else's S3 service, from which artifacts come that no bucket of this node holds.
    pub external_s3: Option<ExternalS3Settings>,
    /// Versions of the managed base image, newest first.
    pub base_versions: Vec<BaseVersionSettings>,
    /// Chipset generations that every image version is built for, newest first.
    pub chipset_generations: Vec<String>,
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
    /// A public authority that the endpoints' certificate is obtained from.
    pub acme: Option<AcmeSettings>,
    /// What endpoints carry and guests' devices move.
    pub limits: LimitSettings,
    /// What keeps a MicroVM from being idle, beside traffic at its endpoint.
    pub busy: BusySettings,
    /// Ports, or ranges such as `8000-8099`, that MicroVMs may open to everybody, without a token.
    pub public_ports: Vec<String>,
    /// Where traces are sent.
    pub telemetry: TelemetrySettings,
}

/// Where traces are sent; nowhere by default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetrySettings {
    /// Base URL of an OpenTelemetry collector that takes OTLP over HTTP, e.g. `http://127.0.0.1:4318`.
    pub otlp_endpoint: Option<String>,
    /// Headers for it, such as one that authenticates.
    pub otlp_headers: BTreeMap<String, Sensitive>,
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

/// A version of the managed base image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseVersionSettings {
    /// A bare integer, such as `1`.
    pub version: String,
    /// `AVAILABLE`, `DEPRECATED`, `EXPIRING`, `EXPIRED` or `RECALLED`.
    pub status: ManagedMicrovmImageVersionStatus,
}

/// Which VMM is to run the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VmmChoice {
    Auto,
    Firecracker,
    Qemu,
}

/// How guest code is to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AccelerationChoice {
    Auto,
    Kvm,
    Tcg,
}

/// The audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuditSettings {
    /// How large a file grows.
    pub file_bytes: u64,
    /// How many older files are kept.
    pub older_files: u32,
}

impl AuditSettings {
    /// The log in a data directory.
    pub(crate) fn of(&self, data: &Path) -> AuditConfig {
        AuditConfig {
            directory: data.join("audit"),
            file_bytes: self.file_bytes,
            older_files: self.older_files,
        }
    }
}

impl Default for AuditSettings {
    fn default() -> AuditSettings {
        AuditSettings {
            file_bytes: 64 << 20,
            older_files: 10,
        }
    }
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

/// Keys of a role that some other service knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleSettings {
    pub access_key_id: String,
    pub secret_access_key: Sensitive,
    /// Of temporary keys.
    #[serde(default)]
    pub session_token: Sensitive,
}

/// Somebody else's S3 service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalS3Settings {
    /// Its URL.
    pub endpoint: String,
    /// The region of its buckets; the daemon's own when absent.
    pub region: Option<String>,
    /// Keys for every build whose role has none of its own in `roles`.
    pub access_key_id: String,
    pub secret_access_key: Sensitive,
    /// Of temporary keys.
    #[serde(default)]
    pub session_token: Sensitive,
    /// PEM file with the certificates that it is trusted by; those of the machine when absent.
    pub ca: Option<PathBuf>,
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
            vmm: VmmChoice::Auto,
            firecracker: "firecracker".into(),
            qemu: "qemu-system-x86_64".into(),
            acceleration: AccelerationChoice::Auto,
            trusted_certificates: None,
            first_user_id: 2_000_000,
            group_id: 2_000_000,
            concurrent_builds: 1,
            builder_vcpus: 2,
            build_timeout_seconds: 4 * 3600,
            listen_timeout_seconds: 10,
            terminated_retention_seconds: 24 * 3600,
            strict_roles: false,
            quotas: Quotas::default(),
            rates: Rates::default(),
            accounts: BTreeMap::new(),
            audit: AuditSettings::default(),
            logs: Limits::default(),
            usage_retention_days: 400,
            roles: BTreeMap::new(),
            external_s3: None,
            base_versions: ["1", "0"].map(BaseVersionSettings::available).into(),
            chipset_generations: vec!["1".into()],
            pool: PoolSettings::default(),
            network: NetworkSettings::default(),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9780)),
            access_log: true,
            endpoint_certificate: None,
            endpoint_key: None,
            acme: None,
            limits: LimitSettings::default(),
            busy: BusySettings::default(),
            public_ports: Vec::new(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl BaseVersionSettings {
    fn available(version: &str) -> BaseVersionSettings {
        BaseVersionSettings {
            version: version.into(),
            status: ManagedMicrovmImageVersionStatus::Available,
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
    /// The ports that MicroVMs may open to everybody.
    pub(crate) fn public_ports(&self) -> anyhow::Result<Vec<RangeInclusive<u16>>> {
        let range = |text: &String| {
            ports(text).filter(|range| *range.start() > 0).with_context(|| {
                format!("public_ports: {text:?} is neither a port nor a range such as 8000-8099")
            })
        };
        self.public_ports.iter().map(range).collect()
    }
}

/// A port or a range of ports such as `8000-8999`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

/// What is said of these settings.
#[cfg(test)]
fn check(text: &str) -> anyhow::Result<()> {
    toml::from_str::<Settings>(text).expect("readable").check()
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
    fn what_is_no_setting_of_the_logs_keeps_its_default() {
        let read = toml::from_str::<Settings>;
        let settings = read("[logs]\nretention_days = 3").expect("readable");
        let usual = Limits::default();
        assert_eq!(
            (
                settings.logs.retention_days,
                settings.logs.groups_per_account,
                settings.logs.stream_bytes
            ),
            (3, usual.groups_per_account, usual.stream_bytes)
        );
        let error = read("[logs]\ngroups_per_account = 1").expect_err("refused");
        assert!(error.message().contains("groups_per_account"), "{error}");
    }

    #[test]
    fn public_ports_are_ports_or_ranges() {
        let read = |text: &str| toml::from_str::<Settings>(text).expect("readable").public_ports();
        assert_eq!(
            read("public_ports = ['80', '8000-8099']").expect("good"),
            [80..=80, 8000..=8099]
        );
        for bad in ["0", "9-8", "x", "70000", ""] {
            read(&format!("public_ports = ['{bad}']")).expect_err(bad);
        }
    }

    #[test]
    fn the_endpoint_shows_its_port_only_when_it_is_not_the_usual_one() {
        let data = tempfile::tempdir().expect("temp dir");
        let mut config = Config::load(data.path(), None).expect("defaults");
        assert_eq!(config.shown_endpoint_domain(), "microvm.localhost");
        config.settings.endpoint_listen.set_port(8443);
        assert_eq!(config.shown_endpoint_domain(), "microvm.localhost:8443");
    }
}
