//! Conditions: an operator, a key, and the values it is compared with.

use std::net::IpAddr;

use ipnet::IpNet;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Context, pattern::Pattern};

/// One condition of a statement.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    operator: Operator,
    key: String,
    values: Vec<Pattern>,
}

/// An operator with its prefix and suffix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operator {
    test: Test,
    negated: bool,
    if_exists: bool,
    set: Option<Set>,
}

/// How several values of a call are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// Every one must fit; none at all fits, too.
    ForAll,
    /// One must fit.
    ForAny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    ArnLike,
    Number(Order),
    Date(Order),
    Bool,
    IpAddress,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Order::Equal => left == right,
            Order::Less => left < right,
            Order::LessOrEqual => left <= right,
            Order::Greater => left > right,
            Order::GreaterOrEqual => left >= right,
        }
    }

    /// The operator's name without `Numeric` or `Date`, and whether it is negated.
    fn read(name: &str) -> Option<(Order, bool)> {
        Some(match name {
            "Equals" => (Order::Equal, false),
            "NotEquals" => (Order::Equal, true),
            "LessThan" => (Order::Less, false),
            "LessThanEquals" => (Order::LessOrEqual, false),
            "GreaterThan" => (Order::Greater, false),
            "GreaterThanEquals" => (Order::GreaterOrEqual, false),
            _ => return None,
        })
    }
}

impl Operator {
    /// Reads `[ForAllValues:|ForAnyValue:]StringEquals[IfExists]`.
    pub(super) fn read(name: &str) -> Option<Operator> {
        let (set, name) = match name.split_once(':') {
            Some(("ForAllValues", name)) => (Some(Set::ForAll), name),
            Some(("ForAnyValue", name)) => (Some(Set::ForAny), name),
            Some(_) => return None,
            None => (None, name),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (test, negated) = match name {
            "StringEquals" => (Test::StringEquals, false),
            "StringNotEquals" => (Test::StringEquals, true),
            "StringEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Test::StringEqualsIgnoreCase, true),
            "StringLike" => (Test::StringLike, false),
            "StringNotLike" => (Test::StringLike, true),
            "ArnLike" | "ArnEquals" => (Test::ArnLike, false),
            "ArnNotLike" | "ArnNotEquals" => (Test::ArnLike, true),
            "Bool" => (Test::Bool, false),
            "IpAddress" => (Test::IpAddress, false),
            "NotIpAddress" => (Test::IpAddress, true),
            "Null" if !if_exists && set.is_none() => (Test::Null, false),
            other => {
                if let Some(name) = other.strip_prefix("Numeric") {
                    let (order, negated) = Order::read(name)?;
                    (Test::Number(order), negated)
                } else {
                    let (order, negated) = Order::read(other.strip_prefix("Date")?)?;
                    (Test::Date(order), negated)
                }
            }
        };
        Some(Operator {
            test,
            negated,
            if_exists,
            set,
        })
    }

    /// Whether `value` can be compared with at all: a policy is refused rather than silently never met.
    pub(super) fn accepts(self, value: &str) -> bool {
        value.contains("${")
            || match self.test {
                Test::Number(_) => number(value).is_some(),
                Test::Date(_) => date(value).is_some(),
                Test::Bool | Test::Null => boolean(value).is_some(),
                Test::IpAddress => network(value).is_some(),
                _ => true,
            }
    }
}

impl Condition {
    pub(super) fn new(operator: Operator, key: &str, values: Vec<Pattern>) -> Condition {
        Condition {
            operator,
            key: key.to_owned(),
            values,
        }
    }

    /// Whether the call meets the condition. Several policy values are alternatives.
    pub(super) fn holds(&self, context: &Context) -> bool {
        let Operator {
            test,
            negated,
            if_exists,
            set,
        } = self.operator;
        let given = context.get(&self.key);
        if test == Test::Null {
            let absent = given.is_none_or(<[String]>::is_empty);
            return self.texts(context).any(|text| boolean(&text) == Some(absent));
        }
        let given = given.unwrap_or_default();
        if given.is_empty() {
            return if_exists || set == Some(Set::ForAll) || (negated && set.is_none());
        }
        let fits = |value: &String| self.matches(test, value, context) != negated;
        match set {
            Some(Set::ForAll) => given.iter().all(fits),
            Some(Set::ForAny) => given.iter().any(fits),
            // Without a set operator a key has one value; were there more, each must hold of a negation.
            None if negated => given.iter().all(fits),
            None => given.iter().any(fits),
        }
    }

    fn texts(&self, context: &Context) -> impl Iterator<Item = String> {
        self.values.iter().filter_map(|value| value.text(context))
    }

    fn matches(&self, test: Test, given: &str, context: &Context) -> bool {
        match test {
            Test::StringLike => self.values.iter().any(|value| value.matches(given, context)),
            Test::ArnLike => self.values.iter().any(|value| value.matches(given, context)),
            test => self.texts(context).any(|text| compare(test, given, &text)),
        }
    }
}

fn compare(test: Test, given: &str, wanted: &str) -> bool {
    let both = |left: Option<f64>, right: Option<f64>| left.zip(right);
    match test {
        Test::StringEquals => given == wanted,
        Test::StringEqualsIgnoreCase => given.to_lowercase() == wanted.to_lowercase(),
        Test::Number(order) => {
            both(number(given), number(wanted)).is_some_and(|(left, right)| order.holds(left, right))
        }
        Test::Date(order) => {
            both(date(given), date(wanted)).is_some_and(|(left, right)| order.holds(left, right))
        }
        Test::Bool => boolean(given).is_some_and(|given| Some(given) == boolean(wanted)),
        Test::IpAddress => given
            .parse::<IpAddr>()
            .ok()
            .zip(network(wanted))
            .is_some_and(|(address, network)| network.contains(&address)),
        Test::StringLike | Test::ArnLike | Test::Null => false,
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A date of ISO 8601, or epoch seconds.
fn date(text: &str) -> Option<f64> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| {
        let day = format!("{text}T00:00:00Z");
        OffsetDateTime::parse(&day, &Rfc3339)
    });
    match parsed {
        Ok(date) => Some(date.unix_timestamp_nanos() as f64 / 1e9),
        Err(_) => number(text),
    }
}

/// A range, or one address.
fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
