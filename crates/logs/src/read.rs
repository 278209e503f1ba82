//! Reading a stream: pages, positions, followers.

use std::{fmt, io, str::FromStr, sync::Arc};

use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    Logs, LogsError, blocking,
    group::Group,
    stream::{Segment, Stream},
};

/// A page holds at most so many bytes of messages (CloudWatch Logs: 1 MiB), but one event at least.
pub(crate) const PAGE_BYTES: usize = 1 << 20;

/// What an event costs a page beside its message, after CloudWatch Logs.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = 26;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, Unix milliseconds
    pub timestamp_ms: i64,
    /// When it arrived, Unix milliseconds
    pub ingestion_ms: i64,
    /// One line, without its end
    pub message: String,
    /// Where it stands in its stream
    pub position: Position,
}

/// A place between two events of a stream; it stays valid while the stream grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}{:012}", self.segment, self.offset)
    }
}

impl FromStr for Position {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, LogsError> {
        let digits = text.len() == 24 && text.bytes().all(|b| b.is_ascii_digit());
        let halves = digits.then(|| text.split_at(12));
        let parsed = halves.and_then(|(segment, offset)| Some((segment.parse().ok()?, offset.parse().ok()?)));
        let (segment, offset) =
            parsed.ok_or_else(|| LogsError::invalid("The specified nextToken is invalid."))?;
        Ok(Self { segment, offset })
    }
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// The oldest event
    Head,
    /// The newest events; a page ends with the last one
    #[default]
    Tail,
    /// The events after a position
    Forward(Position),
    /// The events before a position
    Backward(Position),
}

/// Which events to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadQuery {
    /// Not before (inclusive), Unix milliseconds
    pub start_ms: Option<i64>,
    /// Before (exclusive), Unix milliseconds
    pub end_ms: Option<i64>,
    /// Where to begin
    pub from: From,
    /// At most so many; 10000 where 0
    pub limit: usize,
}

/// Some events, oldest first, and where to go on from either end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The events
    pub events: Vec<Event>,
    /// What follows; the same again at the end of the stream
    pub forward: Position,
    /// What comes before; the same again at its head
    pub backward: Position,
}

#[derive(Deserialize)]
struct Line {
    t: i64,
    i: i64,
    m: String,
}

/// The events of a segment's data in order; a torn or foreign line is passed over.
pub(crate) fn events(segment: u64, data: &[u8], from: u64) -> impl Iterator<Item = Event> {
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(data.len());
    let mut offset = start as u64;
    data[start..]
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(move |line| {
            let position = Position { segment, offset };
            offset += line.len() as u64;
            let line: Line = serde_json::from_slice(line).ok()?;
            Some(Event {
                timestamp_ms: line.t,
                ingestion_ms: line.i,
                message: line.m,
                position,
            })
        })
}

/// Earliest and latest timestamp of a segment's data.
pub(crate) fn times(data: &[u8]) -> Option<(i64, i64)> {
    events(0, data, 0)
        .map(|event| event.timestamp_ms)
        .fold(None, |times, at| {
            let (first, last) = times.unwrap_or((at, at));
            Some((first.min(at), last.max(at)))
        })
}

impl ReadQuery {
    fn wants(&self, timestamp_ms: i64) -> bool {
        self.start_ms.is_none_or(|start| timestamp_ms >= start)
            && self.end_ms.is_none_or(|end| timestamp_ms < end)
    }

    /// Whether a segment may hold wanted events, by what is known of it.
    fn may_want(&self, segment: &Segment) -> bool {
        segment.times.is_none_or(|(first, last)| {
            self.start_ms.is_none_or(|start| last >= start) && self.end_ms.is_none_or(|end| first < end)
        })
    }
}

/// One page, straight from the segments.
pub(crate) fn page(stream: &Stream, query: &ReadQuery) -> io::Result<Page> {
    let segments = stream.segments();
    let end = segments.last().map_or(Position::default(), |last| Position {
        segment: last.number,
        offset: last.bytes,
    });
    match query.from {
        From::Head => forward(stream, &segments, query, Position::default(), end),
        From::Forward(position) => forward(stream, &segments, query, position, end.max(position)),
        From::Tail => backward(stream, &segments, query, end),
        From::Backward(position) => backward(stream, &segments, query, position),
    }
}

/// Counts a page's events and bytes.
struct Budget {
    events: usize,
    bytes: usize,
    taken: bool,
}

impl Budget {
    fn new(query: &ReadQuery) -> Self {
        let events = if query.limit == 0 {
            10_000
        } else {
            query.limit.min(10_000)
        };
        Self {
            events,
            bytes: PAGE_BYTES,
            taken: false,
        }
    }

    fn admits(&mut self, event: &Event) -> bool {
        let cost = event.message.len() + EVENT_OVERHEAD_BYTES;
        if self.events == 0 || (self.taken && cost > self.bytes) {
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(cost);
        self.taken = true;
        true
    }
}

fn forward(
    stream: &Stream,
    segments: &[Segment],
    query: &ReadQuery,
    from: Position,
    end: Position,
) -> io::Result<Page> {
    let mut budget = Budget::new(query);
    let mut page = Page {
        events: Vec::new(),
        forward: end,
        backward: from,
    };
    'segments: for segment in segments
        .iter()
        .filter(|segment| segment.number >= from.segment && query.may_want(segment))
    {
        let offset = if segment.number == from.segment {
            from.offset
        } else {
            0
        };
        if offset >= segment.bytes {
            continue;
        }
        let data = stream.read(segment.number)?;
        for event in events(segment.number, &data, offset).filter(|event| query.wants(event.timestamp_ms)) {
            if !budget.admits(&event) {
                page.forward = event.position;
                break 'segments;
            }
            page.events.push(event);
        }
        // The stream may have grown since its end was looked up.
        page.forward = page.forward.max(Position {
            segment: segment.number,
            offset: data.len() as u64,
        });
    }
    if let Some(first) = page.events.first() {
        page.backward = first.position;
    }
    Ok(page)
}

fn backward(stream: &Stream, segments: &[Segment], query: &ReadQuery, from: Position) -> io::Result<Page> {
    let mut budget = Budget::new(query);
    let mut page = Page {
        events: Vec::new(),
        forward: from,
        backward: Position::default(),
    };
    'segments: for segment in segments
        .iter()
        .rev()
        .filter(|segment| segment.number <= from.segment && query.may_want(segment))
    {
        let end = if segment.number == from.segment {
            from.offset
        } else {
            u64::MAX
        };
        let data = stream.read(segment.number)?;
        let wanted = |event: &Event| event.position.offset < end && query.wants(event.timestamp_ms);
        let found: Vec<Event> = events(segment.number, &data, 0).filter(wanted).collect();
        for event in found.into_iter().rev() {
            if !budget.admits(&event) {
                // Before the oldest event taken there is this one.
                page.backward = page.events.last().map_or(from, |oldest| oldest.position);
                break 'segments;
            }
            page.events.push(event);
        }
    }
    page.events.reverse();
    Ok(page)
}

/// Yields a stream's events as they are written.
#[derive(Debug)]
pub struct Follower {
    logs: Logs,
    group: Arc<Group>,
    stream: Arc<Stream>,
    position: Position,
    changed: watch::Receiver<u64>,
}

impl Follower {
    pub(crate) async fn new(
        logs: Logs,
        group: Arc<Group>,
        stream: Arc<Stream>,
        from: From,
    ) -> Result<Self, LogsError> {
        let changed = stream.subscribe();
        let position = match from {
            From::Head => Position::default(),
            From::Forward(position) | From::Backward(position) => position,
            From::Tail => {
                let (logs, group, stream) = (logs.clone(), Arc::clone(&group), Arc::clone(&stream));
                let query = ReadQuery {
                    limit: 1,
                    ..Default::default()
                };
                blocking(move || {
                    logs.inner.flush(&group, &stream, false)?;
                    Ok(page(&stream, &query)?.forward)
                })
                .await?
            }
        };
        Ok(Self {
            logs,
            group,
            stream,
            position,
            changed,
        })
    }

    /// The next events, waiting for some; `None` once the stream is deleted.
    pub async fn next(&mut self) -> Result<Option<Vec<Event>>, LogsError> {
        loop {
            self.changed.mark_unchanged();
            let query = ReadQuery {
                from: From::Forward(self.position),
                ..Default::default()
            };
            let (logs, group, stream) = (
                self.logs.clone(),
                Arc::clone(&self.group),
                Arc::clone(&self.stream),
            );
            let page = blocking(move || {
                logs.inner.flush(&group, &stream, false)?;
                Ok(page(&stream, &query)?)
            })
            .await?;
            self.position = page.forward;
            if !page.events.is_empty() {
                return Ok(Some(page.events));
            }
            if self.stream.is_deleted() || self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Where the next events will come from; [`From::Forward`] of it goes on there.
    pub fn position(&self) -> Position {
        self.position
    }
}
