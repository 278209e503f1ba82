//! What one MicroVM's endpoint carries: connections and requests are refused beyond it, bytes only slowed down (spec
//! section 18.4).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

/// Requests that were not made may be made up for in a burst, for this time at most.
const REQUEST_BURST: Duration = Duration::from_secs(5);
/// The same for bytes.
const BYTE_BURST: Duration = Duration::from_millis(100);

/// The limits of one MicroVM, shared by all its ports. `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Client connections at a time; the next gets a 429.
    pub connections: Option<u32>,
    /// Requests per second in the long run; more get a 429.
    pub requests_per_second: Option<u32>,
    /// Bytes per second each way; more wait.
    pub bytes_per_second: Option<u64>,
}

/// How much of its limits a MicroVM uses.
pub(crate) struct Usage {
    began: Instant,
    connections: AtomicU32,
    requests: Schedule,
    up: Schedule,
    down: Schedule,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the application.
    Up,
    /// To the client.
    Down,
}

impl Usage {
    pub(crate) fn new() -> Usage {
        Usage {
            began: Instant::now(),
            connections: AtomicU32::new(0),
            requests: Schedule::default(),
            up: Schedule::default(),
            down: Schedule::default(),
        }
    }

    /// Takes a place for a connection, to be given back by [`Usage::leave`].
    pub(crate) fn join(&self, limits: Limits) -> bool {
        let most = limits.connections.unwrap_or(u32::MAX);
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now < most).then(|| now.saturating_add(1))
            })
            .is_ok()
    }

    /// Gives back the place of a connection.
    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether one more request may pass now.
    pub(crate) fn admit(&self, limits: Limits) -> bool {
        match limits.requests_per_second {
            Some(rate) => self.requests.admit(self.now_ns(), 1, rate.into(), REQUEST_BURST),
            None => true,
        }
    }

    /// Counts bytes; how long the next ones have to wait.
    fn book(&self, direction: Direction, bytes: u64, rate: u64) -> Duration {
        let schedule = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        schedule.book(self.now_ns(), bytes, rate, BYTE_BURST)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// When the next unit is due, were all of them evenly spaced: a leaky bucket in one number (the generic cell rate
/// algorithm).
#[derive(Default)]
struct Schedule {
    due_ns: AtomicU64,
}

impl Schedule {
    /// Takes `units`, always; how far ahead of time that is.
    fn book(&self, now_ns: u64, units: u64, per_second: u64, burst: Duration) -> Duration {
        let cost = cost_ns(units, per_second);
        let earliest = now_ns.saturating_sub(nanoseconds(burst));
        let before = self
            .due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                Some(due.max(earliest).saturating_add(cost))
            })
            .unwrap_or_default();
        let due = before.max(earliest).saturating_add(cost);
        Duration::from_nanos(due.saturating_sub(now_ns))
    }

    /// Takes `units` unless that is ahead of time by more than the burst.
    fn admit(&self, now_ns: u64, units: u64, per_second: u64, burst: Duration) -> bool {
        let cost = cost_ns(units, per_second);
        let latest = now_ns.saturating_add(nanoseconds(burst));
        self.due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                Some(due.max(now_ns).saturating_add(cost)).filter(|due| *due <= latest)
            })
            .is_ok()
    }
}

fn cost_ns(units: u64, per_second: u64) -> u64 {
    let cost = u128::from(units) * 1_000_000_000 / u128::from(per_second.max(1));
    u64::try_from(cost).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Slows one stream of bytes down to its MicroVM's rate.
pub(crate) struct Pace {
    direction: Direction,
    bytes_per_second: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(direction: Direction, limits: Limits) -> Pace {
        Pace {
            direction,
            bytes_per_second: limits.bytes_per_second,
            pause: None,
        }
    }

    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// Ready when the next bytes may go.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// Bytes have gone.
    pub(crate) fn passed(&mut self, bytes: usize, usage: &Usage) {
        let Some(rate) = self.bytes_per_second else { return };
        let wait = usage.book(self.direction, bytes as u64, rate);
        if !wait.is_zero() {
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_place_is_taken_once_and_given_back() {
        let usage = Usage::new();
        let limits = Limits {
            connections: Some(2),
            ..Limits::default()
        };
        assert!(usage.join(limits) && usage.join(limits) && !usage.join(limits));
        usage.leave();
        assert!(usage.join(limits));
        assert!(usage.join(Limits::default()), "no bound");
    }

    #[test]
    fn bytes_are_spaced_by_the_rate() {
        let schedule = Schedule::default();
        let burst = Duration::ZERO;
        assert_eq!(
            schedule.book(SECOND, 500, 1000, burst),
            Duration::from_millis(500)
        );
        assert_eq!(
            schedule.book(SECOND, 500, 1000, burst),
            Duration::from_millis(1000)
        );
        assert_eq!(
            schedule.book(10 * SECOND, 1, 1000, burst),
            Duration::from_millis(1)
        );
    }

    proptest! {
        #[test]
        fn requests_never_exceed_the_rate_and_a_burst(
            rate in 1u64..200,
            gaps_ms in prop::collection::vec(0u64..400, 1..400),
        ) {
            let schedule = Schedule::default();
            let (mut now, mut admitted) = (0, 0u64);
            for gap in gaps_ms {
                now += gap * 1_000_000;
                admitted += u64::from(schedule.admit(now, 1, rate, REQUEST_BURST));
            }
            let most = rate as f64 * (now as f64 / SECOND as f64 + REQUEST_BURST.as_secs_f64());
            prop_assert!(admitted as f64 <= most + 1.0, "{admitted} of {most}");
        }

        #[test]
        fn whoever_keeps_to_the_rate_is_never_refused(rate in 1u64..1000, count in 1u64..500) {
            let schedule = Schedule::default();
            let gap = cost_ns(1, rate) + 1;
            for number in 0..count {
                prop_assert!(schedule.admit(number * gap, 1, rate, Duration::from_nanos(gap)));
            }
        }
    }
}
