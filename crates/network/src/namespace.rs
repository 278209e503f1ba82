use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process, thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use tokio::sync::oneshot;

use crate::NetworkError;

/// The calling thread's own namespaces, per proc(5).
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// The one the calling thread is in.
    pub(crate) fn current() -> io::Result<Self> {
        File::open(OWN).map(Self)
    }

    /// The one mounted at a path; `NotFound` too when the path is a plain file that lost its mount.
    pub(crate) fn mounted(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no namespace is mounted there",
            ));
        }
        Ok(Self(file))
    }

    /// Makes a new one, moves the calling thread into it and mounts it at `path`, which must not exist.
    pub(crate) fn unshare(path: &Path) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::create_new(path)?;
        mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Self::current()
    }

    /// Moves the calling thread into it, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` inside on the calling thread, which is back in `home` afterwards. `work` must not start threads.
    pub(crate) fn visit<T>(&self, home: &Namespace, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        /// A thread left in a guest's namespace would serve others from there: better to die.
        struct Return<'a>(&'a Namespace);
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                if self.0.enter().is_err() {
                    process::abort();
                }
            }
        }
        let back = Return(home);
        self.enter()?;
        let result = work();
        drop(back);
        result
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Removes a mount made by [`Namespace::unshare`], or what a crash left of it.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own, which may change its namespace as it likes because it ends afterwards.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (send, receive) = oneshot::channel();
    thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            let _ = send.send(work());
        })
        .map_err(|cause| NetworkError::Io {
            what: "starting a thread".into(),
            cause,
        })?;
    receive.await.map_err(|_| NetworkError::WorkerLost)?
}
