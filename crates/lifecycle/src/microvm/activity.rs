//! Why a MicroVM counts as busy or idle: endpoint traffic, as the service has it (spec section 16), and beside it what the
//! operator lets count as well.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use hearth_metadata::Lease;
use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

/// What counts as busy beside endpoint traffic. By default nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusyRules {
    /// Use of one host CPU, in percent, from which a MicroVM is busy; 0: its CPU does not count.
    pub cpu_percent: u32,
    /// Whether a lease counts while it lasts.
    pub leases: bool,
    /// Whether a connection counts while it is open, although nothing moves: a shell, a tunnel, a stream.
    pub attached: bool,
}

/// What somebody keeps open at a MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A shell.
    Shell,
    /// A command.
    Command,
    /// A response, upgraded connection or tunnel.
    Stream,
}

/// How long the CPU is watched before a MicroVM is held to be idle.
const WATCH: Duration = Duration::from_secs(5);

/// What moves at a MicroVM's endpoint, and what else was said of it. Written for every piece of every body.
#[derive(Debug)]
pub(crate) struct Traffic {
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
    /// Requests without response headers yet.
    pending: AtomicUsize,
    /// What is open, by [`Attachment`].
    attached: [AtomicUsize; 3],
    /// End of the lease, in milliseconds after `started`.
    lease: AtomicU64,
    /// What the CPU was last seen at, in percent of one.
    cpu_percent: AtomicU32,
    /// Bytes since the meters last looked.
    received: AtomicU64,
    sent: AtomicU64,
    answered: Notify,
}

impl Traffic {
    pub(crate) fn new() -> Traffic {
        Traffic {
            started: Instant::now(),
            last: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            attached: Default::default(),
            lease: AtomicU64::new(0),
            cpu_percent: AtomicU32::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            answered: Notify::new(),
        }
    }

    /// Counts bytes to and from the application.
    pub(crate) fn count(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// The bytes counted since this was last asked, to and from the application.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        (
            self.received.swap(0, Ordering::Relaxed),
            self.sent.swap(0, Ordering::Relaxed),
        )
    }

    /// Bytes moved.
    pub(crate) fn touch(&self) {
        self.last.store(self.now_ms(), Ordering::Relaxed);
    }

    /// A request was sent in.
    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    /// Its response has begun, or it is given up.
    pub(crate) fn end(&self) {
        self.touch();
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.answered.notify_waiters();
    }

    /// Returns when the next response begins.
    pub(crate) async fn answered(&self) {
        self.answered.notified().await;
    }

    /// Something is open.
    pub(crate) fn attach(&self, what: Attachment) {
        self.attached[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// It is closed.
    pub(crate) fn detach(&self, what: Attachment) {
        self.attached[what as usize].fetch_sub(1, Ordering::Relaxed);
    }

    fn open(&self, what: Attachment) -> usize {
        self.attached[what as usize].load(Ordering::Relaxed)
    }

    /// From now on for `time`: replaces an earlier lease, and with no time at all gives it back.
    pub(crate) fn lease(&self, time: Duration) {
        let until = self.now_ms().saturating_add(time.as_millis() as u64);
        self.lease.store(until, Ordering::Relaxed);
    }

    pub(crate) fn saw_cpu(&self, percent: u32) {
        self.cpu_percent.store(percent, Ordering::Relaxed);
    }

    /// When the MicroVM has been idle for `longest`, as far as can be said now.
    pub(crate) fn idle_at(&self, longest: Duration, rules: BusyRules) -> Instant {
        let from_now = Instant::now() + longest;
        let is_open = || self.attached.iter().any(|open| open.load(Ordering::Relaxed) > 0);
        if self.pending.load(Ordering::Relaxed) > 0 || (rules.attached && is_open()) {
            return from_now;
        }
        let mut since = self.last.load(Ordering::Relaxed);
        if rules.leases {
            since = since.max(self.lease.load(Ordering::Relaxed));
        }
        self.started + Duration::from_millis(since) + longest
    }

    /// Tells an operator what holds the MicroVM awake.
    pub(crate) fn activity(&self, rules: BusyRules) -> Activity {
        let now = self.now_ms();
        let activity = Activity {
            quiet_seconds: now.saturating_sub(self.last.load(Ordering::Relaxed)) / 1000,
            pending_requests: self.pending.load(Ordering::Relaxed),
            open_shells: self.open(Attachment::Shell),
            open_commands: self.open(Attachment::Command),
            open_streams: self.open(Attachment::Stream),
            lease_seconds: self
                .lease
                .load(Ordering::Relaxed)
                .saturating_sub(now)
                .div_ceil(1000),
            cpu_percent: self.cpu_percent.load(Ordering::Relaxed),
            busy: Vec::new(),
        };
        activity.judged(rules)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Lease for Traffic {
    fn take(&self, time: Duration) {
        self.lease(time);
    }

    fn left(&self) -> Duration {
        let until = self.lease.load(Ordering::Relaxed);
        Duration::from_millis(until.saturating_sub(self.now_ms()))
    }
}

/// What a MicroVM is busy with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Seconds since the last byte at the endpoint.
    pub quiet_seconds: u64,
    /// Requests that wait for the application's response.
    pub pending_requests: usize,
    /// Shells that are open.
    pub open_shells: usize,
    /// Commands that run for somebody who listens.
    pub open_commands: usize,
    /// Responses, upgraded connections and tunnels that are open.
    pub open_streams: usize,
    /// Seconds until its lease ends; 0 when it holds none.
    pub lease_seconds: u64,
    /// CPU use when last looked at, in percent of one CPU; looked at only where it counts.
    pub cpu_percent: u32,
    /// Why it is not idle, in words; empty when only time is missing.
    pub busy: Vec<String>,
}

impl Activity {
    fn judged(mut self, rules: BusyRules) -> Activity {
        let counted = [
            (
                true,
                self.pending_requests,
                "request waits for a response",
                "requests wait for a response",
            ),
            (
                rules.attached,
                self.open_shells,
                "shell is open",
                "shells are open",
            ),
            (
                rules.attached,
                self.open_commands,
                "command is attached",
                "commands are attached",
            ),
            (
                rules.attached,
                self.open_streams,
                "stream is open",
                "streams are open",
            ),
        ];
        for (counts, number, one, more) in counted {
            match number {
                1 if counts => self.busy.push(format!("1 {one}")),
                2.. if counts => self.busy.push(format!("{number} {more}")),
                _ => {}
            }
        }
        if rules.leases && self.lease_seconds > 0 {
            self.busy
                .push(format!("it holds a lease for {} s more", self.lease_seconds));
        }
        if rules.cpu_percent > 0 && self.cpu_percent >= rules.cpu_percent {
            self.busy.push(format!(
                "its CPU was at {} %, and {} % count as busy",
                self.cpu_percent, rules.cpu_percent
            ));
        }
        self
    }
}

/// Watches what a process takes of the CPU.
#[derive(Debug)]
pub(crate) struct CpuWatch {
    since: Instant,
    used: Duration,
}

impl CpuWatch {
    /// Begins; `None` when the process is gone.
    pub(crate) fn begin(pid: i32) -> Option<CpuWatch> {
        Some(CpuWatch {
            since: Instant::now(),
            used: cpu_time(pid)?,
        })
    }

    /// Percent of one CPU since the beginning, and a new beginning.
    pub(crate) fn look(&mut self, pid: i32) -> Option<u32> {
        let now = CpuWatch::begin(pid)?;
        let (used, passed) = (now.used.saturating_sub(self.used), now.since - self.since);
        *self = now;
        Some((used.as_secs_f64() / passed.as_secs_f64().max(0.001) * 100.0) as u32)
    }

    /// When it has watched for long enough.
    pub(crate) fn end(&self) -> Instant {
        self.since + WATCH
    }
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15).
fn cpu_time(pid: i32) -> Option<Duration> {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; what follows its last parenthesis does not.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    fn is_due(traffic: &Traffic, rules: BusyRules) -> bool {
        Instant::now() >= traffic.idle_at(LONGEST, rules)
    }

    /// Quiet for twice the longest time.
    fn long_quiet() -> Traffic {
        let mut traffic = Traffic::new();
        traffic.started -= LONGEST * 2;
        traffic
    }

    #[test]
    fn by_default_only_traffic_and_pending_requests_count() {
        let traffic = long_quiet();
        traffic.attach(Attachment::Stream);
        traffic.lease(LONGEST);
        assert!(is_due(&traffic, BusyRules::default()));
        traffic.begin();
        assert!(!is_due(&traffic, BusyRules::default()), "a request waits");
        traffic.end();
        assert!(!is_due(&traffic, BusyRules::default()), "it has just ended");
    }

    #[test]
    fn a_lease_and_an_open_stream_count_where_the_operator_says_so() {
        let leases = BusyRules {
            leases: true,
            ..BusyRules::default()
        };
        let traffic = long_quiet();
        traffic.lease(LONGEST);
        assert!(!is_due(&traffic, leases));
        assert_eq!(traffic.activity(leases).busy.len(), 1);

        let attached = BusyRules {
            attached: true,
            ..BusyRules::default()
        };
        let traffic = long_quiet();
        for (what, named) in [
            (Attachment::Shell, "1 shell is open"),
            (Attachment::Command, "1 command is attached"),
            (Attachment::Stream, "1 stream is open"),
        ] {
            traffic.attach(what);
            assert!(!is_due(&traffic, attached));
            assert_eq!(traffic.activity(attached).busy, [named]);
            assert!(is_due(&traffic, BusyRules::default()));
            traffic.detach(what);
            assert!(is_due(&traffic, attached));
        }
        traffic.attach(Attachment::Shell);
        traffic.attach(Attachment::Shell);
        assert_eq!(traffic.activity(attached).busy, ["2 shells are open"]);
    }

    #[test]
    fn a_process_that_works_is_told_from_one_that_waits() {
        let pid = std::process::id() as i32;
        let mut watch = CpuWatch::begin(pid).expect("this process");
        let began = cpu_time(pid).expect("this process");
        while cpu_time(pid).expect("this process") < began + Duration::from_millis(100) {}
        assert!(watch.look(pid).expect("this process") > 0);
        assert!(CpuWatch::begin(i32::MAX).is_none());
    }
}
