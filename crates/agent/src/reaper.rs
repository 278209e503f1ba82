//! Every child of PID 1, its own and the orphans: one thread reaps them all and hands each status to who waits for it.
use std::collections::HashMap;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;
use hearth_agent_protocol::ExitStatus;

use crate::held;

/// The table of awaited processes. While it is locked nothing is reaped, so a process id seen under the lock stays
/// that process's own.
#[derive(Default)]
pub struct Reaper {
    awaited: Mutex<Awaited>,
    spawned: Condvar,
}

/// What the lock guards.
#[derive(Default)]
pub struct Awaited {
    exits: HashMap<libc::pid_t, PipeWriter>,
    generation: u64,
}

/// Where the status of one process will arrive; readable (for `poll`) once it has ended.
pub struct Exit(PipeReader);

impl Reaper {
    /// A reaper with its thread, for the life of the process.
    pub fn start() -> anyhow::Result<&'static Reaper> {
        let reaper: &'static Reaper = Box::leak(Box::default());
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                loop {
                    reaper.reap_next();
                }
            })
            .context("cannot start the reaper")?;
        Ok(reaper)
    }

    /// Holds reaping off while children are made.
    pub fn lock(&self) -> MutexGuard<'_, Awaited> {
        held(&self.awaited)
    }

    /// Tells a reaper that found no children that there are some now. Call after the lock is gone.
    pub fn wake(&self) {
        self.lock().generation += 1;
        self.spawned.notify_all();
    }

    /// Sends a signal to an awaited process; false when it has ended already.
    pub fn signal(&self, pid: libc::pid_t, signal: i32) -> bool {
        let awaited = self.lock();
        // SAFETY: kill touches no memory. The process is not reaped while the lock is held, so `pid` is not another's.
        awaited.is_alive(pid) && unsafe { libc::kill(pid, signal) } == 0
    }

    /// Sends a signal to the process group that an awaited process leads; false when that process has ended already.
    pub fn signal_group(&self, leader: libc::pid_t, signal: i32) -> bool {
        let awaited = self.lock();
        // SAFETY: as for `signal`; what is not reaped keeps its group's id, too.
        awaited.is_alive(leader) && unsafe { libc::kill(-leader, signal) } == 0
    }

    fn reap_next(&self) {
        let generation = self.lock().generation;
        // Look without reaping first: the status is taken under the lock, where a new child's registration is complete.
        let Some(ended) = wait_id(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT) else {
            // No children at all, hence no orphans to come either, until one is made.
            let mut awaited = self.lock();
            while awaited.generation == generation {
                awaited = self.spawned.wait(awaited).unwrap_or_else(PoisonError::into_inner);
            }
            return;
        };
        let mut awaited = self.lock();
        let reaped = wait_id(libc::P_PID, ended.0 as libc::id_t, libc::WEXITED | libc::WNOHANG);
        if let (Some((pid, status)), Some(mut exit)) = (reaped, awaited.exits.remove(&ended.0)) {
            debug_assert_eq!(pid, ended.0);
            // Nobody may be waiting any more.
            let _ = exit.write_all(&encode(status));
        }
    }
}

impl Awaited {
    /// Whether an expected process has not been reaped yet.
    pub fn is_alive(&self, pid: libc::pid_t) -> bool {
        self.exits.contains_key(&pid)
    }

    /// Registers a process whose status somebody wants.
    pub fn expect(&mut self, pid: libc::pid_t) -> anyhow::Result<Exit> {
        let (reader, writer) = pipe().context("cannot make a pipe")?;
        self.exits.insert(pid, writer);
        Ok(Exit(reader))
    }
}

impl Exit {
    /// Waits for the end of the process.
    pub fn wait(mut self) -> ExitStatus {
        let mut bytes = [0; 5];
        // The writer lives in the table until it has written, so a failure cannot be but a lost process.
        match self.0.read_exact(&mut bytes) {
            Ok(()) => decode(bytes),
            Err(_) => ExitStatus::Signal(libc::SIGKILL),
        }
    }
}

impl std::os::fd::AsFd for Exit {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn encode(status: ExitStatus) -> [u8; 5] {
    let (kind, [a, b, c, d]) = match status {
        ExitStatus::Code(code) => (0, code.to_le_bytes()),
        ExitStatus::Signal(signal) => (1, signal.to_le_bytes()),
    };
    [kind, a, b, c, d]
}

fn decode([kind, a, b, c, d]: [u8; 5]) -> ExitStatus {
    let value = i32::from_le_bytes([a, b, c, d]);
    if kind == 0 {
        ExitStatus::Code(value)
    } else {
        ExitStatus::Signal(value)
    }
}

/// `waitid`, not the typed wrappers around it: they know no real-time signals, and would lose the status of a process
/// that died of one. `None` when there is nothing to wait for.
fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: i32) -> Option<(libc::pid_t, ExitStatus)> {
    loop {
        // SAFETY: an all-zero siginfo_t is a valid value; the kernel only writes into it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid siginfo_t for the duration of the call.
        if unsafe { libc::waitid(kind, id, &mut info, options) } != 0 {
            if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return None;
        }
        // SAFETY: waitid filled the fields of SIGCHLD, or left them zero.
        let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
        let status = if info.si_code == libc::CLD_EXITED {
            ExitStatus::Code(value)
        } else {
            ExitStatus::Signal(value)
        };
        return (pid != 0).then_some((pid, status));
    }
}
