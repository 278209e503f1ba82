//! The part of a save that blocks a thread: reading guest memory, taking files over, waiting for the disk.

use std::{fs, io, path::Path, sync::Arc};

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

    /// The same, and no state of an earlier save lies at `own` any more.
    pub(crate) async fn turn_without(&self, own: &Path) -> Result<Turn, VmmError> {
        let turn = self.turn().await;
        match fs::remove_file(own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(VmmError::io("clearing old device state")(error))
            }
            _ => Ok(turn),
        }
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
