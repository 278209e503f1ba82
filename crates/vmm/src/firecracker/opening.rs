//! Stops a VMM process in the moment it opens a file.
//!
//! Firecracker checks the virtio queues, which lie in guest memory, while it loads device state: a delta must be in its
//! mapping by then, and before the load there is no mapping. Between the two it opens the guest's first disk. So that
//! opening is held (fanotify(7): a permission event on the disk's mount in the jail) until the delta is written. When the
//! daemon ends meanwhile, the kernel lets the opening pass; the guest does not run, since it was not told to.

use std::{io, path::Path};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    sys::fanotify::{
        EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// A file whose opening by a process is awaited.
pub(super) struct Opening {
    pid: i32,
    group: AsyncFd<Fanotify>,
}

/// A process that stands still while it opens the file. Dropped without an answer, it goes on.
pub(super) struct Held {
    group: AsyncFd<Fanotify>,
    event: FanotifyEvent,
}

impl Opening {
    /// Watches a file at its place in the process's root. It must be a mount of its own: all openings by that mount are
    /// seen.
    pub(super) fn of(pid: i32, place: &Path) -> io::Result<Opening> {
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )?;
        let path = format!("/proc/{pid}/root{}", place.display());
        group.mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT,
            MaskFlags::FAN_OPEN_PERM,
            AT_FDCWD,
            Some(path.as_str()),
        )?;
        // SAFETY: the AsyncFd owns the group, whose descriptor therefore stays open and the same until it is dropped.
        let group = unsafe { AsyncFd::register_with_interest(group, Interest::READABLE) }?;
        Ok(Opening { pid, group })
    }

    /// Returns when the process opens the file.
    pub(super) async fn reached(self) -> io::Result<Held> {
        loop {
            let mut ready = self.group.readable().await?;
            let events = match self.group.get_ref().read_events() {
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                events => events?,
            };
            drop(ready);
            for event in events {
                if event.pid() == self.pid {
                    let group = self.group;
                    return Ok(Held { group, event });
                }
                answer(self.group.get_ref(), &event, Response::FAN_ALLOW)?;
            }
        }
    }
}

impl Held {
    /// Lets the process open the file.
    pub(super) fn allow(self) -> io::Result<()> {
        answer(self.group.get_ref(), &self.event, Response::FAN_ALLOW)
    }

    /// Has the opening fail.
    pub(super) fn deny(self) -> io::Result<()> {
        answer(self.group.get_ref(), &self.event, Response::FAN_DENY)
    }
}

fn answer(group: &Fanotify, event: &FanotifyEvent, response: Response) -> io::Result<()> {
    match event.fd() {
        Some(file) => Ok(group.write_response(FanotifyResponse::new(file, response))?),
        None => Err(io::Error::other("the kernel lost an opening")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        process::Command,
    };

    use super::*;

    /// A process that shows a file of its own mount as soon as it is told to; what it has shown when `decide` has decided.
    async fn shown(decide: impl FnOnce(Held, &Path) -> io::Result<()>) -> String {
        let directory = tempfile::tempdir().expect("temp dir");
        let file = directory.path().join("disk");
        std::fs::write(&file, "before").expect("written");
        let script = "mount --bind disk disk && echo there && read go && exec cat disk";
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).await.expect("read");
        assert_eq!(line, "there\n");
        let opening = Opening::of(child.id().expect("alive") as i32, &file).expect("watched");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"go\n").await.expect("told");
        decide(opening.reached().await.expect("opened"), &file).expect("decided");
        let mut text = String::new();
        output.read_to_string(&mut text).await.expect("read");
        child.wait().await.expect("ended");
        text
    }

    #[tokio::test]
    async fn what_is_done_while_an_opening_is_held_comes_before_it() {
        let text = shown(|held, file| {
            std::fs::write(file, "after")?;
            held.allow()
        });
        assert_eq!(text.await, "after");
    }

    #[tokio::test]
    async fn a_denied_opening_fails_and_a_forgotten_one_goes_on() {
        assert_eq!(shown(|held, _| held.deny()).await, "");
        let forgotten = shown(|held, _| {
            drop(held);
            Ok(())
        });
        assert_eq!(forgotten.await, "before");
    }
}
