//! Patterns with `*`, `?` and `${variables}`.

use super::Context;

/// A pattern as it stands in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`: any one character.
    One,
    /// `*`: any characters, also none.
    Any,
    /// `${key}`: the call's value for it, taken literally. `${key, 'default'}` has one for calls without.
    Variable {
        key: String,
        default: Option<String>,
    },
}

impl Pattern {
    /// Reads a pattern; variables are read only where the policy's version has them.
    pub(super) fn read(text: &str, variables: bool) -> Option<Pattern> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            if let Some(inner) = rest.strip_prefix("${").filter(|_| variables) {
                let (name, behind) = inner.split_once('}')?;
                parts.push(variable(name)?);
                rest = behind;
                continue;
            }
            parts.push(match char {
                '*' => Part::Any,
                '?' => Part::One,
                char => Part::Char(char),
            });
            rest = &rest[char.len_utf8()..];
        }
        Some(Pattern { parts })
    }

    /// A text that stands for itself but for its variables: what operators without wildcards compare with.
    pub(super) fn text(&self, context: &Context) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Char(char) => text.push(*char),
                Part::One => text.push('?'),
                Part::Any => text.push('*'),
                Part::Variable { key, default } => {
                    text.push_str(context.variable(key).or(default.as_deref())?);
                }
            }
        }
        Some(text)
    }

    /// Whether `value` as a whole is of this form; a variable without a value matches nothing.
    pub(super) fn matches(&self, value: &str, context: &Context) -> bool {
        self.matches_with(value, context, |a, b| a == b)
    }

    fn matches_with(&self, value: &str, context: &Context, same: fn(char, char) -> bool) -> bool {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part {
                Part::Variable { key, default } => {
                    let Some(text) = context.variable(key).or(default.as_deref()) else {
                        return false;
                    };
                    parts.extend(text.chars().map(Part::Char));
                }
                other => parts.push(other.clone()),
            }
        }
        glob(&parts, &value.chars().collect::<Vec<_>>(), same)
    }
}

fn variable(name: &str) -> Option<Part> {
    if matches!(name, "*" | "?" | "$") {
        return name.chars().next().map(Part::Char);
    }
    let (key, default) = match name.split_once(',') {
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (key, Some(default.to_owned()))
        }
        None => (name, None),
    };
    Some(Part::Variable {
        key: key.trim().to_owned(),
        default,
    })
}

/// Steps back to the last `*` only, so that the time is at most the product of the lengths.
fn glob(parts: &[Part], value: &[char], same: fn(char, char) -> bool) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < value.len() {
        let fits = match parts.get(at) {
            Some(Part::Any) => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some(Part::One) => true,
            Some(Part::Char(char)) => same(*char, value[seen]),
            _ => false,
        };
        if fits {
            at += 1;
            seen += 1;
        } else if let Some((star_at, star_seen)) = star {
            at = star_at + 1;
            seen = star_seen + 1;
            star = Some((star_at, seen));
        } else {
            return false;
        }
    }
    parts[at..].iter().all(|part| *part == Part::Any)
}
