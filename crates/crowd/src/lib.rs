//! Connections that nobody answers for: anybody may open them and say nothing, so there is a bound. Beyond it the oldest is
//! closed: who wants something says so at once, and who waits for nothing has waited longest.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By age.
    members: BTreeMap<u64, CancellationToken>,
}

/// A connection, in the crowd while nobody vouches for it.
#[derive(Debug)]
pub struct Member {
    crowd: Arc<Crowd>,
    crowded_out: CancellationToken,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
struct Standing {
    number: u64,
    vouchers: usize,
}

/// Keeps a connection out of the crowd until it is dropped.
#[derive(Debug)]
pub struct Voucher(Arc<Member>);

/// One request of a connection, until its answer has ended.
#[derive(Debug)]
pub struct Visit {
    member: Arc<Member>,
    voucher: OnceLock<Voucher>,
}

impl Crowd {
    /// Nobody yet, and at most so many.
    pub fn new(most: usize) -> Arc<Crowd> {
        Arc::new(Crowd {
            most,
            waiting: Mutex::default(),
        })
    }

    /// A connection more, for which the oldest may have to go. To be called where it is accepted: tasks begin in any order.
    pub fn enter(self: &Arc<Self>) -> Arc<Member> {
        let crowded_out = CancellationToken::new();
        let standing = Standing {
            number: self.join(crowded_out.clone()),
            vouchers: 0,
        };
        Arc::new(Member {
            crowd: self.clone(),
            crowded_out,
            standing: Mutex::new(standing),
        })
    }

    fn join(&self, crowded_out: CancellationToken) -> u64 {
        let mut waiting = lock(&self.waiting);
        let number = waiting.next;
        waiting.next += 1;
        waiting.members.insert(number, crowded_out);
        if waiting.members.len() > self.most
            && let Some((_, oldest)) = waiting.members.pop_first()
        {
            oldest.cancel();
        }
        number
    }

    fn leave(&self, number: u64) {
        lock(&self.waiting).members.remove(&number);
    }
}

impl Member {
    /// Cancelled when it has to go.
    pub fn crowded_out(&self) -> CancellationToken {
        self.crowded_out.clone()
    }

    /// Out of the crowd until all vouchers are dropped; it comes back as the youngest.
    pub fn vouch(self: &Arc<Self>) -> Voucher {
        let mut standing = lock(&self.standing);
        standing.vouchers += 1;
        if standing.vouchers == 1 {
            self.crowd.leave(standing.number);
        }
        Voucher(self.clone())
    }
}

impl Visit {
    /// A request, of which nothing good is known yet.
    pub fn new(member: Arc<Member>) -> Arc<Visit> {
        Arc::new(Visit {
            member,
            voucher: OnceLock::new(),
        })
    }

    /// It may be answered: its connection stays until then.
    pub fn vouch(&self) {
        self.voucher.get_or_init(|| self.member.vouch());
    }
}

impl Drop for Voucher {
    fn drop(&mut self) {
        let Member {
            crowd,
            crowded_out,
            standing,
        } = &*self.0;
        let mut standing = lock(standing);
        standing.vouchers -= 1;
        if standing.vouchers == 0 {
            standing.number = crowd.join(crowded_out.clone());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.leave(lock(&self.standing).number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone<const N: usize>(members: [&Arc<Member>; N]) -> [bool; N] {
        members.map(|member| member.crowded_out().is_cancelled())
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let crowd = Crowd::new(2);
        let [first, second, third] = [crowd.enter(), crowd.enter(), crowd.enter()];
        assert_eq!(gone([&first, &second, &third]), [true, false, false]);
        drop((first, second));
        let fourth = crowd.enter();
        assert_eq!(gone([&third, &fourth]), [false, false]);
    }

    #[test]
    fn who_is_vouched_for_stays_and_comes_back_as_the_youngest() {
        let crowd = Crowd::new(1);
        let first = crowd.enter();
        let (one, other) = (Visit::new(first.clone()), Visit::new(first.clone()));
        one.vouch();
        one.vouch();
        other.vouch();
        let second = crowd.enter();
        drop(one);
        assert_eq!(gone([&first, &second]), [false, false]);
        drop(other);
        assert_eq!(gone([&first, &second]), [false, true]);
        drop((first, second));
        assert!(lock(&crowd.waiting).members.is_empty());
    }
}
