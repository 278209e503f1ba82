//! One stream: its segments on disk and its lines in memory.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use crate::{Limits, disk::Meta, pending::Pending, read};

/// A stream rolls over to a new segment this many times within its limit.
const SEGMENTS: u64 = 8;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) created_ms: i64,
    pub(crate) dir: PathBuf,
    pending: Mutex<Pending>,
    files: Mutex<Files>,
    /// Set under the lock of `files`, read without: writers do not wait for the disk.
    deleted: AtomicBool,
    /// Counts flushes for followers.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Files {
    segments: VecDeque<Segment>,
    next: u64,
    ingested_ms: Option<i64>,
}

/// A file of a stream as far as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// Earliest and latest timestamp in it; `None` while unknown or empty.
    pub(crate) times: Option<(i64, i64)>,
    written_ms: i64,
}

impl Stream {
    /// Reads what is on disk, cutting off a torn last line.
    pub(crate) fn load(dir: PathBuf, meta: Meta) -> io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_suffix(".jsonl"))
                .and_then(|name| name.parse().ok());
            let Some(number) = number else { continue };
            let metadata = entry.metadata()?;
            let written = metadata
                .modified()?
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            let written_ms = i64::try_from(written.as_millis()).unwrap_or(i64::MAX);
            segments.push(Segment {
                number,
                bytes: metadata.len(),
                times: None,
                written_ms,
            });
        }
        segments.sort_by_key(|segment| segment.number);
        if let Some(last) = segments.last_mut() {
            last.bytes = repair(&path(&dir, last.number), last.bytes)?;
        }
        let (first, last) = (segments.first().copied(), segments.last().copied());
        let files = Files {
            next: last.map_or(1, |segment| segment.number + 1),
            ingested_ms: last.map(|segment| segment.written_ms),
            segments: segments.into(),
        };
        let stream = Self {
            name: meta.name,
            created_ms: meta.created_ms,
            dir,
            pending: Mutex::new(Pending::new()),
            files: Mutex::new(files),
            deleted: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        };
        // The ends tell the stream's first and last event; what is between is learnt when it is read.
        for segment in first.iter().chain(&last) {
            stream.read(segment.number)?;
        }
        Ok(stream)
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the waiting lines to the newest segment; the change of bytes on disk.
    pub(crate) fn flush(&self, limits: &Limits, sync: bool) -> io::Result<i64> {
        let mut files = self.files();
        let batch = self.pending().take();
        if self.is_deleted() {
            return Ok(0);
        }
        if batch.lines.is_empty() {
            if let Some(last) = files.segments.back().filter(|_| sync) {
                File::open(path(&self.dir, last.number))?.sync_data()?;
            }
            return Ok(0);
        }
        let roll = files
            .segments
            .back()
            .is_none_or(|last| last.bytes >= limits.stream_bytes / SEGMENTS);
        if roll {
            let number = files.next;
            files.next += 1;
            files.segments.push_back(Segment {
                number,
                bytes: 0,
                times: None,
                written_ms: 0,
            });
        }
        let Some(last) = files.segments.back_mut() else {
            return Ok(0);
        };
        append(&path(&self.dir, last.number), last.bytes, &batch.lines, sync)?;
        if roll && sync {
            crate::disk::sync(&self.dir)?;
        }
        let now = crate::now_ms();
        if let Some((first, latest)) = batch.times {
            // Unknown times of a segment with events stay unknown until it is read.
            let known = last.times.or((last.bytes == 0).then_some((first, latest)));
            last.times = known.map(|(from, to)| (from.min(first), to.max(latest)));
        }
        last.bytes += batch.lines.len() as u64;
        last.written_ms = now;
        files.ingested_ms = Some(now);
        let mut change = batch.lines.len() as i64;
        while files.segments.len() > 1 && files.bytes() > limits.stream_bytes {
            change -= self.pop(&mut files);
        }
        drop(files);
        self.changed.send_modify(|count| *count += 1);
        Ok(change)
    }

    /// Drops the oldest segment, even the one being written; the bytes freed.
    pub(crate) fn drop_oldest(&self) -> i64 {
        self.pop(&mut self.files())
    }

    fn pop(&self, files: &mut Files) -> i64 {
        let Some(oldest) = files.segments.pop_front() else {
            return 0;
        };
        if let Err(error) = fs::remove_file(path(&self.dir, oldest.number)) {
            tracing::warn!(stream = %self.name, %error, "a log segment could not be removed");
        }
        i64::try_from(oldest.bytes).unwrap_or(i64::MAX)
    }

    pub(crate) fn mark_deleted(&self) {
        let files = self.files();
        self.deleted.store(true, Ordering::Release);
        drop(files);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn delete(&self) -> io::Result<()> {
        self.mark_deleted();
        crate::disk::remove(&self.dir)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> i64 {
        i64::try_from(self.files().bytes()).unwrap_or(i64::MAX)
    }

    /// When the oldest segment was last written; a stream without any counts from its creation.
    pub(crate) fn oldest_ms(&self) -> i64 {
        self.files()
            .segments
            .front()
            .map_or(self.created_ms, |segment| segment.written_ms)
    }

    /// First event, last event and last ingestion.
    pub(crate) fn times(&self) -> (Option<i64>, Option<i64>, Option<i64>) {
        let files = self.files();
        let known = || files.segments.iter().filter_map(|segment| segment.times);
        (
            known().map(|(first, _)| first).min(),
            known().map(|(_, last)| last).max(),
            files.ingested_ms,
        )
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.files().segments.iter().copied().collect()
    }

    /// What is written of a segment; nothing if it has been dropped meanwhile.
    pub(crate) fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        let Some(segment) = self
            .segments()
            .into_iter()
            .find(|segment| segment.number == number)
        else {
            return Ok(Vec::new());
        };
        let file = match File::open(path(&self.dir, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut data = Vec::with_capacity(usize::try_from(segment.bytes).unwrap_or(0));
        file.take(segment.bytes).read_to_end(&mut data)?;
        if segment.times.is_none() {
            let times = read::times(&data);
            let mut files = self.files();
            let found = files
                .segments
                .iter_mut()
                .find(|found| found.number == number && found.bytes == segment.bytes);
            if let Some(found) = found {
                found.times = times;
            }
        }
        Ok(data)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Files {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.jsonl"))
}

/// Appends at `end`; what cannot be written whole (a full disk) is taken back.
fn append(path: &Path, end: u64, lines: &[u8], sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)?;
    file.seek(SeekFrom::Start(end))?;
    if let Err(error) = file.write_all(lines) {
        file.set_len(end)?;
        return Err(error);
    }
    if sync { file.sync_data() } else { Ok(()) }
}

/// Cuts a segment after its last whole line; its length then.
fn repair(path: &Path, length: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(64 << 10);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}
