//! The wording of each constraint, and how a message prints a value.

use serde_json::Value;

use super::{Shape, pattern};

pub(super) const NOT_NULL: &str = "Member must not be null";

/// One constraint on a single value, with its wording.
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) holds: bool,
}

/// Every constraint that `shape` puts on `value` itself, not on what it contains.
pub(super) fn rules(shape: &Shape, value: &Value) -> Vec<Rule> {
    match (shape, value) {
        (Shape::Text(text), Value::String(value)) => {
            let mut rules = length_rules(text.min, text.max, value.chars().count());
            if let Some(pattern) = text.pattern {
                rules.push(Rule {
                    text: format!("Member must satisfy regular expression pattern: {pattern}"),
                    holds: pattern::matches(pattern, value),
                });
            }
            rules
        }
        (Shape::Enum(names), Value::String(value)) => vec![Rule {
            text: format!("Member must satisfy enum value set: [{}]", names.join(", ")),
            holds: names.contains(&value.as_str()),
        }],
        (Shape::Integer { min, max }, Value::Number(value)) => {
            let value = value.as_i64().unwrap_or_default();
            let bound = |bound: &Option<i64>, side: &str, holds: fn(i64, i64) -> bool| {
                bound.map(|bound| Rule {
                    text: format!("Member must have value {side} than or equal to {bound}"),
                    holds: holds(value, bound),
                })
            };
            let rules = [
                bound(max, "less", |value, max| value <= max),
                bound(min, "greater", |value, min| value >= min),
            ];
            rules.into_iter().flatten().collect()
        }
        (Shape::List { min, max, .. }, Value::Array(items)) => length_rules(*min, *max, items.len()),
        (Shape::Map { max, .. }, Value::Object(entries)) => length_rules(0, *max, entries.len()),
        _ => Vec::new(),
    }
}

fn length_rules(min: usize, max: Option<usize>, length: usize) -> Vec<Rule> {
    let least = Rule {
        text: format!("Member must have length greater than or equal to {min}"),
        holds: length >= min,
    };
    let most = max.map(|max| Rule {
        text: format!("Member must have length less than or equal to {max}"),
        holds: length <= max,
    });
    most.into_iter().chain([least]).collect()
}

/// `Value null`, `Value 'x'`, or `Value` for what must not be printed.
pub(super) fn printed(shape: &Shape, value: &Value) -> String {
    match value {
        Value::Null => "Value null".to_owned(),
        _ if shape.is_sensitive() => "Value".to_owned(),
        value => format!("Value '{}'", plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| format!("{key}={}", plain(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
