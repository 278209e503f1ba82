//! Identity policies in IAM's JSON language.

mod condition;
mod pattern;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use condition::Condition;
use pattern::Pattern;

pub use read::PolicyError;

/// What a policy says to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement speaks of it.
    Silent,
}

impl Decision {
    /// Of two policies of one principal: a denial of either is final, and one allowance is enough.
    #[must_use]
    pub fn or(self, other: Decision) -> Decision {
        match (self, other) {
            (Decision::Deny, _) | (_, Decision::Deny) => Decision::Deny,
            (Decision::Allow, _) | (_, Decision::Allow) => Decision::Allow,
            _ => Decision::Silent,
        }
    }

    /// Of a policy and a bound upon it: only what both allow is allowed.
    #[must_use]
    pub fn and(self, other: Decision) -> Decision {
        match (self, other) {
            (Decision::Deny, _) | (_, Decision::Deny) => Decision::Deny,
            (Decision::Allow, Decision::Allow) => Decision::Allow,
            _ => Decision::Silent,
        }
    }
}

/// The condition keys of a call, by name in lower case.
#[derive(Debug, Clone, Default)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Sets a key to one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_ascii_lowercase(), vec![value.into()]);
    }

    /// Sets a key that may have several values.
    pub fn set_all(&mut self, key: &str, values: Vec<String>) {
        self.0.insert(key.to_ascii_lowercase(), values);
    }

    /// The values of a key, in any case; `None` when the call has none.
    fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// The value a policy variable stands for.
    fn variable(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// A policy, ready to be asked.
#[derive(Debug, Clone)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    action: Names,
    resource: Names,
    conditions: Vec<Condition>,
}

/// A list of patterns, or everything but what they match.
#[derive(Debug, Clone)]
struct Names {
    patterns: Vec<Pattern>,
    inverted: bool,
}

impl Names {
    fn matches(&self, value: &str, context: &Context) -> bool {
        let matched = self
            .patterns
            .iter()
            .any(|pattern| pattern.matches(value, context));
        matched != self.inverted
    }
}

impl Policy {
    /// What the policy says of `action` (`lambda:RunMicrovm`) on `resource`, an ARN or `*`.
    pub fn decide(&self, action: &str, resource: &str, context: &Context) -> Decision {
        let action = action.to_ascii_lowercase();
        let applying = self.statements.iter().filter(|statement| {
            statement.action.matches(&action, context)
                && statement.resource.matches(resource, context)
                && statement
                    .conditions
                    .iter()
                    .all(|condition| condition.holds(context))
        });
        applying.fold(Decision::Silent, |decision, statement| {
            decision.or(match statement.allows {
                true => Decision::Allow,
                false => Decision::Deny,
            })
        })
    }
}
