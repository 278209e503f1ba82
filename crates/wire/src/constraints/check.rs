//! Types first (a wrong type is no request at all), then every constraint, all violations in one message.

use serde_json::{Map, Value};

use super::{
    Member, Shape,
    rule::{NOT_NULL, Rule, printed, rules},
};
use crate::{ApiError, Operation};

/// Checks `request` (body, path and query members in one object) against the operation's members.
///
/// Gives a SerializationException for a wrong type, else one ValidationException that lists every violation in the
/// order of the table.
pub fn validate(operation: Operation, request: &Value) -> Result<(), ApiError> {
    check_members_types(operation.members(), request, false)?;
    let mut violations = Violations::default();
    violations.check_members(operation.members(), request, "");
    violations.into_result()
}

/// `value` without the members that are null: they mean the same as absent ones.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn check_type(shape: &Shape, value: &Value) -> Result<(), ApiError> {
    match (shape, value) {
        (Shape::Text(_) | Shape::Enum(_), Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => Ok(()),
        (Shape::Integer { .. }, Value::Number(number))
            if number
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()) =>
        {
            Ok(())
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            items.iter().try_for_each(|value| check_type(item, value))
        }
        (Shape::Map { value: shape, .. }, Value::Object(entries)) => {
            entries.values().try_for_each(|value| check_type(shape, value))
        }
        (Shape::Structure(members), Value::Object(_)) => check_members_types(members, value, false),
        (Shape::Union(members), Value::Object(_)) => check_members_types(members, value, true),
        _ => Err(ApiError::serialization(unexpected(shape, value))),
    }
}

fn check_members_types(members: &[Member], value: &Value, exactly_one: bool) -> Result<(), ApiError> {
    let Value::Object(object) = value else {
        return Err(ApiError::serialization(unexpected(&Shape::Structure(&[]), value)));
    };
    let mut present = 0;
    for member in members {
        if let Some(value) = given(object, member.name) {
            present += 1;
            check_type(member.shape, value)?;
        }
    }
    if exactly_one && present != 1 {
        return Err(ApiError::serialization("Expected exactly one member of a union"));
    }
    Ok(())
}

fn given<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// What the service says when it finds `value` where `shape` should be.
fn unexpected(shape: &Shape, value: &Value) -> String {
    let target = match shape {
        Shape::List { .. } => return "Expected list or null".to_owned(),
        Shape::Map { .. } => return "Expected map or null".to_owned(),
        Shape::Structure(_) | Shape::Union(_) => return "Expected null".to_owned(),
        Shape::Integer { .. } => "an Integer",
        Shape::Boolean => "a Boolean",
        Shape::Text(_) | Shape::Enum(_) => "a String",
    };
    let found = match value {
        Value::Array(_) => return "Start of list found where not expected".to_owned(),
        Value::Object(_) => return "Start of structure or map found where not expected.".to_owned(),
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
    };
    format!("{found} can not be converted to {target}")
}

#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn check_members(&mut self, members: &[Member], value: &Value, parent: &str) {
        for member in members {
            let path = format!("{parent}{}", camel_case(member.name));
            match value.get(member.name).unwrap_or(&Value::Null) {
                Value::Null if member.required => self.add(member.shape, &Value::Null, &path, NOT_NULL),
                Value::Null => {}
                value => self.check(member.shape, value, &path),
            }
        }
    }

    fn check(&mut self, shape: &Shape, value: &Value, path: &str) {
        for Rule { text, .. } in rules(shape, value).into_iter().filter(|rule| !rule.holds) {
            self.add(shape, value, path, &text);
        }
        match (shape, value) {
            (Shape::Structure(members) | Shape::Union(members), value) => {
                self.check_members(members, value, &format!("{path}."));
            }
            (
                Shape::List {
                    item: item @ (Shape::Structure(_) | Shape::Union(_)),
                    ..
                },
                Value::Array(items),
            ) => {
                for (index, value) in items.iter().enumerate() {
                    self.check(item, value, &format!("{path}.{}.member", index + 1));
                }
            }
            (Shape::List { item, .. }, Value::Array(items)) => {
                self.check_contents(
                    shape,
                    value,
                    path,
                    "Member must satisfy constraint",
                    item,
                    items.iter(),
                );
            }
            (
                Shape::Map {
                    key, value: entry, ..
                },
                Value::Object(entries),
            ) => {
                let keys: Vec<Value> = entries.keys().cloned().map(Value::String).collect();
                self.check_contents(
                    shape,
                    value,
                    path,
                    "Map keys must satisfy constraint",
                    key,
                    keys.iter(),
                );
                self.check_contents(
                    shape,
                    value,
                    path,
                    "Map value must satisfy constraint",
                    entry,
                    entries.values(),
                );
            }
            _ => {}
        }
    }

    /// One violation for all the contents of a list or map, naming every constraint they have.
    fn check_contents<'a>(
        &mut self,
        container: &Shape,
        value: &Value,
        path: &str,
        what: &str,
        shape: &Shape,
        mut contents: impl Iterator<Item = &'a Value>,
    ) {
        let broken = contents.find_map(|content| {
            let rules = rules(shape, content);
            rules.iter().any(|rule| !rule.holds).then_some(rules)
        });
        if let Some(rules) = broken {
            let texts: Vec<String> = rules.into_iter().map(|rule| rule.text).collect();
            self.add(container, value, path, &format!("{what}: [{}]", texts.join(", ")));
        }
    }

    fn add(&mut self, shape: &Shape, value: &Value, path: &str, rule: &str) {
        self.0.push(format!(
            "{} at '{path}' failed to satisfy constraint: {rule}",
            printed(shape, value)
        ));
    }

    fn into_result(self) -> Result<(), ApiError> {
        let plural = match self.0.len() {
            0 => return Ok(()),
            1 => "",
            _ => "s",
        };
        let count = self.0.len();
        Err(ApiError::validation(format!(
            "{count} validation error{plural} detected: {}",
            self.0.join("; ")
        )))
    }
}

/// Messages print member names in camelCase, also those of PascalCase operations (spec 3.3).
fn camel_case(name: &str) -> String {
    let mut characters = name.chars();
    characters
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(characters)
        .collect()
}
