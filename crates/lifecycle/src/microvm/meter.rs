//! What MicroVMs and image versions use, told to the meters (spec section 30).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hearth_guest::{Snapshot, guest::delta_path, snapshot::device_state_path};
use hearth_storage::disk;
use hearth_usage::{Sample, Subject};

use super::{
    activity::Traffic,
    record::{MicrovmRecord, Stage},
};
use crate::{
    Service,
    image::{
        record::VersionRecord,
        task::{snapshot_bytes, tier_of},
    },
    node::{Node, scratch_of, suspended_of},
};

/// Pause between two rounds; a change of state is told at once.
const EVERY: Duration = Duration::from_secs(5);

fn subject_of(record: &MicrovmRecord) -> Subject {
    Subject {
        account: record.account.clone(),
        microvm_id: Some(record.id.clone()),
        image_arn: record.image_arn.clone(),
        image_version: record.image_version.clone(),
        memory_mib: record.memory_mib,
    }
}

fn subject_of_version(version: &VersionRecord) -> Subject {
    Subject {
        account: version.account.clone(),
        microvm_id: None,
        image_arn: version.image_arn.clone(),
        image_version: version.version.clone(),
        memory_mib: u64::try_from(tier_of(&version.specification).minimum_memory_mib).unwrap_or_default(),
    }
}

/// Tells what a MicroVM has used in its stage until now.
pub(crate) fn advance(node: &Node, record: &MicrovmRecord, traffic: &Traffic) {
    if record.stage == Stage::Terminated {
        return;
    }
    let subject = subject_of(record);
    let (received, sent) = traffic.take_counts();
    if received + sent > 0 {
        node.usage.add(&subject, |meters| {
            meters.proxy_received_bytes += received;
            meters.proxy_sent_bytes += sent;
        });
    }
    let sample = record.guest.as_ref().and_then(|guest| sample(guest.process.pid));
    let stored = match record.stage {
        Stage::Suspended | Stage::Resuming => {
            let directory = node.microvm_directory(&record.id);
            let mut files = suspend_files(&suspended_of(&directory, record.suspends));
            files.push(scratch_of(&directory));
            bytes(&files)
        }
        _ => 0,
    };
    let state = record.stage.state().to_string();
    node.usage
        .advance(&subject, &state, record.started_at, sample, stored);
}

/// A launch or resume has read files.
pub(crate) fn read(node: &Node, record: &MicrovmRecord, files: &[PathBuf]) {
    let bytes = bytes(files);
    node.usage
        .add(&subject_of(record), |meters| meters.snapshot_read_bytes += bytes);
}

/// A suspend has written files.
pub(crate) fn written(node: &Node, record: &MicrovmRecord, files: &[PathBuf]) {
    let bytes = bytes(files);
    node.usage.add(&subject_of(record), |meters| {
        meters.snapshot_written_bytes += bytes
    });
}

/// A build has written a snapshot.
pub(crate) fn built(node: &Node, version: &VersionRecord, bytes: u64) {
    node.usage.add(&subject_of_version(version), |meters| {
        meters.snapshot_written_bytes += bytes;
    });
}

/// What a launch reads of an image's snapshot.
pub(crate) fn snapshot_files(snapshot: &Snapshot) -> Vec<PathBuf> {
    vec![snapshot.memory(), snapshot.scratch(), snapshot.device_state()]
}

/// What a suspend writes and a resume reads.
pub(crate) fn suspend_files(suspended: &Path) -> Vec<PathBuf> {
    vec![delta_path(suspended), device_state_path(suspended)]
}

/// What files take on disk; one that is not there takes nothing.
fn bytes(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .map(|file| disk::allocated_bytes(file).unwrap_or_default())
        .sum()
}

/// What a VMM's process has used; `None` when it has ended.
fn sample(pid: i32) -> Option<Sample> {
    let stat = procfs::process::Process::new(pid)
        .and_then(|process| process.stat())
        .ok()?;
    let ticks = (stat.utime + stat.stime) as f64;
    Some(Sample {
        pid,
        cpu_seconds: ticks / procfs::ticks_per_second() as f64,
        resident_bytes: stat.rss * procfs::page_size(),
    })
}

impl Service {
    /// Meters everything again and again.
    pub(crate) async fn keep_meters(self) {
        let mut last = std::time::Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            self.meter_everything().await;
            let hours = last.elapsed().as_secs_f64() / 3600.0;
            last = std::time::Instant::now();
            self.meter_versions(hours).await;
        }
    }

    /// Tells what every MicroVM has used until now.
    pub(crate) async fn meter_everything(&self) {
        let (service, microvms) = (self.clone(), self.registry().all().cloned().collect::<Vec<_>>());
        let metered = tokio::task::spawn_blocking(move || {
            for microvm in microvms {
                let record = microvm.record.borrow().clone();
                advance(service.node(), &record, &microvm.traffic);
            }
        });
        if let Err(error) = metered.await {
            tracing::error!(%error, "the meters could not be read");
        }
    }

    /// Tells what the snapshots of image versions took on disk.
    async fn meter_versions(&self, hours: f64) {
        let catalog = self.inner.catalog.lock().await;
        for version in catalog.versions() {
            let bytes = version.sizes().map_or(0, snapshot_bytes);
            if version.container.is_some() && bytes > 0 {
                let gb_hours = bytes as f64 / f64::from(1 << 30) * hours;
                self.node().usage.add(&subject_of_version(version), |meters| {
                    meters.snapshot_stored_gb_hours += gb_hours;
                });
            }
        }
    }
}
