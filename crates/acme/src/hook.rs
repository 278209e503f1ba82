//! The operator's program for the TXT record: `PROGRAM present NAME VALUE` makes it and `PROGRAM cleanup NAME VALUE`
//! removes it, with the full name and a dot at its end. It must end with 0 once the name's servers know.
//! (Programs written for lego's `exec` provider are called the same way.)

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::AcmeError;

/// Longest run of the program.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most characters of its last words that an error repeats.
const MAX_WORDS: usize = 300;

/// What is to be done with the record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Present,
    Cleanup,
}

/// Calls the program and waits until it has ended well.
pub(crate) async fn call(program: &Path, act: Act, name: &str, value: &str) -> Result<(), AcmeError> {
    let failed = |what: String| AcmeError::Hook {
        program: program.to_owned(),
        what,
    };
    let act = match act {
        Act::Present => "present",
        Act::Cleanup => "cleanup",
    };
    let ending = Command::new(program)
        .args([act, name, value])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, ending)
        .await
        .map_err(|_| failed(format!("{act} did not end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty());
    let last: String = last
        .unwrap_or("it said nothing")
        .chars()
        .take(MAX_WORDS)
        .collect();
    Err(failed(format!("{act} failed ({}): {last}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh -c` takes what a hook takes.
    async fn run(act: Act, value: &str) -> Result<(), AcmeError> {
        call(Path::new("/usr/bin/env"), act, "sh", value).await
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_missing_is_named_with_its_last_words() {
        // `env present sh …`: there is no program named present.
        let error = run(Act::Present, "x").await.expect_err("fails").to_string();
        assert!(
            error.starts_with("/usr/bin/env present failed (exit status: 127)"),
            "{error}"
        );
        assert!(error.contains("No such file"), "{error}");
        let error = call(Path::new("/nonexistent/dns"), Act::Cleanup, "n", "v").await;
        let error = error.expect_err("fails").to_string();
        assert!(error.starts_with("/nonexistent/dns cannot be run: "), "{error}");
        call(Path::new("/usr/bin/true"), Act::Present, "n", "v")
            .await
            .expect("well");
    }
}
