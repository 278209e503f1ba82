use std::{io, path::Path, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::process::Process;

/// Shows the file `from` of the host to a VMM that runs, at the place `to` that its jail has kept free.
pub fn attach(process: &Process, from: &Path, to: &Path, writable: bool) -> io::Result<()> {
    let file = open_tree(
        CWD,
        from,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let enter = || -> io::Result<()> {
        // A thread that shares its root and working directory with others may not change its mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        setns(process.pidfd(), CloneFlags::CLONE_NEWNS)?;
        move_mount(&file, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        let access = if writable {
            MsFlags::empty()
        } else {
            MsFlags::MS_RDONLY
        };
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        Ok(mount(
            None::<&str>,
            to,
            None::<&str>,
            flags | access,
            None::<&str>,
        )?)
    };
    // On a thread of its own, which ends there.
    thread::scope(|scope| scope.spawn(enter).join())
        .map_err(|_| io::Error::other("the thread that attaches files ended"))?
}
