//! Processor time near a guest's peak: only what no other guest has a use for.
//!
//! Weights divide a scarce processor fairly, and yet a guest that computes without an end makes each request of its neighbour wait for a
//! turn. So a guest has credit, which grows with three quarters of its peak and pays for all the time in which it runs or
//! wants to. One that has used it up stands back behind all others: it has its peak where nobody else wants the processor, and its
//! baseline in any case, since one that has less does not stand back.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_vmm::{
    Vm,
    jail::{Cgroups, Limits},
};
use nix::{time::clock_getcpuclockid, unistd::Pid};

/// How much credit a guest has at most: what its peak takes in this time.
const CREDIT: Duration = Duration::from_millis(250);
/// Between two looks at a guest that has none.
const SHORTEST: Duration = Duration::from_millis(100);

/// Has a guest stand back whenever it has used up its credit, until its process ends.
pub(crate) fn watch(cgroups: Cgroups, name: String, limits: Limits, vm: Arc<dyn Vm>) {
    tokio::spawn(async move {
        let pid = Pid::from_raw(vm.process().pid);
        let Some(mut used_before) = used(pid) else { return };
        let mut waited_before = None;
        let mut credit = Credit::full(limits.cpus);
        let (mut looked, mut stands_back) = (Instant::now(), None);
        loop {
            tokio::select! {
                () = vm.ended() => return,
                () = tokio::time::sleep(credit.lasts()) => {}
            }
            let Some(used_now) = used(pid) else { return };
            let (elapsed, used) = (looked.elapsed(), used_now.saturating_sub(used_before));
            (looked, used_before) = (Instant::now(), used_now);
            let has_baseline = used.as_nanos() * 100 > elapsed.as_nanos() * u128::from(limits.weight);
            // To read it takes longer, and few guests are ever so busy.
            let waited_now = has_baseline.then(|| waited(pid));
            let waited = waited_now
                .zip(waited_before)
                .map(|(now, before): (Duration, Duration)| now.saturating_sub(before));
            waited_before = waited_now;
            credit.pay(used + waited.unwrap_or_default(), elapsed);
            let back = credit.is_used_up() && has_baseline;
            if stands_back == Some(back) {
                continue;
            }
            match cgroups.stand_back(&name, back, limits) {
                Ok(()) => stands_back = Some(back),
                // This kernel knows weights alone, or the group has just been removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => tracing::warn!(%error, name, back, "a guest may burst before others"),
            }
        }
    });
}

/// How long the threads of a process have run; `None` when it has ended.
fn used(pid: Pid) -> Option<Duration> {
    Some(clock_getcpuclockid(pid).ok()?.now().ok()?.into())
}

/// How long the threads of a process have waited for a processor.
fn waited(pid: Pid) -> Duration {
    let tasks = procfs::process::Process::new(pid.as_raw()).and_then(|process| process.tasks());
    let waits = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| task.schedstat().ok());
    Duration::from_nanos(waits.map(|wait| wait.run_delay).sum())
}

/// Processor time that a guest may have before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Credit {
    cpus: u32,
    left: Duration,
}

impl Credit {
    fn full(cpus: u32) -> Credit {
        Credit {
            cpus,
            left: CREDIT * cpus,
        }
    }

    /// What was wanted in this time is paid, and what the time brings is had.
    fn pay(&mut self, wanted: Duration, elapsed: Duration) {
        let earned = self.left + elapsed * self.cpus * 3 / 4;
        self.left = earned.saturating_sub(wanted).min(CREDIT * self.cpus);
    }

    fn is_used_up(self) -> bool {
        self.left.is_zero()
    }

    /// How long it lasts at least, at the guest's peak.
    fn lasts(self) -> Duration {
        (self.left * 4 / self.cpus).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_quarters_of_the_peak_last_for_ever_and_the_peak_for_a_second() {
        let mut credit = Credit::full(2);
        for _ in 0..1000 {
            credit.pay(3 * SECOND, 2 * SECOND);
        }
        assert_eq!(credit, Credit::full(2));
        assert_eq!(credit.lasts(), SECOND);
        credit.pay(SECOND, SECOND / 2);
        assert!(!credit.is_used_up());
        credit.pay(SECOND, SECOND / 2);
        assert!(credit.is_used_up());
        assert_eq!(credit.lasts(), SHORTEST);
    }

    #[test]
    fn it_is_never_a_debt() {
        let mut credit = Credit::full(1);
        credit.pay(100 * SECOND, 10 * SECOND);
        assert!(credit.is_used_up());
        credit.pay(Duration::ZERO, SHORTEST);
        assert!(!credit.is_used_up());
    }

    #[tokio::test]
    async fn a_process_that_computes_runs_or_waits_and_one_that_has_ended_has_no_clock() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("sh starts");
        let pid = Pid::from_raw(child.id() as i32);
        let wanted = || used(pid).expect("alive") + waited(pid);
        let before = wanted();
        tokio::time::sleep(SECOND / 2).await;
        assert!(wanted() > before);
        child.kill().expect("ended");
        child.wait().expect("reaped");
        assert_eq!(used(pid), None);
        assert_eq!(waited(pid), Duration::ZERO);
    }

    #[test]
    fn rest_fills_it_to_the_brim_and_not_further() {
        let mut credit = Credit::full(4);
        credit.pay(4 * SECOND, SECOND);
        credit.pay(Duration::ZERO, 3600 * SECOND);
        assert_eq!(credit, Credit::full(4));
    }
}
