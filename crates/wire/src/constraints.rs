//! What each member of each request must satisfy, declared once in [`tables`]; the check and its message (spec 3.3).

mod check;
mod pattern;
mod rule;
pub mod tables;
#[cfg(test)]
mod tests;

pub use check::{validate, without_nulls};

/// One member of a structure.
#[derive(Debug)]
pub struct Member {
    /// The name in the service model.
    pub name: &'static str,
    /// Where the request carries it.
    pub place: Place,
    /// Whether it may be absent or null.
    pub required: bool,
    /// What its value must be.
    pub shape: &'static Shape,
}

/// Where a request carries a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the JSON body.
    Body,
    /// As the path label of the member's name.
    Path,
    /// In the query, under this name.
    Query(&'static str),
}

/// What a value must be.
#[derive(Debug)]
pub enum Shape {
    /// A string.
    Text(Text),
    /// One of these names.
    Enum(&'static [&'static str]),
    /// A 32-bit integer within these bounds.
    Integer {
        /// Least value.
        min: Option<i64>,
        /// Greatest value.
        max: Option<i64>,
    },
    /// `true` or `false`.
    Boolean,
    /// A list with this many items.
    List {
        /// Least number of items.
        min: usize,
        /// Greatest number of items.
        max: Option<usize>,
        /// What each item must be.
        item: &'static Shape,
    },
    /// An object with free keys.
    Map {
        /// Greatest number of entries.
        max: Option<usize>,
        /// What each key must be.
        key: &'static Shape,
        /// What each value must be.
        value: &'static Shape,
    },
    /// An object with these members; others are ignored.
    Structure(&'static [Member]),
    /// An object with exactly one of these members.
    Union(&'static [Member]),
}

/// Constraints of a string; lengths count characters.
#[derive(Debug)]
pub struct Text {
    /// Least length.
    pub min: usize,
    /// Greatest length.
    pub max: Option<usize>,
    /// Regular expression for the whole string, as the message prints it.
    pub pattern: Option<&'static str>,
    /// Whether messages must not print the value.
    pub sensitive: bool,
}

impl Member {
    /// An optional member of the body.
    pub const fn new(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            place: Place::Body,
            required: false,
            shape,
        }
    }

    /// A path label, always required.
    pub const fn path(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            place: Place::Path,
            required: true,
            shape,
        }
    }

    /// An optional query parameter of the member's own name.
    pub const fn query(name: &'static str, shape: &'static Shape) -> Self {
        Self {
            name,
            place: Place::Query(name),
            required: false,
            shape,
        }
    }

    /// This member, required.
    pub const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }
}

impl Shape {
    /// A string of any content.
    pub const ANY_TEXT: Self = Self::Text(Text {
        min: 0,
        max: None,
        pattern: None,
        sensitive: false,
    });

    /// A string with `min` to `max` characters.
    pub const fn text(min: usize, max: usize) -> Self {
        Self::Text(Text {
            min,
            max: Some(max),
            pattern: None,
            sensitive: false,
        })
    }

    /// A string with `min` to `max` characters that matches `pattern` as a whole.
    pub const fn matching(min: usize, max: usize, pattern: &'static str) -> Self {
        Self::Text(Text {
            min,
            max: Some(max),
            pattern: Some(pattern),
            sensitive: false,
        })
    }

    /// A string with `min` to `max` characters that no message prints.
    pub const fn secret(min: usize, max: usize) -> Self {
        Self::Text(Text {
            min,
            max: Some(max),
            pattern: None,
            sensitive: true,
        })
    }

    /// An integer from `min` to `max`.
    pub const fn between(min: i64, max: i64) -> Self {
        Self::Integer {
            min: Some(min),
            max: Some(max),
        }
    }

    /// An integer of at least `min`.
    pub const fn at_least(min: i64) -> Self {
        Self::Integer {
            min: Some(min),
            max: None,
        }
    }

    /// Whether a value of this shape holds something messages must not print.
    pub fn is_sensitive(&self) -> bool {
        match self {
            Self::Text(text) => text.sensitive,
            Self::List { item, .. } => item.is_sensitive(),
            Self::Map { key, value, .. } => key.is_sensitive() || value.is_sensitive(),
            Self::Structure(members) | Self::Union(members) => {
                members.iter().any(|member| member.shape.is_sensitive())
            }
            Self::Enum(_) | Self::Integer { .. } | Self::Boolean => false,
        }
    }
}
