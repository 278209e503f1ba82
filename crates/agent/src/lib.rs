//! The guest agent: PID 1 of a MicroVM.
//!
//! [`boot`] brings the machine up, [`serve`] answers the host. Plain blocking threads, one for each connection: a guest
//! that was just restored under emulation pays for every code path it enters, so the ways through `Thaw`, `Hook` and
//! `Forward` are short on purpose.
//!
//! Two kinds of process come of this one binary: the agent itself, and (see [`container`]) the child that arranges
//! namespaces, mounts, identity and capabilities before it becomes the application or a command beside it.

pub mod application;
pub mod boot;
pub mod clock;
pub mod connections;
pub mod container;
pub mod disks;
pub mod entropy;
pub mod exec;
pub mod files;
pub mod forward;
pub mod freezer;
pub mod hook;
pub mod listeners;
pub mod loopback;
pub mod modules;
pub mod net;
pub mod output;
pub mod reaper;
pub mod serve;
pub mod streams;
pub mod terminal;

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Writes one line to the console; a console that cannot be written to is no reason to stop.
pub(crate) fn console(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "hearth-agent {line}");
}

/// Locks even after a panic elsewhere: PID 1 must go on, and no data behind a lock here is left half-changed.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
