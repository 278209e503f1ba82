//! Filter patterns: terms, quoted phrases, `-` to exclude, `?` for any of several.

use crate::LogsError;

/// A filter over messages; the empty one matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, LogsError> {
        if text.len() > 1024 {
            return Err(LogsError::invalid(
                "Value at 'filterPattern' failed to satisfy constraint: Member must have length less than or equal to 1024",
            ));
        }
        let text = text.trim();
        if text.starts_with(['{', '[', '%']) {
            return Err(LogsError::invalid(
                "Invalid filter pattern: only terms are supported, not JSON, columns or expressions",
            ));
        }
        let mut pattern = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| !c.is_whitespace()) {
            rest = &rest[at..];
            let (list, body) = match rest.as_bytes()[0] {
                b'-' => (&mut pattern.none, &rest[1..]),
                b'?' => (&mut pattern.any, &rest[1..]),
                _ => (&mut pattern.all, rest),
            };
            let (term, after) = term(body)?;
            if !term.is_empty() {
                list.push(term);
            }
            rest = after;
        }
        Ok(pattern)
    }

    pub(crate) fn matches(&self, message: &str) -> bool {
        let has = |term: &String| message.contains(term.as_str());
        // As CloudWatch has it, `?` counts for nothing beside a term that must match.
        let any = self.any.is_empty() || !self.all.is_empty() || self.any.iter().any(has);
        any && self.all.iter().all(has) && !self.none.iter().any(has)
    }
}

/// A term and what comes after it.
fn term(text: &str) -> Result<(String, &str), LogsError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut term = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((term, &quoted[at + 1..])),
            '\\' => term.extend(chars.next().map(|(_, escaped)| escaped)),
            c => term.push(c),
        }
    }
    Err(LogsError::invalid(
        "Invalid filter pattern: a quote is not closed",
    ))
}
