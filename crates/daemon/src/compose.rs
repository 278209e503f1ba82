//! Builds every room in order and runs the listeners.

use std::{
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use anyhow::Context;
use hearth_admission::{Admission, Throttle};
use hearth_audit::Audit;
use hearth_builder::{Builder, BuilderConfig};
use hearth_external_s3::{ExternalConfig, ExternalS3, Keys};
use hearth_gateway::{GatewayConfig, Metrics, ca::Authority, certificates};
use hearth_guest::{BaseImage, Host, HostConfig, Pool, pool::PoolConfig};
use hearth_iam::{Authorizer, Iam};
use hearth_lifecycle::{BaseVersion, BusyRules, LifecycleConfig, Node, Service};
use hearth_logs::{Logs, LogsService};
use hearth_metadata::{ApiAccess, Metadata};
use hearth_network::{API_ADDRESS, Network, NetworkConfig};
use hearth_state::State;
use hearth_storage::{disk, objects::Objects};
use hearth_usage::Usage;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acme,
    adapters::{Endpoints, Images, LogService, S3Keys, s3_service},
    admin, client,
    config::{Config, Settings, cidr},
    lock, roles, secrets, vmm,
};

/// This daemon's `oom_score_adj`: when memory runs out, the kernel ends nearly everything else before it.
const LAST_TO_END: i16 = -900;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that finds no room on the disk is lost. Complaining of that to the same file would panic.
        .log_internal_errors(false)
        .init();
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "hearthd must run as root: it makes namespaces and users for VMMs"
    );
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(config))
}

/// A MicroVM takes several open files, as does each of its connections: more than the usual limit of a shell or of systemd.
fn open_as_many_files_as_may_be() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    if let Err(error) = open_as_many_files_as_may_be() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", LAST_TO_END.to_string()) {
        tracing::warn!(%error, "this daemon goes unprotected when memory runs out: it needs CAP_SYS_RESOURCE");
    }
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("cannot make {}", config.data.display()))?;
    disk::give(&config.data, None, None, 0o711)?;
    let _lock = lock::take(&config.data, lock::PATIENCE)?;
    let settings = &config.settings;
    let stop = CancellationToken::new();
    let telemetry = match &settings.telemetry.otlp_endpoint {
        Some(endpoint) => {
            let headers = settings.telemetry.otlp_headers.iter();
            let headers = headers
                .map(|(name, value)| (name.clone(), value.0.clone()))
                .collect();
            Some(hearth_telemetry::start(endpoint, headers).context("`telemetry` in hearthd.toml is wrong")?)
        }
        None => None,
    };

    let state = State::open(&config.data.join("state.db")).await?;
    let secrets = secrets::load(&state).await?;
    let iam_settings = hearth_iam::Settings {
        strict_roles: settings.strict_roles,
    };
    let iam = Iam::open(
        state.clone(),
        secrets.session_key,
        iam_settings,
        &settings.account,
    )
    .await
    .context("the access keys cannot be read")?;
    let authority = Authority::load_or_create(&config.data.join("ca"))?;
    let renewer = acme::renewer(&config)?;
    let control_listener = bind(settings.listen, "listen").await?;
    let endpoint_listener = bind(settings.endpoint_listen, "endpoint_listen").await?;
    let admin_listener = bind(settings.admin_listen, "admin_listen").await?;
    let first_key = iam
        .first_administrator()
        .context("there is no administrator's key")?;
    client::write(&config, &first_key, authority.ca_pem()).context("cannot write the files for clients")?;

    let vmm = vmm::choose(settings)?;
    let platform = vmm.driver.platform();
    tracing::info!(vmm = platform.driver, version = platform.version, acceleration = ?platform.acceleration, because = vmm.because, "driver");
    let network = Network::start(network_config(&config)?).await?;
    let host_config = HostConfig {
        run_directory: config.data.join("run"),
        first_user_id: settings.first_user_id,
        group_id: settings.group_id,
        writable_memory_files: vmm.writable_memory_files,
        base: base_image(&config.base(), settings.group_id)?,
        cgroup: settings.network.prefix.clone(),
        io_per_vcpu: settings.limits.io(),
    };
    let host = Host::new(vmm.driver, network.clone(), host_config)?;
    let pool = Pool::new(
        host.clone(),
        PoolConfig {
            per_snapshot: settings.pool.per_image,
            total: settings.pool.total,
        },
    );
    // A builder is needed now and then: none waits for the next.
    let builder_pool = Pool::new(
        host.clone(),
        PoolConfig {
            per_snapshot: 0,
            total: 0,
        },
    );
    let objects = Objects::open(&config.data.join("objects")).await?;
    let logs = Logs::open_with(&config.data.join("logs"), settings.logs.clone()).await?;
    let audit = Audit::open(settings.audit.of(&config.data)).context("the audit log cannot be opened")?;
    let usage = Usage::open(state.clone(), days(settings.usage_retention_days)).await?;
    let builder = Builder::new(host.clone(), builder_pool, builder_config(&config)?)?;
    let access = ApiAccess {
        address: reachable(settings.listen),
        url: format!("https://{API_ADDRESS}"),
        ca_pem: authority.ca_pem().to_owned(),
    };
    let issuer = roles::Issuer::new(settings.roles.clone(), iam.clone());
    let metadata = Metadata::new(&secrets.metadata_key, Arc::new(issuer), access);
    let node = Node {
        state: state.clone(),
        objects: objects.clone(),
        external_s3: external_s3(settings)?,
        logs: logs.clone(),
        iam: iam.clone(),
        usage: usage.clone(),
        audit: audit.clone(),
        host: host.clone(),
        pool: pool.clone(),
        metadata,
        builder: builder.clone(),
        config: LifecycleConfig {
            directory: config.data.clone(),
            endpoint_domain: config.shown_endpoint_domain(),
            concurrent_builds: settings.concurrent_builds,
            listen_timeout: Duration::from_secs(settings.listen_timeout_seconds),
            terminated_retention: Duration::from_secs(settings.terminated_retention_seconds),
            quotas: settings.quotas.clone(),
            quotas_of_accounts: settings.quotas_of_accounts()?,
            network: settings.network.map()?,
            base_versions: base_versions(&config),
            chipset_generations: settings.chipset_generations.clone(),
            busy: BusyRules {
                cpu_percent: settings.busy.cpu_percent,
                leases: settings.busy.leases,
                attached: settings.busy.open_streams,
            },
            public_ports: settings.public_ports()?,
        },
    };
    let keyring = Arc::new(RwLock::new(secrets.keyring));
    let service = Service::start(node, keyring.clone(), secrets.page_key).await?;
    network.prefill().await?;
    builder
        .prepare()
        .await
        .context("the builder cannot be prepared")?;

    let guard = Arc::new(Admission::new(
        Authorizer::new(iam.clone(), Arc::new(Images(service.clone()))),
        Throttle::new(settings.rates.clone(), settings.rates_of_accounts()),
        audit,
    ));
    let s3 = hearth_s3::S3::new(objects, Arc::new(S3Keys(iam.clone())), guard.clone());
    let services = hearth_api::Services {
        control_plane: Arc::new(service.clone()),
        iam,
        guard,
        s3: s3_service(s3),
        logs: Arc::new(LogService(LogsService::new(logs))),
    };
    let names = vec![
        "localhost".into(),
        "127.0.0.1".into(),
        settings.listen.ip().to_string(),
        API_ADDRESS.to_string(),
    ];
    let control_tls = authority.server_config(&names, &["h2", "http/1.1"])?;
    let endpoint_names = vec![
        format!("*.{}", settings.endpoint_domain),
        settings.endpoint_domain.clone(),
    ];
    let endpoint_alpn = ["h2", "http/1.1"];
    let endpoint_tls = match (&settings.endpoint_certificate, &settings.endpoint_key, &renewer) {
        (Some(certificate), Some(key), _) => certificates::server_config(certificate, key, &endpoint_alpn)
            .context("the endpoints' own certificate cannot be used")?,
        (_, _, Some(renewer)) => {
            let until_there_is_one = authority.certificate(&endpoint_names)?;
            certificates::server_config_or(renewer.certificate(), until_there_is_one, &endpoint_alpn)?
        }
        _ => authority.server_config(&endpoint_names, &endpoint_alpn)?,
    };
    let metrics = Metrics::default();
    let control = hearth_api::serve(
        control_listener,
        control_tls,
        hearth_api::ApiConfig::default(),
        services,
        stop.clone().cancelled_owned(),
    );
    let gateway = hearth_gateway::serve(
        vec![endpoint_listener],
        endpoint_tls,
        GatewayConfig {
            access_log: settings.access_log,
            ..GatewayConfig::new(&settings.endpoint_domain)
        },
        Arc::new(Endpoints {
            service: service.clone(),
            limits: settings.limits.clone(),
        }),
        keyring,
        metrics.clone(),
        stop.clone(),
    );
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    vmm::register(host.driver().platform(), &mut registry);
    if let Some(renewer) = renewer {
        renewer.register(&mut registry);
        renewer.start(stop.clone());
    }
    let admin = admin::Admin {
        registry,
        service: service.clone(),
    };
    tokio::spawn(admin::serve(admin_listener, admin, stop.clone()));
    let (control, gateway) = (tokio::spawn(control), tokio::spawn(gateway));
    tracing::info!(api = %settings.listen, endpoints = %settings.endpoint_listen, "hearthd is ready");
    told_to_stop().await?;
    tracing::info!("stopping; MicroVMs go on");
    stop.cancel();
    let _both_ended = tokio::join!(control, gateway);
    pool.stop().await;
    host.close();
    network.stop().await?;
    usage.flush().await?;
    state.close().await;
    if let Some(telemetry) = telemetry {
        telemetry.stop().await;
    }
    Ok(())
}

fn days(days: u32) -> Duration {
    Duration::from_secs(24 * 3600) * days
}

async fn told_to_stop() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}. Free it, or set `{setting}` in hearthd.toml"))
}

/// Where this machine itself reaches a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(address) if address.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

fn base_versions(config: &Config) -> Vec<BaseVersion> {
    let versions = config.settings.base_versions.iter();
    versions
        .map(|base| BaseVersion {
            version: base.version.clone(),
            status: base.status,
        })
        .collect()
}

/// What guests boot from, readable for VMMs.
fn base_image(base: &Path, group: u32) -> anyhow::Result<BaseImage> {
    let missing = || {
        format!(
            "the base image is not there ({}). Make it: make prepare",
            base.display()
        )
    };
    let kernel_release = std::fs::read_to_string(base.join("kernel-release")).with_context(missing)?;
    let image = BaseImage {
        kernel: base.join("vmlinuz"),
        kernel_elf: base.join("vmlinux"),
        initramfs: base.join("initramfs.cpio"),
        kernel_release: kernel_release.trim().to_owned(),
    };
    disk::give(base, None, None, 0o711)?;
    for file in [&image.kernel, &image.kernel_elf, &image.initramfs] {
        disk::give(file, None, Some(group), 0o644).with_context(missing)?;
    }
    Ok(image)
}

fn builder_config(config: &Config) -> anyhow::Result<BuilderConfig> {
    let trusted_certificates = match &config.settings.trusted_certificates {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read trusted_certificates {}", file.display()))?,
        None => String::new(),
    };
    Ok(BuilderConfig {
        root_disk: config.base().join("builder.erofs"),
        containers: config.base().join("containers"),
        bases_disk: config.base().join("bases.img"),
        directory: config.data.join("builder"),
        trusted_certificates,
        vcpus: config.settings.builder_vcpus,
        longest_build: Duration::from_secs(config.settings.build_timeout_seconds),
    })
}

/// The external S3 service, if there is one.
fn external_s3(settings: &Settings) -> anyhow::Result<Option<ExternalS3>> {
    let Some(external) = &settings.external_s3 else {
        return Ok(None);
    };
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read external_s3.ca {}", path.display()))
    };
    let role_keys = settings.roles.iter().map(|(role, keys)| {
        let keys = Keys {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key: keys.secret_access_key.clone(),
            session_token: keys.session_token.clone(),
        };
        (role.clone(), keys)
    });
    let config = ExternalConfig {
        endpoint: external.endpoint.clone(),
        region: external.region.clone().unwrap_or_else(|| settings.region.clone()),
        keys: Keys {
            access_key_id: external.access_key_id.clone(),
            secret_access_key: external.secret_access_key.clone(),
            session_token: external.session_token.clone(),
        },
        role_keys: role_keys.collect(),
        ca_pem: external.ca.as_ref().map(read).transpose()?,
    };
    let external = ExternalS3::new(config).context("external_s3 cannot be used")?;
    Ok(Some(external))
}

fn network_config(config: &Config) -> anyhow::Result<NetworkConfig> {
    let network = &config.settings.network;
    Ok(NetworkConfig {
        pool_size: network.slots,
        range: cidr(&network.range)?,
        resolvers: network.resolvers.clone(),
        prefix: network.prefix.clone(),
        state_directory: config.runtime().join("netns"),
        allow: network
            .allow
            .iter()
            .map(|text| cidr(text))
            .collect::<anyhow::Result<_>>()?,
        uplinks: network.uplinks.clone(),
        tap_group: Some(config.settings.group_id),
    })
}
