use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    path::Path,
    process::Command,
};

use hearth_network::NetworkError;
use hearth_vmm::{
    Acceleration, Driver,
    firecracker::{self, Firecracker},
    jail::Cgroups,
    kvm,
    qemu::Qemu,
};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::Finding;
use crate::{
    config::{Config, VmmChoice, cidr},
    vmm,
};

/// Room that images and snapshots soon need.
const WANTED_DISK_BYTES: u64 = 20 << 30;
/// Room without which nothing can be built.
const LEAST_DISK_BYTES: u64 = 5 << 30;
/// Memory for one builder and one small MicroVM.
const LEAST_MEMORY_KIB: u64 = 4 << 20;

/// All checks, the deepest precondition first.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    vec![
        permissions(),
        kernel(),
        virtualization(),
        firecracker(config),
        qemu(config),
        vmm(config),
        tool("mkfs", "mkfs.ext4", "-V", "e2fsprogs"),
        device("tap", "/dev/net/tun", "modprobe tun"),
        rules(),
        rates(config),
        cgroups(),
        memory(),
        disk(config),
        base(config),
        addresses(config),
        names(config),
        certificate(config),
        ports("api port", config.settings.listen, "listen"),
        ports(
            "endpoint port",
            config.settings.endpoint_listen,
            "endpoint_listen",
        ),
        ports("admin port", config.settings.admin_listen, "admin_listen"),
    ]
}

fn permissions() -> Finding {
    match nix::unistd::geteuid().is_root() {
        true => Finding::good("permissions", "running as root"),
        false => Finding::bad("permissions", "not running as root", "sudo hearth doctor"),
    }
}

fn kernel() -> Finding {
    let Ok(info) = nix::sys::utsname::uname() else {
        return Finding::bad("kernel", "uname does not answer", "use a Linux kernel");
    };
    let release = info.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (..5, _) | (5, ..10) => Finding::bad(
            "kernel",
            format!("Linux {release} is too old"),
            "use Linux 5.10 or newer",
        ),
        (5, _) | (6, ..7) => Finding::note(
            "kernel",
            format!("Linux {release} has no PAGEMAP_SCAN; suspends read the whole page map"),
            "",
        ),
        _ => Finding::good("kernel", format!("Linux {release}")),
    }
}

fn virtualization() -> Finding {
    let Ok(program) = std::env::current_exe() else {
        return Finding::bad(
            "kvm",
            "this program cannot find itself",
            "start hearthd by its full path",
        );
    };
    match kvm::probe(&program) {
        kvm::Usability::Usable => Finding::good("kvm", "KVM runs guest code at full speed"),
        kvm::Usability::Unusable(cause) => Finding::note(
            "kvm",
            format!("{cause}; guests run by translation, several times slower"),
            "use a machine with hardware (or nested) virtualization for production",
        ),
    }
}

fn firecracker(config: &Config) -> Finding {
    let cure = format!(
        "for production, put the program of a release of firecracker-microvm ({}) into the path, or name it in `firecracker`",
        firecracker::SUPPORTED
    );
    match Firecracker::find(&config.settings.firecracker) {
        Ok(found) => Finding::good("firecracker", format!("Firecracker {}", found.platform().version)),
        Err(error) if config.settings.vmm == VmmChoice::Firecracker => {
            Finding::bad("firecracker", error.to_string(), cure)
        }
        Err(error) => Finding::note("firecracker", error.to_string(), cure),
    }
}

/// The VMM that guests run on.
fn vmm(config: &Config) -> Finding {
    match vmm::choose(&config.settings) {
        Ok(chosen) => {
            let because = match chosen.because.as_str() {
                "" => String::new(),
                because => format!(" ({because})"),
            };
            let platform = chosen.driver.platform();
            Finding::good("vmm", format!("guests run on {platform}{because}"))
        }
        Err(error) => Finding::bad("vmm", format!("{error:#}"), "see the lines above"),
    }
}

fn qemu(config: &Config) -> Finding {
    match Qemu::find(&config.settings.qemu, Acceleration::Tcg) {
        Ok(qemu) if !qemu.maps_read_only_memory() => Finding::note(
            "qemu",
            format!(
                "QEMU {}; a VMM that was broken out of could write its image's memory file",
                qemu.platform().version
            ),
            "QEMU 9 or newer maps it read-only (Debian 13 has it)",
        ),
        Ok(qemu) => Finding::good("qemu", format!("QEMU {}", qemu.platform().version)),
        Err(error) if config.settings.vmm == VmmChoice::Firecracker => {
            Finding::note("qemu", error.to_string(), "")
        }
        Err(error) => Finding::bad("qemu", error.to_string(), "apt-get install qemu-system-x86"),
    }
}

fn tool(name: &'static str, program: &str, argument: &str, package: &str) -> Finding {
    match Command::new(program).arg(argument).output() {
        Ok(output) if output.status.success() => Finding::good(name, format!("{program} is there")),
        _ => Finding::bad(
            name,
            format!("{program} is not there"),
            format!("apt-get install {package}"),
        ),
    }
}

fn device(name: &'static str, path: &str, cure: &str) -> Finding {
    match std::fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Finding::good(name, format!("{path} opens")),
        Err(error) => Finding::bad(name, format!("{path}: {error}"), cure),
    }
}

fn rules() -> Finding {
    match hearth_network::probe_rules() {
        Ok(()) => Finding::good("nftables", "the kernel takes the rules of guests' networks"),
        Err(NetworkError::NftMissing) => {
            Finding::bad("nftables", "nft is not there", "apt-get install nftables")
        }
        Err(error) => Finding::bad(
            "nftables",
            format!("no guest can start: {error}"),
            "use a distribution's kernel, with its modules",
        ),
    }
}

fn rates(config: &Config) -> Finding {
    if config.settings.limits.network_bytes_per_second_per_vcpu == 0 {
        return Finding::good("network limit", "none is configured");
    }
    match hearth_network::probe_limit() {
        Ok(()) => Finding::good("network limit", "the kernel holds links to a rate"),
        Err(error) => Finding::bad(
            "network limit",
            format!("no guest can start: {error}"),
            "modprobe sch_tbf, or set network_bytes_per_second_per_vcpu = 0",
        ),
    }
}

fn cgroups() -> Finding {
    let missing = Cgroups::missing();
    if !missing.is_empty() {
        return Finding::note(
            "cgroups",
            format!("MicroVMs go without limits of {}", missing.join(", ")),
            "mount control groups with these controllers",
        );
    }
    match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => Finding::good("cgroups", "version 2"),
        false if Path::new("/sys/fs/cgroup/unified").exists() => {
            Finding::good("cgroups", "version 1 with 2 beside it")
        }
        false => Finding::good("cgroups", "version 1"),
    }
}

fn memory() -> Finding {
    use procfs::Current;
    let Ok(info) = procfs::Meminfo::current() else {
        return Finding::bad("memory", "/proc/meminfo cannot be read", "mount /proc");
    };
    let available = info.mem_available.unwrap_or(info.mem_free) >> 10;
    let text = format!("{} MiB available", available >> 10);
    match available {
        LEAST_MEMORY_KIB.. => Finding::good("memory", text),
        _ => Finding::note("memory", text, "builds want 4096 MiB"),
    }
}

fn disk(config: &Config) -> Finding {
    let existing = config
        .data
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else {
        return Finding::bad(
            "disk",
            format!("{} cannot be measured", existing.display()),
            "choose another --data",
        );
    };
    let free = stat.blocks_available() * stat.fragment_size();
    let text = format!("{} GiB free under {}", free >> 30, config.data.display());
    match free {
        LEAST_DISK_BYTES.. if lies_in_memory(existing) => Finding::note(
            "disk",
            format!(
                "{} lies in memory: a reboot loses all of it, and what a guest writes to its disk counts against its VMM's memory",
                config.data.display()
            ),
            "choose another --data",
        ),
        WANTED_DISK_BYTES.. => Finding::good("disk", text),
        LEAST_DISK_BYTES.. => Finding::note("disk", text, "20 GiB leave room for images and snapshots"),
        _ => Finding::bad("disk", text, "free some, or choose another --data"),
    }
}

fn lies_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

fn base(config: &Config) -> Finding {
    let base = config.base();
    let missing = [
        "vmlinuz",
        "vmlinux",
        "initramfs.cpio",
        "kernel-release",
        "builder.erofs",
        "bases.img",
        "containers/index.json",
    ]
    .into_iter()
    .find(|name| !base.join(name).exists());
    match missing {
        None => Finding::good("base image", format!("complete in {}", base.display())),
        Some(name) => Finding::bad(
            "base image",
            format!("{} is missing", base.join(name).display()),
            "make prepare",
        ),
    }
}

/// No address of this host may lie in the ranges that guests and links use.
fn addresses(config: &Config) -> Finding {
    let (range, own_prefix) = (&config.settings.network.range, &config.settings.network.prefix);
    let Ok((network, length)) = cidr(range) else {
        return Finding::bad(
            "addresses",
            format!("{range:?} is no address range"),
            "set network.range, e.g. 100.65.0.0/16",
        );
    };
    let guests = (Ipv4Addr::new(100, 64, 0, 0), 30);
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Finding::bad("addresses", "the interfaces cannot be listed", "run as root");
    };
    for interface in interfaces.filter(|interface| !interface.interface_name.starts_with(own_prefix.as_str()))
    {
        let Some(address) = interface
            .address
            .as_ref()
            .and_then(|address| address.as_sockaddr_in())
        else {
            continue;
        };
        let address = address.ip();
        if contains((network, length), address) || contains(guests, address) {
            return Finding::bad(
                "addresses",
                format!(
                    "{} has {address}, which lies in a range of hearth's own",
                    interface.interface_name
                ),
                "set network.range to a free range",
            );
        }
    }
    Finding::good("addresses", format!("{range} and 100.64.0.0/30 are free"))
}

/// Whether clients on this machine find the endpoints by their names.
fn names(config: &Config) -> Finding {
    let (domain, address) = (&config.settings.endpoint_domain, config.settings.endpoint_listen);
    let found = (format!("any.{domain}"), address.port()).to_socket_addrs();
    let here = found.is_ok_and(|mut found| {
        found.any(|found| found == address || address.ip().is_unspecified() || found.ip().is_loopback())
    });
    if here {
        return Finding::good("names", format!("names under {domain} lead to the endpoints"));
    }
    let cure = if domain.ends_with("localhost") {
        "apt-get install libnss-myhostname (curl and browsers know these names without it)".into()
    } else {
        format!("let the name server answer *.{domain} with this machine's address")
    };
    Finding::note("names", format!("names under {domain} are not known here"), cure)
}

/// What the endpoints show to clients.
fn certificate(config: &Config) -> Finding {
    let settings = &config.settings;
    match (&settings.acme, &settings.endpoint_certificate) {
        (Some(acme), _) => match acme.check_program() {
            Ok(()) => Finding::good("certificate", format!("from {}", acme.directory)),
            Err(error) => Finding::bad(
                "certificate",
                error.to_string(),
                "chmod +x it, or set acme.dns_program",
            ),
        },
        (None, Some(file)) if file.is_file() => {
            Finding::good("certificate", format!("the one in {}", file.display()))
        }
        (None, Some(file)) => Finding::bad(
            "certificate",
            format!("{} is not there", file.display()),
            "set endpoint_certificate to a PEM file",
        ),
        (None, None) => Finding::good(
            "certificate",
            "of the daemon's own authority, which clients must be told to trust",
        ),
    }
}

fn contains((network, length): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

fn ports(name: &'static str, address: SocketAddr, setting: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(name, format!("{address} is free")),
        Err(_) if answers_health(address) => Finding::good(name, format!("hearthd serves on {address}")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::note(
            name,
            format!("{address} is in use"),
            format!("if that is not hearthd, set `{setting}` in hearthd.toml"),
        ),
        Err(error) => Finding::bad(
            name,
            format!("{address}: {error}"),
            format!("set `{setting}` in hearthd.toml"),
        ),
    }
}

/// Whether the lock of a live daemon says that the port is its own.
fn answers_health(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)
        && procfs::process::all_processes().is_ok_and(|processes| {
            processes.flatten().any(|process| {
                process.stat().is_ok_and(|stat| stat.comm == "hearthd")
                    && process.pid != std::process::id() as i32
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_range_is_found() {
        let range = (Ipv4Addr::new(100, 65, 0, 0), 16);
        assert!(contains(range, Ipv4Addr::new(100, 65, 255, 1)));
        assert!(!contains(range, Ipv4Addr::new(100, 66, 0, 1)));
    }

    #[test]
    fn a_directory_in_memory_is_found() {
        assert!(lies_in_memory(Path::new("/dev/shm")));
        assert!(!lies_in_memory(Path::new("/proc")));
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let finding = tool("x", "no-such-program", "-V", "some-package");
        assert_eq!(finding.cure, "apt-get install some-package");
    }
}
