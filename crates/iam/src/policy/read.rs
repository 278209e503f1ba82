//! From JSON to a policy. What is not understood is refused: a policy that says more than is done would be a trap.

use serde_json::{Map, Value};

use super::{
    Names, Policy, Statement,
    condition::{Condition, Operator},
    pattern::Pattern,
};

/// The most characters a policy may have, as for a role's inline policies.
const MAX_CHARACTERS: usize = 10_240;

/// Why a document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MalformedPolicyDocument: {0}")]
pub struct PolicyError(String);

impl Policy {
    /// Reads a policy document.
    pub fn read(text: &str) -> Result<Policy, PolicyError> {
        if text.chars().count() > MAX_CHARACTERS {
            return fail(format!("the policy is longer than {MAX_CHARACTERS} characters"));
        }
        let document: Value =
            serde_json::from_str(text).map_err(|error| PolicyError(format!("no JSON: {error}")))?;
        let mut document = Members::of(document, "the policy")?;
        let variables = match document.take("Version") {
            None => false,
            Some(Value::String(version)) if version == "2008-10-17" => false,
            Some(Value::String(version)) if version == "2012-10-17" => true,
            Some(other) => return fail(format!("Version {other} is not 2012-10-17 or 2008-10-17")),
        };
        let _a_name_for_people = document.take("Id");
        let statements = document.take("Statement");
        document.end()?;
        let statements = match statements {
            Some(Value::Array(statements)) => statements,
            Some(one @ Value::Object(_)) => vec![one],
            _ => return fail("Statement is missing"),
        };
        let statements = statements.into_iter().map(|one| statement(one, variables));
        Ok(Policy {
            statements: statements.collect::<Result<_, _>>()?,
        })
    }
}

fn fail<T>(cause: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(cause.into()))
}

/// The members of an object, each taken once.
struct Members {
    members: Map<String, Value>,
    of: &'static str,
}

impl Members {
    fn of(value: Value, of: &'static str) -> Result<Members, PolicyError> {
        match value {
            Value::Object(members) => Ok(Members { members, of }),
            _ => fail(format!("{of} is no JSON object")),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    fn end(self) -> Result<(), PolicyError> {
        match self.members.keys().next() {
            Some(name) => fail(format!("{} has the unknown element {name}", self.of)),
            None => Ok(()),
        }
    }
}

fn statement(value: Value, variables: bool) -> Result<Statement, PolicyError> {
    let mut members = Members::of(value, "a statement")?;
    let _a_name_for_people = members.take("Sid");
    let allows = match members.take("Effect") {
        Some(Value::String(effect)) if effect == "Allow" => true,
        Some(Value::String(effect)) if effect == "Deny" => false,
        _ => return fail("Effect must be Allow or Deny"),
    };
    let action = names(&mut members, "Action", "NotAction", |text| {
        let well_formed = text == "*"
            || text
                .split_once(':')
                .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        let lower = text.to_ascii_lowercase();
        well_formed.then(|| Pattern::read(&lower, false)).flatten()
    })?;
    let resource = names(&mut members, "Resource", "NotResource", |text| {
        let well_formed = text == "*" || text.starts_with("arn:") || text.starts_with('*');
        well_formed.then(|| Pattern::read(text, variables)).flatten()
    })?;
    let conditions = match members.take("Condition") {
        Some(value) => conditions(value, variables)?,
        None => Vec::new(),
    };
    members.end()?;
    Ok(Statement {
        allows,
        action,
        resource,
        conditions,
    })
}

/// Either the element or its inversion.
fn names(
    members: &mut Members,
    plain: &str,
    inverse: &str,
    read: impl Fn(&str) -> Option<Pattern>,
) -> Result<Names, PolicyError> {
    let (name, value, inverted) = match (members.take(plain), members.take(inverse)) {
        (Some(value), None) => (plain, value, false),
        (None, Some(value)) => (inverse, value, true),
        _ => return fail(format!("a statement needs either {plain} or {inverse}")),
    };
    let texts = texts(value).ok_or_else(|| PolicyError(format!("{name} must be one or more strings")))?;
    let patterns = texts
        .iter()
        .map(|text| read(text).ok_or_else(|| PolicyError(format!("{name} {text:?} is not well formed"))));
    Ok(Names {
        patterns: patterns.collect::<Result<_, _>>()?,
        inverted,
    })
}

fn conditions(value: Value, variables: bool) -> Result<Vec<Condition>, PolicyError> {
    let mut conditions = Vec::new();
    for (name, keys) in Members::of(value, "Condition")?.members {
        let operator = Operator::read(&name)
            .ok_or_else(|| PolicyError(format!("the condition operator {name} is unknown")))?;
        for (key, values) in Members::of(keys, "a condition")?.members {
            let malformed = || PolicyError(format!("the values of {name} {key} are not well formed"));
            let texts = texts(values).ok_or_else(malformed)?;
            let values = texts.iter().map(|text| {
                let value = Pattern::read(text, variables).filter(|_| operator.accepts(text));
                value.ok_or_else(malformed)
            });
            conditions.push(Condition::new(operator, &key, values.collect::<Result<_, _>>()?));
        }
    }
    Ok(conditions)
}

/// One scalar or a list of them, at least one.
fn texts(value: Value) -> Option<Vec<String>> {
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let texts: Vec<String> = match value {
        Value::Array(values) => values.into_iter().map(scalar).collect::<Option<_>>()?,
        value => vec![scalar(value)?],
    };
    (!texts.is_empty()).then_some(texts)
}
