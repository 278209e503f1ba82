//! Reading the log from its oldest record on, a bounded piece at a time.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    time::SystemTime,
};

use hearth_wire::{Timestamp, types::AuditItem};
use serde::{Deserialize, Serialize};

use crate::AuditConfig;

/// Most bytes that one reading looks at; the next goes on from there.
const READING_BYTES: u64 = 32 << 20;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of one account.
    pub account: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// A part of the principal's ARN, or an access key's id.
    pub who: Option<String>,
    /// An operation's name, or a part of the resource.
    pub what: Option<String>,
    /// How the call ended.
    pub outcome: Option<Outcome>,
    /// Where an earlier reading ended.
    pub after: Option<Position>,
    /// Records at most.
    pub limit: usize,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Succeeded,
    /// It was refused, or failed.
    Failed,
}

/// What a reading found.
#[derive(Debug)]
pub struct Found {
    /// The records, oldest first.
    pub items: Vec<AuditItem>,
    /// Where to go on; `None` at the log's end.
    pub next: Option<Position>,
}

/// A place in the log. Files get other names as they grow old, so that a file is known by its first record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    first: String,
    bytes: u64,
}

impl Query {
    fn wants(&self, item: &AuditItem) -> bool {
        let part = |whole: Option<&str>, part: &str| whole.is_some_and(|whole| whole.contains(part));
        let is = |wanted: &Option<String>, test: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(test);
        is(&self.account, &|account| item.account == account)
            && self.from.is_none_or(|from| item.time >= from)
            && self.to.is_none_or(|to| item.time < to)
            && is(&self.who, &|who| {
                item.access_key_id == who || part(item.principal.as_deref(), who)
            })
            && is(&self.what, &|what| {
                item.operation == what || part(item.resource.as_deref(), what)
            })
            && self.outcome.is_none_or(|outcome| outcome == Outcome::of(item))
    }
}

impl Outcome {
    fn of(item: &AuditItem) -> Outcome {
        match item.error.is_none() && item.status < 400 {
            true => Outcome::Succeeded,
            false => Outcome::Failed,
        }
    }
}

/// A file, and what it is known by.
struct Piece {
    file: BufReader<File>,
    first: String,
}

pub(crate) fn read(config: &AuditConfig, query: &Query) -> io::Result<Found> {
    let mut pieces = Vec::new();
    for file in config.all()? {
        pieces.extend(Piece::open(file, query)?);
    }
    let mut start = 0;
    if let Some(after) = &query.after {
        // A file that is gone was older than every other.
        let known = pieces.iter().position(|piece| piece.first == after.first);
        pieces.drain(..known.unwrap_or(0));
        start = known.map_or(0, |_| after.bytes);
    }
    let mut found = Found {
        items: Vec::new(),
        next: None,
    };
    let mut looked_at = 0;
    for mut piece in pieces {
        let mut bytes = std::mem::take(&mut start);
        piece.file.seek(SeekFrom::Start(bytes))?;
        let mut line = String::new();
        loop {
            if found.items.len() == query.limit || looked_at >= READING_BYTES {
                let first = piece.first;
                found.next = Some(Position { first, bytes });
                return Ok(found);
            }
            line.clear();
            // What is being written has no end yet.
            match piece.file.read_line(&mut line)? as u64 {
                0 => break,
                _ if !line.ends_with('\n') => break,
                length => (bytes, looked_at) = (bytes + length, looked_at + length),
            }
            // A crash can leave a line that is none.
            let item = serde_json::from_str(&line).ok();
            found.items.extend(item.filter(|item| query.wants(item)));
        }
    }
    Ok(found)
}

impl Piece {
    /// `None` when the file holds no record, or none that is young enough.
    fn open(file: File, query: &Query) -> io::Result<Option<Piece>> {
        let modified = Timestamp::from(file.metadata()?.modified().unwrap_or_else(|_| SystemTime::now()));
        if query.from.is_some_and(|from| modified < from) && query.after.is_none() {
            return Ok(None);
        }
        let mut file = BufReader::new(file);
        let mut line = String::new();
        while file.read_line(&mut line)? > 0 {
            if let Ok(item) = serde_json::from_str::<AuditItem>(&line) {
                let first = format!("{} {} {}", item.time.as_millis(), item.request_id, item.operation);
                return Ok(Some(Piece { file, first }));
            }
            line.clear();
        }
        Ok(None)
    }
}
