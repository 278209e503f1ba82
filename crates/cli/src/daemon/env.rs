//! `hearth env`: variables that point AWS tools at the daemon.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::output::Out;
use crate::settings::ClientFile;

/// Prints the variables.
#[derive(Args)]
pub(crate) struct Env {
    /// The shell that will read them
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    /// Any POSIX shell: sh, bash, zsh, dash
    Sh,
    /// fish
    Fish,
}

impl Env {
    /// Runs the command.
    pub(crate) fn run(self, data: &Path, out: Out) -> Result<()> {
        let variables = variables(&ClientFile::read(data)?);
        let json: Map<String, Value> = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone().into()))
            .collect();
        out.print(json.into(), || {
            let lines: Vec<String> = variables
                .iter()
                .map(|(name, value)| self.shell.export(name, value))
                .collect();
            lines.join("\n")
        })
    }
}

fn variables(file: &ClientFile) -> [(&'static str, String); 7] {
    [
        ("AWS_ENDPOINT_URL", file.endpoint_url.clone()),
        ("AWS_ACCESS_KEY_ID", file.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", file.secret_access_key.clone()),
        ("AWS_REGION", file.region.clone()),
        ("AWS_DEFAULT_REGION", file.region.clone()),
        ("AWS_CA_BUNDLE", file.ca_bundle.display().to_string()),
        ("HEARTH_CA", file.ca.display().to_string()),
    ]
}

impl Shell {
    fn export(self, name: &str, value: &str) -> String {
        match self {
            // Nothing is special between single quotes but the quote itself.
            Self::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Fish => format!(
                "set -gx {name} '{}'",
                value.replace('\\', r"\\").replace('\'', r"\'")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_reads_back_exactly_the_value(value in "[^\0]{0,40}") {
            let script = format!("{}\nprintf %s \"$V\"", Shell::Sh.export("V", &value));
            let output = Command::new("sh").arg("-c").arg(script).output().expect("sh");
            prop_assert_eq!(output.stdout, value.into_bytes());
        }
    }

    #[test]
    fn fish_gets_its_own_quoting() {
        assert_eq!(
            Shell::Fish.export("V", r"it's \ here"),
            r"set -gx V 'it\'s \\ here'"
        );
    }
}
