//! Events of several streams of a group in order of time, a page at a time.

use std::{collections::BTreeMap, io, str::FromStr, sync::Arc};

use crate::{
    LogsError,
    pattern::Pattern,
    read::{EVENT_OVERHEAD_BYTES, Event, PAGE_BYTES, Position, events},
    stream::{Segment, Stream},
};

/// Where an event stands among those of all streams: by time, then by stream, then by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    timestamp_ms: i64,
    stream: String,
    position: Position,
}

/// Which events to find.
pub(crate) struct FilterQuery {
    pub(crate) start_ms: Option<i64>,
    pub(crate) end_ms: Option<i64>,
    pub(crate) pattern: Pattern,
    pub(crate) after: Option<Place>,
    pub(crate) limit: usize,
}

/// The next events by time, each with its stream, and where to go on.
pub(crate) struct Found {
    pub(crate) events: Vec<(String, Event)>,
    pub(crate) next: Option<Place>,
}

/// The least events above `after`, as many as fit a page. Once one has been turned away, nothing
/// above it may come in: the page is always a gapless run.
struct Least {
    kept: BTreeMap<Place, Event>,
    bytes: usize,
    limit: usize,
    ceiling: Option<Place>,
}

impl Least {
    fn offer(&mut self, place: Place, event: Event) {
        if self.ceiling.as_ref().is_some_and(|ceiling| place >= *ceiling) {
            return;
        }
        self.bytes += cost(&event);
        self.kept.insert(place, event);
        while self.kept.len() > 1 && (self.kept.len() > self.limit || self.bytes > PAGE_BYTES) {
            let Some((place, event)) = self.kept.pop_last() else {
                return;
            };
            self.bytes -= cost(&event);
            self.ceiling = Some(place);
        }
    }

    fn may_want(&self, query: &FilterQuery, segment: &Segment) -> bool {
        segment.times.is_none_or(|(first, last)| {
            query.start_ms.is_none_or(|start| last >= start)
                && query.end_ms.is_none_or(|end| first < end)
                && query
                    .after
                    .as_ref()
                    .is_none_or(|after| last >= after.timestamp_ms)
                && self
                    .ceiling
                    .as_ref()
                    .is_none_or(|ceiling| first <= ceiling.timestamp_ms)
        })
    }
}

fn cost(event: &Event) -> usize {
    event.message.len() + EVENT_OVERHEAD_BYTES
}

/// One page over `streams`.
pub(crate) fn find(streams: &[Arc<Stream>], query: &FilterQuery) -> io::Result<Found> {
    let mut least = Least {
        kept: BTreeMap::new(),
        bytes: 0,
        limit: query.limit,
        ceiling: None,
    };
    for stream in streams {
        for segment in stream.segments() {
            if !least.may_want(query, &segment) {
                continue;
            }
            let data = stream.read(segment.number)?;
            for event in events(segment.number, &data, 0) {
                let at = event.timestamp_ms;
                let timely =
                    query.start_ms.is_none_or(|start| at >= start) && query.end_ms.is_none_or(|end| at < end);
                if !timely || !query.pattern.matches(&event.message) {
                    continue;
                }
                let place = Place {
                    timestamp_ms: at,
                    stream: stream.name.clone(),
                    position: event.position,
                };
                if query.after.as_ref().is_none_or(|after| place > *after) {
                    least.offer(place, event);
                }
            }
        }
    }
    let next = least
        .ceiling
        .and_then(|_| least.kept.last_key_value().map(|(place, _)| place.clone()));
    let events = least
        .kept
        .into_iter()
        .map(|(place, event)| (place.stream, event))
        .collect();
    Ok(Found { events, next })
}

/// A place as an opaque token: `time.position.stream`.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.timestamp_ms, self.position, self.stream)
    }
}

impl FromStr for Place {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, LogsError> {
        let invalid = || LogsError::invalid("The specified nextToken is invalid.");
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or_else(invalid);
        let timestamp_ms = part()?.parse().map_err(|_| invalid())?;
        let position = part()?.parse()?;
        Ok(Self {
            timestamp_ms,
            position,
            stream: part()?.to_owned(),
        })
    }
}
