//! Firecracker: for production, on machines with usable KVM.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `api` | its HTTP API on a local socket |
//! | `command` | the jail, the command line, the guest's configuration |
//! | `opening` | stops the process in the middle of a load, where the delta is written |
//! | `vm` | one process: restore, pause, save |

mod api;
mod command;
mod opening;
mod vm;

use std::{io, path::Path, process::Command, sync::Arc};

use async_trait::async_trait;

pub(crate) use self::vm::FirecrackerVm;
use crate::{
    cpu,
    driver::{Acceleration, Driver, Machine, Platform, Vm, VmmError},
    jail::Bind,
    program::{libraries, locate},
};

/// The oldest version that this driver speaks to.
const OLDEST: (u32, u32) = (1, 12);
/// The API's major version that this driver speaks.
const MAJOR: u32 = 1;
/// From this version on a restored guest's clocks stand still unless asked to go on by the time that has passed; before, they do.
const CLOCKS_STAND_STILL: (u32, u32) = (1, 16);
/// What an operator is told about versions.
pub const SUPPORTED: &str = "1.12 or newer, below 2";

/// The Firecracker driver.
#[derive(Debug, Clone)]
pub struct Firecracker {
    platform: Platform,
    /// Whether a load must ask for the guest's clocks to go on.
    ask_clocks_on: bool,
    /// What the program itself needs in its jail: nothing but itself as released, which is static.
    files: Arc<Vec<Bind>>,
}

impl Firecracker {
    /// Its name in a platform.
    pub const NAME: &str = "firecracker";

    /// Asks the program for its version and fixes the platform.
    pub fn find(program: &Path) -> Result<Firecracker, VmmError> {
        let start = VmmError::start(program);
        let unusable = |cause: String| VmmError::Unsupported {
            program: program.display().to_string(),
            cause,
        };
        let found = locate(program).map_err(&start)?;
        let ask = |question: &str| -> Result<String, VmmError> {
            let output = Command::new(&found).arg(question).output().map_err(&start)?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let answer = ask("--version")?;
        let version = parse_version(&answer).ok_or_else(|| {
            start(io::Error::other(format!(
                "it does not tell its version; hearth needs Firecracker {SUPPORTED}"
            )))
        })?;
        if version.0 != MAJOR || version < OLDEST {
            return Err(unusable(format!(
                "it is Firecracker {}.{}; hearth needs {SUPPORTED}",
                version.0, version.1
            )));
        }
        let format = ask("--snapshot-version")?;
        let format = format
            .lines()
            .next()
            .filter(|line| line.starts_with('v'))
            .ok_or_else(|| unusable("it does not tell the version of its snapshots".into()))?;
        let platform = Platform {
            driver: Firecracker::NAME.into(),
            version: format!("{}.{}", version.0, version.1),
            acceleration: Acceleration::Kvm,
            machine: format!("state format {format}"),
            cpu: cpu::fingerprint().map_err(VmmError::io("reading this machine's processor"))?,
        };
        let mut files = vec![Bind::read_only(&found, command::PROGRAM)];
        let libraries = libraries(&found).map_err(start)?;
        files.extend(libraries.iter().map(|library| Bind::read_only(library, library)));
        Ok(Firecracker {
            platform,
            ask_clocks_on: version >= CLOCKS_STAND_STILL,
            files: Arc::new(files),
        })
    }
}

#[async_trait]
impl Driver for Firecracker {
    fn platform(&self) -> &Platform {
        &self.platform
    }

    async fn start(&self, machine: Machine) -> Result<Arc<dyn Vm>, VmmError> {
        let vm = FirecrackerVm::start(self, machine).await?;
        Ok(Arc::new(vm))
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Firecracker v"))?
        .split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A program that answers like a Firecracker of this version.
    fn program(directory: &Path, version: &str) -> PathBuf {
        let path = directory.join(format!("firecracker-{version}"));
        let text = format!(
            "#!/bin/sh\ncase $1 in\n--version) echo 'Firecracker v{version}' ;;\n--snapshot-version) echo v6.0.0 ;;\nesac\n"
        );
        // Written by another process: see the tests of `kvm`.
        let written = Command::new("/bin/sh")
            .args([
                "-c",
                "printf '%s' \"$1\" >\"$2\" && chmod 755 \"$2\"",
                "sh",
                &text,
            ])
            .arg(&path)
            .status();
        assert!(written.expect("runs").success());
        path
    }

    #[test]
    fn the_version_decides_and_names_what_is_wrong() {
        let directory = tempfile::tempdir().expect("temp dir");
        let find = |version: &str| Firecracker::find(&program(directory.path(), version));
        for (version, ask_clocks_on) in [("1.12.1", false), ("1.14.0-dev", false), ("1.16.0", true)] {
            let found = find(version).expect("supported");
            assert_eq!(found.ask_clocks_on, ask_clocks_on);
            assert_eq!(found.platform().machine, "state format v6.0.0");
            assert!(version.starts_with(&found.platform().version));
        }
        for version in ["1.11.0", "2.0.0", "nonsense"] {
            let error = find(version).expect_err("refused").to_string();
            assert!(error.contains("1.12 or newer"), "{error}");
        }
    }

    #[test]
    fn a_missing_or_unexecutable_program_is_named_with_a_cure() {
        let directory = tempfile::tempdir().expect("temp dir");
        let file = directory.path().join("firecracker");
        std::fs::write(&file, "not a program").expect("written");
        for path in [file.as_path(), Path::new("no-such-firecracker")] {
            let error = Firecracker::find(path).expect_err("refused").to_string();
            assert!(
                error.contains("Install it") && error.contains("firecracker"),
                "{error}"
            );
        }
    }
}
