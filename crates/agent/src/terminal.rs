//! Pseudo-terminals of the application's container, so that a command on one finds it in its own /dev/pts.
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;
use hearth_agent_protocol::TerminalSize;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Makes a terminal in the container of this process: the agent's end, which never waits, and the command's.
pub fn make(pid: libc::pid_t, size: TerminalSize) -> anyhow::Result<(File, OwnedFd)> {
    let root = open(
        format!("/proc/{pid}/root").as_str(),
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .context("the application does not run")?;
    // Links in the container's /dev lead nowhere but into the container.
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let master = openat2(&root, "dev/pts/ptmx", how).context("the container has no terminals")?;
    let unlock: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel reads one int behind the pointer; on what is no terminal the call
    // fails.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) })
        .context("the container has no terminals")?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open; the call takes an int and makes a new descriptor.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })
        .context("cannot open the terminal")?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    let master = File::from(master);
    if size != TerminalSize::default() {
        resize(&master, size)?;
    }
    Ok((master, slave))
}

/// Tells the terminal, and through it the foreground processes, its size.
pub fn resize(master: &File, size: TerminalSize) -> anyhow::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads one winsize behind the pointer.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) })
        .context("cannot set the terminal's size")?;
    Ok(())
}
