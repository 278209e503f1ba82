//! Device nodes of a container's /dev.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

const ALWAYS: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Nodes that are the guest's own even before an application with every capability: its two disks and its console.
const KEPT: [&str; 4] = ["vda", "vdb", "console", "ptmx"];

/// What every container has.
pub fn make_default(dev: &Path) -> anyhow::Result<()> {
    for (name, major, minor) in ALWAYS {
        make(&dev.join(name), SFlag::S_IFCHR, 0o666, makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).with_context(|| format!("cannot link {name}"))?;
    }
    Ok(())
}

/// What the guest's kernel offers beyond that, for a container with every capability: `sys` is a mounted sysfs.
pub fn make_all(dev: &Path, sys: &Path) -> anyhow::Result<()> {
    for (class, kind) in [("dev/char", SFlag::S_IFCHR), ("dev/block", SFlag::S_IFBLK)] {
        for entry in fs::read_dir(sys.join(class)).into_iter().flatten().flatten() {
            let Ok(event) = fs::read_to_string(entry.path().join("uevent")) else {
                continue;
            };
            let Some(device) = Device::parse(&event) else {
                continue;
            };
            let path = dev.join(device.name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            make(&path, kind, device.mode, makedev(device.major, device.minor))?;
        }
    }
    Ok(())
}

fn make(path: &Path, kind: SFlag, mode: u32, device: u64) -> anyhow::Result<()> {
    match mknod(path, kind, Mode::from_bits_truncate(mode), device) {
        Err(Errno::EEXIST) => return Ok(()),
        other => other.with_context(|| format!("cannot make {}", path.display()))?,
    }
    // mknod minds the umask.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    Ok(())
}

struct Device<'a> {
    name: &'a str,
    major: u64,
    minor: u64,
    mode: u32,
}

impl Device<'_> {
    /// From a `uevent` file of sysfs; `None` for a node that has no name or that the container shall not have.
    fn parse(event: &str) -> Option<Device<'_>> {
        let value = |key: &str| {
            event
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let name = value("DEVNAME")?;
        let is_plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let withheld = KEPT.contains(&name) || name.starts_with("tty") || name.starts_with("vcs");
        if !is_plain || withheld {
            return None;
        }
        let mode = match name {
            // The kernel has no opinion here; udev has. For fuse: spec section 11.
            "net/tun" | "fuse" => 0o666,
            _ => {
                value("DEVMODE")
                    .and_then(|mode| u32::from_str_radix(mode, 8).ok())
                    .unwrap_or(0o600)
                    & 0o777
            }
        };
        Some(Device {
            name,
            major: value("MAJOR")?.parse().ok()?,
            minor: value("MINOR")?.parse().ok()?,
            mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuse_and_further_disks_are_offered_and_the_guests_own_withheld() {
        let fuse = Device::parse("MAJOR=10\nMINOR=229\nDEVNAME=fuse\n").expect("offered");
        assert_eq!(
            (fuse.name, fuse.major, fuse.minor, fuse.mode),
            ("fuse", 10, 229, 0o666)
        );
        let disk = Device::parse("MAJOR=254\nMINOR=32\nDEVNAME=vdc\nDEVTYPE=disk\n").expect("offered");
        assert_eq!((disk.name, disk.mode), ("vdc", 0o600));
        for name in ["vda", "vdb", "ttyS0", "console", "../sda", "/etc/x", ""] {
            assert!(
                Device::parse(&format!("MAJOR=1\nMINOR=1\nDEVNAME={name}\n"))
                    .is_none_or(|d| d.name.is_empty()),
                "{name}"
            );
        }
    }
}
