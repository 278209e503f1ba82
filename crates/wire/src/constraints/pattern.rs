use std::{
    collections::HashMap,
    sync::{LazyLock, RwLock},
};

use regex::Regex;

/// Compiled patterns, each compiled when it is first needed. Patterns come from the tables only, so they are few.
static COMPILED: LazyLock<RwLock<HashMap<&'static str, Regex>>> = LazyLock::new(RwLock::default);

/// Whether `pattern` matches the whole of `value`.
pub(super) fn matches(pattern: &'static str, value: &str) -> bool {
    let found = COMPILED
        .read()
        .ok()
        .and_then(|compiled| compiled.get(pattern).cloned());
    let regex = found.unwrap_or_else(|| {
        let regex = compile(pattern);
        if let Ok(mut compiled) = COMPILED.write() {
            compiled.insert(pattern, regex.clone());
        }
        regex
    });
    regex.is_match(value)
}

/// The service's classes `\s` and `\d` are ASCII; those of this crate are not.
fn compile(pattern: &'static str) -> Regex {
    let ascii = pattern.replace(r"[^\s]", "[^[:space:]]").replace(r"\d", "[0-9]");
    Regex::new(&format!(r"\A(?:{ascii})\z")).expect("a test compiles every pattern of the tables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_the_whole_value() {
        assert!(matches("[a-zA-Z0-9-_]+", "demo-1_A"));
        for wrong in ["bad name!", "demo\n", "", "é"] {
            assert!(!matches("[a-zA-Z0-9-_]+", wrong), "{wrong:?}");
        }
    }

    #[test]
    fn classes_are_ascii() {
        assert!(matches(r"[^\s]+", "a\u{a0}b"));
        assert!(!matches(r"[^\s]+", "a b"));
        assert!(!matches(r"\d{1}", "\u{661}"));
    }
}
