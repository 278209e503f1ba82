//! Every precondition of the daemon, each with a line of cause and cure.

mod checks;
mod hardening;

use std::process::ExitCode;

use serde_json::json;

use crate::config::Config;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// It works, with a loss that the line names.
    Note,
    /// It does not work.
    Bad,
}

/// One line of the doctor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub cause: String,
    /// What to do; empty when nothing needs to be done.
    pub cure: String,
}

impl Finding {
    fn good(name: &'static str, cause: impl Into<String>) -> Finding {
        Finding {
            name,
            verdict: Verdict::Good,
            cause: cause.into(),
            cure: String::new(),
        }
    }

    fn note(name: &'static str, cause: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            name,
            verdict: Verdict::Note,
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    fn bad(name: &'static str, cause: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding {
            name,
            verdict: Verdict::Bad,
            cause: cause.into(),
            cure: cure.into(),
        }
    }

    fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        let cure = if self.cure.is_empty() {
            String::new()
        } else {
            format!(" Cure: {}", self.cure)
        };
        format!(
            "{mark}  {:<14} {}.{cure}",
            self.name,
            self.cause.trim_end_matches('.')
        )
    }
}

/// Runs every check and prints the findings. Fails when one is bad.
pub(crate) fn run(config: &Config, as_json: bool) -> ExitCode {
    let findings = [checks::all(config), hardening::all(config)].concat();
    let sound = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    if as_json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| {
                let verdict = match finding.verdict {
                    Verdict::Good => "ok",
                    Verdict::Note => "note",
                    Verdict::Bad => "bad",
                };
                json!({ "name": finding.name, "verdict": verdict, "cause": finding.cause, "cure": finding.cure })
            })
            .collect();
        println!("{}", json!({ "sound": sound, "checks": checks }));
    } else {
        findings.iter().for_each(|finding| println!("{}", finding.line()));
    }
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_cause_and_cure() {
        let line = Finding::bad("qemu", "there is none", "apt-get install qemu-system-x86").line();
        assert_eq!(
            line,
            "BAD   qemu           there is none. Cure: apt-get install qemu-system-x86"
        );
    }
}
