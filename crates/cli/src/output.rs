//! What a command prints: text for people, JSON for machines, progress for terminals.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::error::{Error, Result};

/// Where a command prints, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// Machine form.
    pub(crate) json: bool,
}

impl Out {
    /// Prints `text()` for people or `value` for machines, one line each.
    pub(crate) fn print(self, value: Value, text: impl FnOnce() -> String) -> Result<()> {
        self.line(&if self.json { value.to_string() } else { text() })
    }

    /// Prints one line, or several, as they are: at once, so that a reader of the first only breaks no pipe.
    pub(crate) fn line(self, line: &str) -> Result<()> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(Error::Output)
    }

    /// Prints rows under a heading, in columns as wide as their content.
    pub(crate) fn table(self, value: Value, heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
        self.print(value, || columns(heading, rows))
    }
}

fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|title| (*title).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(rows);
    let width = |column: usize| {
        all()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// A spinner with a message on standard error; nothing where that is no terminal.
pub(crate) fn spinner(message: impl Into<String>) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is constant");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(message.into());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar that counts `total` bytes, on standard error; nothing where that is no terminal.
pub(crate) fn byte_bar(message: impl Into<String>, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
        .expect("the template is constant")
        .progress_chars("=> ");
    ProgressBar::new(total)
        .with_style(style)
        .with_message(message.into())
}

/// A span of seconds as a person says it: `42s`, `5m`, `3h`, `2d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let rows = vec![
            vec!["a".into(), "CREATED".into()],
            vec!["longer".into(), String::new()],
        ];
        assert_eq!(
            columns(&["NAME", "STATE"], &rows),
            "NAME    STATE\na       CREATED\nlonger"
        );
    }

    #[test]
    fn ages_keep_two_figures_or_so() {
        let said: Vec<String> = [-5, 59, 180, 7200, 200_000].into_iter().map(age).collect();
        assert_eq!(said, ["0s", "59s", "3m", "2h", "2d"]);
    }
}
