//! The mount namespace of a container, laid out as Docker lays it out.
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, pivot_root, sethostname};

use super::{NewContainer, devices};

const HOST_NAME: &str = "localhost";

/// Parts of /proc that are read-only without every capability.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Parts of /proc and /sys that are hidden without every capability.
const MASKED: [&str; 13] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/kernel/security",
];

/// Makes the container's root the root of the current mount namespace, which must be the caller's own and in the
/// container's PID namespace, and mounts everything a container has.
pub fn enter(container: &NewContainer, all_capabilities: bool) -> anyhow::Result<()> {
    sethostname(HOST_NAME).context("cannot set the host name")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot make mounts private")?;
    // Outside places are held by descriptor: names mean the container's own files from the pivot on.
    let mut binds = Vec::new();
    for (source, target) in &container.binds {
        let source = open(
            source,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("cannot open {}", source.display()))?;
        binds.push((source, target));
    }
    chdir(&container.root).context("cannot enter the container's root")?;
    // The old root ends up stacked on the new one: pivot_root(2), "pivot_root(".", ".")".
    pivot_root(".", ".").context("cannot change the root")?;
    mount_system(all_capabilities)?;
    for (source, target) in &binds {
        use std::os::fd::AsRawFd;
        fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
        bind(
            Path::new(&format!("/proc/self/fd/{}", source.as_raw_fd())),
            target,
        )?;
    }
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    chdir("/")?;
    if !all_capabilities {
        READ_ONLY
            .iter()
            .try_for_each(|path| make_read_only(Path::new(path)))?;
        MASKED.iter().try_for_each(|path| mask(Path::new(path)))?;
    }
    Ok(())
}

fn mount_system(all_capabilities: bool) -> anyhow::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let unless_all = if all_capabilities {
        MsFlags::empty()
    } else {
        MsFlags::MS_RDONLY
    };
    mount_at("/proc", "proc", plain, "")?;
    mount_at("/sys", "sysfs", plain | unless_all, "")?;
    mount_at("/sys/fs/cgroup", "cgroup2", plain | unless_all, "")?;
    mount_at(
        "/dev",
        "tmpfs",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
        "mode=755,size=65536k",
    )?;
    let pts_flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_at(
        "/dev/pts",
        "devpts",
        pts_flags,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    // 64 MiB: spec section 10.
    mount_at("/dev/shm", "tmpfs", plain, "mode=1777,size=65536k")?;
    mount_at("/dev/mqueue", "mqueue", plain, "")?;
    devices::make_default(Path::new("/dev"))?;
    if all_capabilities {
        devices::make_all(Path::new("/dev"), Path::new("/sys"))?;
    }
    Ok(())
}

fn mount_at(path: &str, kind: &str, flags: MsFlags, options: &str) -> anyhow::Result<()> {
    // An image may have put anything in this place; only a directory will do.
    if let Err(error) = DirBuilder::new().mode(0o755).create(path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot create {path}"));
    }
    ensure!(
        fs::symlink_metadata(path)?.is_dir(),
        "{path} of the image is not a directory"
    );
    mount(Some(kind), path, Some(kind), flags, Some(options)).with_context(|| format!("cannot mount {path}"))
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {}", target.display()))
}

/// Kernels differ in what they have there.
fn make_read_only(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    bind(path, path)?;
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NODEV;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot make {} read-only", path.display()))
}

fn mask(path: &Path) -> anyhow::Result<()> {
    match fs::metadata(path) {
        Err(_) => Ok(()),
        Ok(kind) if kind.is_dir() => {
            match mount(
                Some("tmpfs"),
                path,
                Some("tmpfs"),
                MsFlags::MS_RDONLY,
                Some("size=0"),
            ) {
                // A directory that is gone again.
                Err(Errno::ENOENT) => Ok(()),
                other => other.with_context(|| format!("cannot hide {}", path.display())),
            }
        }
        Ok(_) => bind(Path::new("/dev/null"), path),
    }
}
