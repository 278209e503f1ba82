//! Lines on their way to the disk, and the rate they are held to.

use std::time::Instant;

use serde::Serialize;

use crate::Limits;

/// An event as a line of a segment.
#[derive(Serialize)]
struct Line<'a> {
    t: i64,
    i: i64,
    m: &'a str,
}

/// Lines in memory.
#[derive(Debug)]
pub(crate) struct Pending {
    lines: Vec<u8>,
    /// Earliest and latest timestamp among the lines.
    times: Option<(i64, i64)>,
    queued: bool,
    allowance: u64,
    refilled: Option<Instant>,
    dropped_lines: u64,
    dropped_bytes: u64,
}

/// What has become of a line.
pub(crate) struct Pushed {
    /// The rate had room for it.
    pub(crate) is_kept: bool,
    /// The caller is to see to it that the stream is flushed.
    pub(crate) is_first: bool,
}

/// Lines taken out to be written.
pub(crate) struct Batch {
    pub(crate) lines: Vec<u8>,
    pub(crate) times: Option<(i64, i64)>,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::new(),
            times: None,
            queued: false,
            allowance: 0,
            refilled: None,
            dropped_lines: 0,
            dropped_bytes: 0,
        }
    }

    /// Whether the rate allows so much more now.
    pub(crate) fn admits(&mut self, bytes: usize, limits: &Limits) -> bool {
        let now = Instant::now();
        let elapsed = self
            .refilled
            .map_or(u128::MAX, |then| now.duration_since(then).as_micros());
        let earned = elapsed.saturating_mul(u128::from(limits.bytes_per_second)) / 1_000_000;
        if earned > 0 {
            let earned = u64::try_from(earned).unwrap_or(u64::MAX);
            self.allowance = self.allowance.saturating_add(earned).min(limits.burst_bytes);
            self.refilled = Some(now);
        }
        bytes as u64 <= self.allowance
    }

    /// Takes a line in, or counts it as lost where it is over the rate.
    pub(crate) fn push(&mut self, timestamp_ms: i64, message: &str, limits: &Limits) -> Pushed {
        // A line costs its envelope, too: empty lines are not free.
        let cost = message.len() + 48;
        let is_kept = self.admits(cost, limits);
        if is_kept {
            self.allowance -= cost as u64;
            self.append(timestamp_ms, message);
        } else {
            self.lose(1, message.len() as u64);
        }
        Pushed {
            is_kept,
            is_first: !std::mem::replace(&mut self.queued, true),
        }
    }

    /// Counts lines that are over the rate.
    pub(crate) fn lose(&mut self, lines: u64, bytes: u64) {
        self.dropped_lines += lines;
        self.dropped_bytes += bytes;
    }

    /// Takes the lines out, with a word on those lost.
    pub(crate) fn take(&mut self) -> Batch {
        if self.dropped_lines > 0 {
            let (lines, bytes) = (
                std::mem::take(&mut self.dropped_lines),
                std::mem::take(&mut self.dropped_bytes),
            );
            let text = format!(
                "[hearth] {lines} lines ({bytes} bytes) were dropped: this log stream is over its rate"
            );
            self.append(crate::now_ms(), &text);
        }
        self.queued = false;
        Batch {
            lines: std::mem::take(&mut self.lines),
            times: self.times.take(),
        }
    }

    fn append(&mut self, timestamp_ms: i64, message: &str) {
        let line = Line {
            t: timestamp_ms,
            i: crate::now_ms(),
            m: message,
        };
        serde_json::to_writer(&mut self.lines, &line).expect("numbers and a string are always JSON");
        self.lines.push(b'\n');
        let (first, last) = self.times.unwrap_or((timestamp_ms, timestamp_ms));
        self.times = Some((first.min(timestamp_ms), last.max(timestamp_ms)));
    }
}
