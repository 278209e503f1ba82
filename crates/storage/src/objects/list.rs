//! Listings: a range scan in key order that jumps over what a delimiter folds.

use sqlx::Row;

use super::{ObjectInfo, Objects, ObjectsError, index};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only keys that begin so
    pub prefix: String,
    /// Folds keys that go on beyond it into one common prefix
    pub delimiter: Option<String>,
    /// Only what comes after this key or common prefix
    pub after: Option<String>,
    /// At most so many keys and common prefixes
    pub limit: usize,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects in key order, without attributes
    pub objects: Vec<ObjectInfo>,
    /// Common prefixes in order
    pub prefixes: Vec<String>,
    /// The last key or common prefix of this page, if more follows: the next page's `after`
    pub next: Option<String>,
}

/// Where the scan goes on: after a key, or at the first key not below a bound.
enum Cursor {
    After(String),
    From(String),
}

const BATCH: i64 = 1000;

impl Objects {
    /// Lists a bucket page by page.
    pub async fn list(
        &self,
        account: &str,
        bucket: &str,
        query: &ListQuery,
    ) -> Result<Listing, ObjectsError> {
        self.head_bucket(account, bucket).await?;
        let mut page = Listing::default();
        if query.limit == 0 {
            return Ok(page);
        }
        let end = successor(&query.prefix);
        let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty());
        let mut cursor = match &query.after {
            Some(after) if *after >= query.prefix => Cursor::After(after.clone()),
            _ => Cursor::From(query.prefix.clone()),
        };
        let mut last: Option<String> = None;
        loop {
            let (sql, bound) = match &cursor {
                Cursor::After(key) => (AFTER, key),
                Cursor::From(key) => (FROM, key),
            };
            let rows = sqlx::query(sql)
                .bind(bucket)
                .bind(bound)
                .bind(&end)
                .bind(&end)
                .bind(BATCH)
                .fetch_all(self.index.pool())
                .await?;
            let mut next = None;
            for row in &rows {
                let key: &str = row.try_get("key")?;
                let folded = delimiter.and_then(|d| fold(key, &query.prefix, d));
                if let Some(prefix) = folded {
                    next = successor(prefix).map(Cursor::From);
                    if page.prefixes.last().is_some_and(|p| p == prefix)
                        || query.after.as_deref() == Some(prefix)
                    {
                        continue;
                    }
                } else {
                    next = Some(Cursor::After(key.to_owned()));
                }
                if page.objects.len() + page.prefixes.len() == query.limit {
                    page.next = last;
                    return Ok(page);
                }
                if let Some(prefix) = folded {
                    page.prefixes.push(prefix.to_owned());
                    last = Some(prefix.to_owned());
                } else {
                    page.objects.push(index::listed(row)?);
                    last = Some(key.to_owned());
                }
            }
            match next {
                Some(next) if rows.len() as i64 == BATCH => cursor = next,
                _ => return Ok(page),
            }
        }
    }
}

const AFTER: &str = "SELECT key, etag, size, modified_ms, storage_class FROM objects \
    WHERE bucket = ? AND key > ? AND (? IS NULL OR key < ?) ORDER BY key LIMIT ?";
const FROM: &str = "SELECT key, etag, size, modified_ms, storage_class FROM objects \
    WHERE bucket = ? AND key >= ? AND (? IS NULL OR key < ?) ORDER BY key LIMIT ?";

/// The common prefix a key folds into, if the delimiter follows the prefix in it.
fn fold<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    let rest = key.get(prefix.len()..)?;
    let at = rest.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

/// The least string above all that begin with `prefix`; `None` if there is none.
/// UTF-8 sorts as its code points do.
fn successor(prefix: &str) -> Option<String> {
    let mut above = prefix.to_owned();
    while let Some(last) = above.pop() {
        let next = if last == '\u{d7ff}' {
            Some('\u{e000}')
        } else {
            char::from_u32(u32::from(last) + 1)
        };
        if let Some(next) = next {
            above.push(next);
            return Some(above);
        }
    }
    None
}
