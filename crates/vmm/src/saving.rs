//! The part of a save that blocks a thread: reading guest memory, taking files over, waiting for the disk.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::Path,
    sync::Arc,
};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::{
    VmmError,
    memory::{DeltaSummary, GuestSpace, save_delta},
};

/// The saves of one process: one at a time, also when a caller has given one up.
#[derive(Debug, Default)]
pub(crate) struct Saving(Arc<Mutex<()>>);

impl Saving {
    /// Waits until an earlier save has ended.
    pub(crate) async fn turn(&self) -> Turn {
        Turn(self.0.clone().lock_owned().await)
    }

    /// The same, with an empty file of the process's own at `own`, in a directory where it can make none.
    pub(crate) async fn turn_with(&self, own: &Path, pid: i32) -> Result<Turn, VmmError> {
        let turn = self.turn().await;
        let make = || {
            match fs::remove_file(own) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(own)?;
            let status = procfs::process::Process::new(pid).and_then(|process| process.status());
            let status = status.map_err(io::Error::other)?;
            fchown(file, Some(status.euid), Some(status.egid))
        };
        make().map_err(VmmError::io("making room for device state"))?;
        Ok(turn)
    }

    /// The delta of a paused guest, against the memory file of its image.
    pub(crate) async fn delta(&self, pid: i32, base: &Path, to: &Path) -> Result<DeltaSummary, VmmError> {
        let (base, to) = (base.to_owned(), to.to_owned());
        let save = move |given_up: &CancellationToken| {
            save_delta(&GuestSpace::find(pid, &base)?, &base, &to, given_up)
        };
        self.turn().await.work("saving the delta", save).await
    }
}

/// The right to save.
pub(crate) struct Turn(OwnedMutexGuard<()>);

impl Turn {
    /// Works on a thread that may block. When the caller gives up, the work is told, and the turn ends with the work.
    pub(crate) async fn work<T: Send + 'static>(
        self,
        context: &'static str,
        work: impl FnOnce(&CancellationToken) -> io::Result<T> + Send + 'static,
    ) -> Result<T, VmmError> {
        let given_up = CancellationToken::new();
        let _when_dropped = given_up.clone().drop_guard();
        tokio::task::spawn_blocking(move || {
            let done = work(&given_up);
            drop(self.0);
            done
        })
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(VmmError::io(context))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn what_is_given_up_ends_before_the_next_begins() {
        let saving = Saving::default();
        let (begun, has_begun) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let turn = saving.turn().await;
        let work = turn.work("saving", move |given_up| {
            begun.send(()).expect("heard");
            while !given_up.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.send(()).expect("heard");
            Ok(())
        });
        let given_up = tokio::spawn(work);
        tokio::task::spawn_blocking(move || has_begun.recv())
            .await
            .expect("no panic")
            .expect("begun");
        given_up.abort();
        let _turn = saving.turn().await;
        has_ended.try_recv().expect("it has ended");
    }
}
