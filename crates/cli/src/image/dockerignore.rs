//! Which files of a build context count: `.dockerignore`, with Docker's rules.
//!
//! A pattern is anchored at the root of the context; `*` and `?` stop at a slash, `**` does not. A
//! pattern that matches a directory holds for everything in it. The last pattern that matches
//! decides, and one that begins with `!` takes back in.

use regex::Regex;

use crate::error::{Error, Result};

/// The rules of one `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// Takes back in what an earlier pattern left out.
    back_in: bool,
    regex: Regex,
}

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
        // A comment begins in the first column; patterns are trimmed afterwards.
        let lines = lines
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let patterns = lines.map(pattern).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            patterns: patterns.into_iter().flatten().collect(),
        })
    }

    /// Whether `path`, relative to the context with slashes between names, is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let with_parents: Vec<&str> = ends.map(|end| &path[..end]).collect();
        let decides = |pattern: &&Pattern| with_parents.iter().any(|path| pattern.regex.is_match(path));
        self.patterns
            .iter()
            .rfind(decides)
            .is_some_and(|pattern| !pattern.back_in)
    }

    /// Whether something below a directory that is left out may be taken back in.
    pub(super) fn takes_back_in(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.back_in)
    }
}

fn pattern(line: &str) -> Result<Option<Pattern>> {
    let (back_in, text) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    let text = clean(text);
    if text.is_empty() {
        return Ok(None); // the context itself
    }
    let regex = Regex::new(&regex(&text)).map_err(|_| {
        Error::failed(
            format!("the pattern `{line}` in .dockerignore is malformed"),
            "Close its bracket",
        )
    })?;
    Ok(Some(Pattern { back_in, regex }))
}

/// The path without empty and `.` names, with `..` resolved, without a slash at either end.
fn clean(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn regex(pattern: &str) -> String {
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let slash = chars.next_if_eq(&'/').is_some();
                match chars.peek() {
                    None => regex.push_str(".*"),
                    // Any number of directories, none included.
                    Some(_) if slash => regex.push_str("(.*/)?"),
                    Some(_) => regex.push_str(".*"),
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => class(&mut chars, &mut regex),
            '\\' => regex.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex.push('$');
    regex
}

/// Copies a bracket expression. One that is never closed stays open, and is refused later.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, regex: &mut String) {
    regex.push('[');
    if chars.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    for c in chars {
        match c {
            ']' => {
                regex.push(']');
                return;
            }
            // These mean something in a class of the regex crate and nothing here.
            '[' | '&' | '~' => {
                regex.push('\\');
                regex.push(c);
            }
            c => regex.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(text: &str, path: &str) -> bool {
        Ignore::parse(text).expect("well formed").leaves_out(path)
    }

    #[test]
    fn a_pattern_is_anchored_at_the_root_unlike_in_git() {
        assert!(left_out("*.pyc", "a.pyc"));
        assert!(!left_out("*.pyc", "src/a.pyc"));
        assert!(left_out("*/*.pyc", "src/a.pyc"));
        assert!(left_out("**/*.pyc", "a.pyc"));
        assert!(left_out("**/*.pyc", "deep/down/a.pyc"));
        assert!(left_out("/build", "build"));
    }

    #[test]
    fn a_directory_takes_everything_in_it_along() {
        assert!(left_out("node_modules", "node_modules/a/b.js"));
        assert!(left_out("node_modules/", "node_modules/a"));
        assert!(!left_out("node_modules", "node_modules.txt"));
        assert!(left_out("docs/**", "docs/a/b"));
        assert!(!left_out("docs/**", "docs"));
        assert!(left_out("a/**/z", "a/z") && left_out("a/**/z", "a/b/c/z"));
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let text = "*\n!app\napp/secret\n!app/secret/keep";
        assert!(left_out(text, "README.md"));
        assert!(!left_out(text, "app/main.py"));
        assert!(left_out(text, "app/secret/key"));
        assert!(!left_out(text, "app/secret/keep"));
        assert!(left_out("!app\n*", "app"));
    }

    #[test]
    fn comments_blank_lines_and_odd_spellings_are_understood() {
        let text = "\u{feff}# all\n\n  ./tmp/../cache/  \n! ./cache/keep\n.\n#not-this";
        assert!(left_out(text, "cache/x"));
        assert!(!left_out(text, "cache/keep"));
        assert!(!left_out(text, "#not-this") && !left_out(text, "src"));
    }

    #[test]
    fn wildcards_classes_and_escapes_are_those_of_docker() {
        assert!(left_out("a?c", "abc") && !left_out("a?c", "a/c"));
        assert!(left_out("[a-c]x", "bx") && !left_out("[^a-c]x", "bx"));
        assert!(left_out(r"\*", "*") && !left_out(r"\*", "a"));
        assert!(left_out("a.b", "a.b") && !left_out("a.b", "axb"));
        assert!(left_out("a+(b)", "a+(b)"));
        assert!(left_out("**foo", "dir/afoo") && left_out("foo**", "foobar/x"));
    }

    #[test]
    fn a_malformed_pattern_is_named() {
        let error = Ignore::parse("ok\na[b").expect_err("open bracket");
        assert!(error.to_string().contains("a[b"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[!*?a-b/\\\\\\[\\]\\^. \n-]{0,30}", path in "[a-b./]{1,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.leaves_out(&path);
            }
        }
    }
}
