//! The wall clock.
use std::time::Duration;

use anyhow::Context;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// Sets CLOCK_REALTIME to this many nanoseconds since the epoch.
pub fn set(wall_clock_ns: u64) -> anyhow::Result<()> {
    clock_settime(
        ClockId::CLOCK_REALTIME,
        TimeSpec::from_duration(Duration::from_nanos(wall_clock_ns)),
    )
    .context("cannot set the wall clock")
}
