//! Whose build is next: the node's places go round among the accounts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places for builds.
#[derive(Debug)]
pub(crate) struct Turns {
    places: usize,
    all: Arc<Semaphore>,
    /// As many for each account: what an account has beyond those waits here, and not before others in the node's queue.
    of_accounts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    _of_account: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(places: usize) -> Turns {
        Turns {
            places,
            all: Arc::new(Semaphore::new(places)),
            of_accounts: Mutex::default(),
        }
    }

    /// Waits for a place.
    pub(crate) async fn take(&self, account: &str) -> Turn {
        let of_account = {
            let mut accounts = self.of_accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.places));
            accounts.entry(account.to_owned()).or_insert_with(new).clone()
        };
        let of_account = place_in(of_account).await;
        Turn {
            _place: place_in(self.all.clone()).await,
            _of_account: of_account,
        }
    }
}

async fn place_in(queue: Arc<Semaphore>) -> OwnedSemaphorePermit {
    queue.acquire_owned().await.expect("nobody closes a queue")
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_account_with_many_builds_keeps_another_waiting_for_one() {
        let turns = Arc::new(Turns::new(1));
        let (began, mut order) = mpsc::unbounded_channel();
        let first = turns.take("busy").await;
        for account in ["busy", "busy", "other"] {
            let (turns, began) = (turns.clone(), began.clone());
            tokio::spawn(async move {
                let _turn = turns.take(account).await;
                began.send(account).expect("heard");
            });
            // Each asks before the next.
            tokio::task::yield_now().await;
        }
        drop((first, began));
        let mut seen = Vec::new();
        while let Some(account) = order.recv().await {
            seen.push(account);
        }
        assert_eq!(seen, ["other", "busy", "busy"]);
    }
}
