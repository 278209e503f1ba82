//! Connections whose client has not shown a good token yet: anybody may open them, so there is a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections of strangers. Beyond the bound the oldest is closed: a client with a token shows it at once, and who
/// waits for nothing has waited longest.
pub(crate) struct Strangers {
    most: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// By age.
    taken: BTreeMap<u64, CancellationToken>,
}

/// One of them, until it is dropped.
pub(crate) struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    crowded_out: CancellationToken,
}

impl Strangers {
    pub(crate) fn new(most: usize) -> Arc<Strangers> {
        Arc::new(Strangers {
            most,
            places: Mutex::default(),
        })
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Stranger {
        let crowded_out = CancellationToken::new();
        let mut places = self.places();
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, crowded_out.clone());
        if places.taken.len() > self.most
            && let Some((_, oldest)) = places.taken.pop_first()
        {
            oldest.cancel();
        }
        Stranger {
            strangers: self.clone(),
            number,
            crowded_out,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Cancelled when its place is another's.
    pub(crate) fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stranger_goes_when_there_are_too_many() {
        let strangers = Strangers::new(2);
        let [first, second, third] = [strangers.enter(), strangers.enter(), strangers.enter()];
        assert!(first.crowded_out().is_cancelled());
        assert!(!second.crowded_out().is_cancelled() && !third.crowded_out().is_cancelled());
        drop((first, second));
        let fourth = strangers.enter();
        assert!(!third.crowded_out().is_cancelled() && !fourth.crowded_out().is_cancelled());
    }
}
