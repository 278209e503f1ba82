//! What MicroVMs and image versions use (spec section 30), by the hour.
//!
//! Rooms above report what passes; a record an hour and subject is written to the database every few seconds, so that a crash
//! costs no more than that. Time is measured from one report on a MicroVM to the next, across restarts of the daemon.
#![forbid(unsafe_code)]

mod record;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use hearth_state::{Changes, State, StateError, Table};
use hearth_wire::{Timestamp, types::Meters};
use record::{HOUR_MS, Record};

pub use record::Subject;

/// How long a report may wait in memory.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// How long it is remembered how far a MicroVM was metered: longer than any lives.
const MARK_HOURS: i64 = 48;

/// What a MicroVM's process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Tells one process from the next.
    pub pid: i32,
    /// CPU time since the process began.
    pub cpu_seconds: f64,
    /// Memory it holds now.
    pub resident_bytes: u64,
}

/// How far a MicroVM has been metered.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    until: Timestamp,
    pid: i32,
    cpu_seconds: f64,
}

/// The meters of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    meters: Mutex<Open>,
    /// One flush at a time: an older state of a record never replaces a newer.
    flushing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Open {
    /// By id: those of this hour, and older ones that are not written yet.
    records: BTreeMap<String, (Record, bool)>,
    marks: HashMap<String, Mark>,
}

impl Usage {
    /// Goes on with what a former daemon has written. Records older than `retention` are removed now and then.
    pub async fn open(state: State, retention: Duration) -> Result<Usage, StateError> {
        let now = Timestamp::now();
        let mut open = Open::default();
        let from = hour_of(now) - MARK_HOURS;
        let records: Vec<Record> = state
            .range(Table::Usage, &Record::first_id(from), &Record::first_id(i64::MAX))
            .await?;
        for record in records {
            if let (Some(id), Some(mark)) = (&record.subject.microvm_id, record.mark) {
                open.marks.insert(id.clone(), mark);
            }
            if record.hour == hour_of(now) {
                open.records.insert(record.id(), (record, false));
            }
        }
        let usage = Usage {
            inner: Arc::new(Inner {
                state,
                meters: Mutex::new(open),
                flushing: tokio::sync::Mutex::default(),
            }),
        };
        tokio::spawn(flush_in_turn(Arc::downgrade(&usage.inner), retention));
        Ok(usage)
    }

    /// Adds to what a subject has used.
    pub fn add(&self, subject: &Subject, add: impl FnOnce(&mut Meters)) {
        add(&mut self.open_meters().record(subject, Timestamp::now()).meters);
    }

    /// A MicroVM was in `state` since the last report on it, or since `began` when this is the first. `stored_bytes` is what
    /// it keeps on disk while suspended.
    pub fn advance(
        &self,
        subject: &Subject,
        state: &str,
        began: Timestamp,
        sample: Option<Sample>,
        stored_bytes: u64,
    ) {
        let Some(id) = &subject.microvm_id else { return };
        let now = Timestamp::now();
        let mut open = self.open_meters();
        let last = open.marks.get(id).copied();
        let seconds = now.since(last.map_or(began, |mark| mark.until)).as_secs_f64();
        let mark = Mark {
            until: now,
            pid: sample.map_or(0, |sample| sample.pid),
            cpu_seconds: sample.map_or(0.0, |sample| sample.cpu_seconds),
        };
        open.marks.insert(id.clone(), mark);
        let record = open.record(subject, now);
        record.mark = Some(mark);
        let meters = &mut record.meters;
        *meters.seconds_by_state.entry(state.to_owned()).or_default() += seconds;
        meters.snapshot_stored_gb_hours += gb(stored_bytes) * seconds / 3600.0;
        if state != "RUNNING" {
            return;
        }
        meters.baseline_vcpu_seconds += subject.baseline_vcpus() * seconds;
        meters.baseline_memory_gb_seconds += subject.baseline_gb() * seconds;
        let Some(sample) = sample else { return };
        let used = match last {
            Some(mark) if mark.pid == sample.pid => sample.cpu_seconds - mark.cpu_seconds,
            _ => sample.cpu_seconds,
        };
        meters.vcpu_seconds_above_baseline += (used - subject.baseline_vcpus() * seconds).max(0.0);
        let above = (gb(sample.resident_bytes) - subject.baseline_gb()).max(0.0);
        meters.memory_gb_seconds_above_baseline += above * seconds;
    }

    /// What an account has used from one time to another, to the whole hours that contain them: a record a subject, in the
    /// order in which they began.
    pub async fn report(
        &self,
        account: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Subject, Meters)>, StateError> {
        self.flush().await?;
        let ids = (
            Record::first_id(hour_of(from)),
            Record::first_id(hour_of(to).saturating_add(1)),
        );
        let records: Vec<Record> = self.inner.state.range(Table::Usage, &ids.0, &ids.1).await?;
        let mut sums: Vec<(Subject, Meters)> = Vec::new();
        let mut places = HashMap::new();
        for record in records {
            if record.subject.account != account {
                continue;
            }
            let place = *places.entry(record.subject.key()).or_insert(sums.len());
            match sums.get_mut(place) {
                Some((_, meters)) => meters.add(&record.meters),
                None => sums.push((record.subject, record.meters)),
            }
        }
        Ok(sums)
    }

    /// Writes down what is new.
    pub async fn flush(&self) -> Result<(), StateError> {
        let _alone = self.inner.flushing.lock().await;
        let mut changes = Changes::new();
        let mut written = Vec::new();
        {
            let mut open = self.open_meters();
            for (id, (record, dirty)) in open.records.iter_mut().filter(|(_, (_, dirty))| *dirty) {
                changes = changes.put(Table::Usage, id, &record.subject.account, record)?;
                *dirty = false;
                written.push(id.clone());
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        let committed = self.inner.state.commit(changes).await;
        let hour = hour_of(Timestamp::now());
        let mut open = self.open_meters();
        if committed.is_err() {
            for id in &written {
                if let Some((_, dirty)) = open.records.get_mut(id) {
                    *dirty = true;
                }
            }
        }
        open.records
            .retain(|_, (record, dirty)| *dirty || record.hour >= hour);
        committed
    }

    fn open_meters(&self) -> MutexGuard<'_, Open> {
        self.inner.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The record of a subject for this hour; it is going to change.
    fn record(&mut self, subject: &Subject, now: Timestamp) -> &mut Record {
        let fresh = Record::new(subject, hour_of(now));
        let (record, dirty) = self.records.entry(fresh.id()).or_insert_with(|| (fresh, true));
        *dirty = true;
        record
    }
}

async fn flush_in_turn(inner: Weak<Inner>, retention: Duration) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let usage = Usage { inner };
        if let Err(error) = usage.flush().await {
            tracing::error!(%error, "usage could not be written down; it is tried again");
        }
        let now = Timestamp::now().as_millis();
        let oldest = i64::try_from(retention.as_millis()).map_or(0, |kept| (now - kept) / HOUR_MS);
        let (first, end) = (Record::first_id(0), Record::first_id(oldest.max(0)));
        match usage.inner.state.remove_range(Table::Usage, &first, &end).await {
            Err(error) if error.is_closed() => return,
            Err(error) => tracing::error!(%error, "old usage records could not be removed"),
            Ok(_) => {}
        }
    }
}

fn hour_of(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(HOUR_MS)
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ACCOUNT: &str = "111122223333";

    async fn usage(directory: &Path) -> Usage {
        let state = State::open(&directory.join("state.db"))
            .await
            .expect("a database");
        Usage::open(state, Duration::from_secs(3600 * 24))
            .await
            .expect("opens")
    }

    fn subject(microvm: Option<&str>) -> Subject {
        Subject {
            account: ACCOUNT.into(),
            microvm_id: microvm.map(str::to_owned),
            image_arn: "arn:aws:lambda:us-east-1:111122223333:microvm-image:demo".into(),
            image_version: "1.0".into(),
            memory_mib: 1024,
        }
    }

    fn ago(seconds: i64) -> Timestamp {
        Timestamp::from_millis(Timestamp::now().as_millis() - seconds * 1000)
    }

    fn sample(cpu_seconds: f64, resident_gb: u64) -> Option<Sample> {
        Some(Sample {
            pid: 7,
            cpu_seconds,
            resident_bytes: resident_gb << 30,
        })
    }

    async fn of_microvm(usage: &Usage) -> Meters {
        let report = usage
            .report(ACCOUNT, ago(7200), Timestamp::now())
            .await
            .expect("read");
        let mut found = report
            .into_iter()
            .filter(|(subject, _)| subject.microvm_id.is_some());
        let (_, meters) = found.next().expect("the MicroVM's");
        assert!(found.next().is_none(), "one sum a MicroVM");
        meters
    }

    #[tokio::test]
    async fn what_lies_above_the_baseline_is_measured_beside_it() {
        let directory = tempfile::tempdir().expect("temp dir");
        let usage = usage(directory.path()).await;
        usage.advance(&subject(Some("m")), "RUNNING", ago(100), sample(80.0, 3), 0);
        let meters = of_microvm(&usage).await;
        let near =
            |value: f64, wanted: f64| assert!((value - wanted).abs() < 0.05 * wanted, "{value} {wanted}");
        near(meters.seconds_by_state["RUNNING"], 100.0);
        near(meters.baseline_vcpu_seconds, 50.0);
        near(meters.vcpu_seconds_above_baseline, 30.0);
        near(meters.baseline_memory_gb_seconds, 100.0);
        near(meters.memory_gb_seconds_above_baseline, 200.0);
    }

    #[tokio::test]
    async fn a_suspended_microvm_uses_storage_alone() {
        let directory = tempfile::tempdir().expect("temp dir");
        let usage = usage(directory.path()).await;
        usage.advance(&subject(Some("m")), "SUSPENDED", ago(1800), None, 4 << 30);
        let meters = of_microvm(&usage).await;
        assert!((meters.snapshot_stored_gb_hours - 2.0).abs() < 0.1, "{meters:?}");
        assert_eq!(
            (meters.baseline_vcpu_seconds, meters.baseline_memory_gb_seconds),
            (0.0, 0.0)
        );
    }

    #[tokio::test]
    async fn a_new_daemon_goes_on_where_the_former_one_was() {
        let directory = tempfile::tempdir().expect("temp dir");
        let first = usage(directory.path()).await;
        first.add(&subject(Some("m")), |meters| meters.snapshot_read_bytes += 10);
        first.advance(&subject(Some("m")), "RUNNING", ago(100), sample(10.0, 0), 0);
        first.flush().await.expect("written");
        drop(first);
        let second = usage(directory.path()).await;
        second.add(&subject(Some("m")), |meters| meters.snapshot_read_bytes += 5);
        // The mark tells that the first hundred seconds have been counted.
        second.advance(&subject(Some("m")), "RUNNING", ago(100), sample(10.0, 0), 0);
        let meters = of_microvm(&second).await;
        assert_eq!(meters.snapshot_read_bytes, 15);
        assert!(
            (99.0..150.0).contains(&meters.seconds_by_state["RUNNING"]),
            "{meters:?}"
        );
    }

    #[tokio::test]
    async fn an_account_sees_its_own_usage_of_the_hours_it_asks_for() {
        let directory = tempfile::tempdir().expect("temp dir");
        let usage = usage(directory.path()).await;
        usage.add(&subject(None), |meters| meters.snapshot_written_bytes += 1);
        let now = Timestamp::now();
        assert_eq!(usage.report(ACCOUNT, now, now).await.expect("read").len(), 1);
        assert!(
            usage
                .report("444455556666", now, now)
                .await
                .expect("read")
                .is_empty()
        );
        let later = now.plus(Duration::from_secs(7200));
        assert!(
            usage
                .report(ACCOUNT, later, later)
                .await
                .expect("read")
                .is_empty()
        );
    }
}
