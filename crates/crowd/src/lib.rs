//! Connections that nobody answers for: anybody may open them and say nothing, so there is a bound. Beyond it the oldest is
//! closed: who wants something says so at once, and who waits for nothing has waited longest.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By age.
    taken: BTreeMap<u64, CancellationToken>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    crowded_out: CancellationToken,
}

impl Crowd {
    /// Nobody yet, and at most so many.
    pub fn new(most: usize) -> Arc<Crowd> {
        Arc::new(Crowd {
            most,
            places: Mutex::default(),
        })
    }

    /// One more, whose place may be the oldest one's. To be called where a connection is accepted: tasks begin in any order.
    pub fn enter(self: &Arc<Self>) -> Place {
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
        Place {
            crowd: self.clone(),
            number,
            crowded_out,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Cancelled when its place is another's.
    pub fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let crowd = Crowd::new(2);
        let [first, second, third] = [crowd.enter(), crowd.enter(), crowd.enter()];
        assert!(first.crowded_out().is_cancelled());
        assert!(!second.crowded_out().is_cancelled() && !third.crowded_out().is_cancelled());
        drop((first, second));
        let fourth = crowd.enter();
        assert!(!third.crowded_out().is_cancelled() && !fourth.crowded_out().is_cancelled());
    }
}
