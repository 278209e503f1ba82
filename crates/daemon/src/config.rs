//! The operator's settings. Every one has a default; unknown names are refused.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::Context;
use hearth_admission::{Rates, is_operation};
use hearth_audit::AuditConfig;
use hearth_guest::IoPerVcpu;
use hearth_lifecycle::{NetworkMap, Quotas};
use hearth_logs::{Limits, MAX_MESSAGE_BYTES};
use hearth_network::{Allowed, Destination, Protocol};
use hearth_wire::{Sensitive, enums::ManagedMicrovmImageVersionStatus};
use serde::Deserialize;

use crate::acme::AcmeSettings;

/// Users and groups that VMMs may have: as many as network slots.
const USERS: u32 = 65_536;

/// Limits of devices, a second and virtual CPU.
const LEAST_BYTES: u64 = 65_536;
const LEAST_OPERATIONS: u64 = 10;
const MOST: u64 = 1_000_000_000_000;

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

/// What an account may have instead of what others may.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccountSettings {
    /// Those named here; the others are as for every account.
    pub quotas: toml::Table,
    /// Those named here; the others are as for every account.
    pub rates: BTreeMap<String, u32>,
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
    fn check(&self) -> anyhow::Result<()> {
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
        let ports = || {
            let Some(text) = &self.ports else {
                return Some(0..=u16::MAX);
            };
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some(first..=last)
        };
        let ports = ports().with_context(|| {
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

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
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
}

impl Settings {
    /// The ports that MicroVMs may open to everybody.
    pub(crate) fn public_ports(&self) -> anyhow::Result<Vec<RangeInclusive<u16>>> {
        let range = |text: &String| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
            port(first)
                .zip(port(last))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| first..=last)
                .with_context(|| {
                    format!("public_ports: {text:?} is neither a port nor a range such as 8000-8099")
                })
        };
        self.public_ports.iter().map(range).collect()
    }

    /// The rates of accounts that have rates of their own.
    pub(crate) fn rates_of_accounts(&self) -> HashMap<String, Rates> {
        let own = |settings: &AccountSettings| self.rates.clone().overridden_by(&settings.rates);
        self.accounts
            .iter()
            .map(|(account, settings)| (account.clone(), own(settings)))
            .collect()
    }

    /// The quotas of accounts that have quotas of their own.
    pub(crate) fn quotas_of_accounts(&self) -> anyhow::Result<HashMap<String, Quotas>> {
        let own = |(account, settings): (&String, &AccountSettings)| {
            let mut quotas = toml::Table::try_from(&self.quotas)?;
            quotas.extend(settings.quotas.clone());
            let quotas = quotas
                .try_into()
                .with_context(|| format!("the quotas of account {account} are wrong"))?;
            Ok((account.clone(), quotas))
        };
        self.accounts.iter().map(own).collect()
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

    /// What is said of these settings.
    fn check(text: &str) -> anyhow::Result<()> {
        toml::from_str::<Settings>(text).expect("readable").check()
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let data = tempfile::tempdir().expect("temp dir");
        std::fs::write(data.path().join("hearthd.toml"), "memory_quota = 1\n").expect("written");
        let error = format!("{:#}", Config::load(data.path(), None).expect_err("refused"));
        assert!(error.contains("memory_quota"), "{error}");
    }

    #[test]
    fn an_account_has_its_own_quotas_and_rates_and_the_rest_of_everybodys() {
        let text = "[quotas]\nimages = 7\n[rates]\nGetMicrovm = 3\n\
                    [accounts.111122223333.quotas]\nmemory_mib = 1024\n[accounts.111122223333.rates]\nRunMicrovm = 0\n";
        let settings: Settings = toml::from_str(text).expect("settings");
        settings.check().expect("good");
        let quotas = &settings.quotas_of_accounts().expect("good")["111122223333"];
        assert_eq!((quotas.images, quotas.memory_mib), (7, 1024));
        let rates = &settings.rates_of_accounts()["111122223333"].0;
        assert_eq!(
            (rates["RunMicrovm"], rates["GetMicrovm"], rates["SuspendMicrovm"]),
            (0, 3, 2)
        );
    }

    #[test]
    fn rates_and_quotas_of_nothing_are_refused_by_name() {
        for (text, name) in [
            ("[rates]\nRunMicroVM = 1\n", "RunMicroVM"),
            ("[accounts.111122223333.quotas]\nimagse = 1\n", "imagse"),
            ("[accounts.1]\n", "\"1\""),
        ] {
            let error = format!("{:#}", check(text).expect_err("refused"));
            assert!(error.contains(name), "{error}");
        }
    }

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
