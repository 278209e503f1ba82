//! From the kernel's first process to an agent that listens.
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use hearth_agent_protocol::{AGENT_PORT, GUEST_ADDRESS, PROTOCOL_VERSION};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{chdir, chroot, sethostname};

use crate::container::launch::Launcher;
use crate::reaper::Reaper;
use crate::serve::Agent;
use crate::{console, disks, freezer, modules, net};

/// Where the agent's root is made before it becomes the root.
const NEW_ROOT: &str = "/new";
/// Connections of the host, each with a few descriptors.
const OPEN_FILES: u64 = 1 << 16;

/// Seconds of silence before the agent asks whether a peer still lives. A host that went away while the guest stood
/// still says nothing; this is what ends its connections.
const KEEPALIVE_IDLE_SECONDS: u32 = 30;
const KEEPALIVE_INTERVAL_SECONDS: u32 = 10;
const KEEPALIVE_PROBES: u32 = 3;

/// Runs as PID 1; returns only when there is no point in going on.
pub fn main() -> ExitCode {
    match boot() {
        Ok((agent, listener)) => agent.serve(&listener),
        Err(error) => {
            console(format_args!("cannot boot: {error:#}"));
            // The VMM sees its guest end, which is the clearest of signs.
            let _ = reboot(RebootMode::RB_POWER_OFF);
            ExitCode::FAILURE
        }
    }
}

fn boot() -> anyhow::Result<(&'static Agent, TcpListener)> {
    make_root()?;
    sethostname("localhost").context("cannot set the host name")?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .context("cannot raise the limit of open files")?;
    freezer::prepare()?;
    let directory = Path::new(modules::DIRECTORY);
    modules::load(directory, modules::CORE);
    modules::discard_list(directory, modules::CORE);
    tune();
    net::bring_up()?;
    let listener = listen()?;
    let launcher = Launcher {
        reaper: Reaper::start()?,
        program: "/proc/self/exe".into(),
    };
    let agent = Box::leak(Box::new(Agent::new(launcher)));
    console(format_args!("ready protocol={PROTOCOL_VERSION}"));
    Ok((agent, listener))
}

/// The kernel's initial root cannot be left by `pivot_root`, as the container's init must. So a tmpfs becomes the root
/// above it, the way `switch_root` does it.
fn make_root() -> anyhow::Result<()> {
    make_directory(NEW_ROOT)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let new = |path: &str| format!("{NEW_ROOT}{path}");
    mount_at(NEW_ROOT, "tmpfs", MsFlags::MS_NOSUID, "mode=755,size=16m")?;
    for directory in [
        disks::IMAGE,
        disks::SCRATCH,
        disks::ROOT,
        "/run",
        modules::DIRECTORY,
    ] {
        make_directory(&new(directory))?;
    }
    for (path, kind, flags) in [
        ("/proc", "proc", plain),
        ("/sys", "sysfs", plain),
        ("/sys/fs/cgroup", "cgroup2", plain),
        ("/dev", "devtmpfs", MsFlags::MS_NOSUID),
    ] {
        make_directory(&new(path))?;
        mount_at(&new(path), kind, flags, "")?;
    }
    if Path::new(modules::DIRECTORY).is_dir() {
        mount(
            Some(modules::DIRECTORY),
            new(modules::DIRECTORY).as_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .context("cannot bind the modules")?;
    }
    chdir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the root")?;
    chroot(".").context("cannot change the root")?;
    chdir("/").context("cannot enter the root")
}

fn make_directory(path: &str) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot create {path}"))
}

fn mount_at(path: &str, kind: &str, flags: MsFlags, options: &str) -> anyhow::Result<()> {
    mount(Some(kind), path, Some(kind), flags, Some(options)).with_context(|| format!("cannot mount {path}"))
}

/// What Docker sets in every container's network namespace; the application is used to it.
fn tune() {
    for (file, value) in [
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
    ] {
        if let Err(error) = fs::write(Path::new("/proc/sys").join(file), value) {
            console(format_args!("cannot set {file}: {error}"));
        }
    }
}

/// Listens on the guest's own address alone, which leaves the port on all others to the application.
fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((GUEST_ADDRESS, AGENT_PORT)))
        .context("cannot listen for the host")?;
    hear_link_alone(&listener).context("cannot leave the guest's own packets unheard")?;
    // Accepted connections inherit these.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    setsockopt(&listener, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECONDS)?;
    setsockopt(&listener, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_SECONDS)?;
    setsockopt(&listener, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(listener)
}

/// Drops what does not come by the link, for the listener and for all it accepts: a process of the guest reaches its own
/// address, with whatever source address, by the loopback interface. (A socket that is bound to the link would still be
/// reached: the kernel counts such packets as the link's.)
fn hear_link_alone(listener: &TcpListener) -> anyhow::Result<()> {
    let link = if_nametoindex(net::INTERFACE)?;
    let step = |code: u32, jf, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let mut program = [
        step(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            0,
            (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32,
        ),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, link),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads one sock_fprog of this size and the program it points to; both outlive the call.
    Errno::result(unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    })?;
    Ok(())
}
