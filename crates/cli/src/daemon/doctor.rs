//! `hearth doctor`: the daemon's own check of this machine.

use std::path::Path;
use std::process::Command;

use crate::daemon::process;
use crate::error::{Error, Result};
use crate::output::Out;

/// Runs `hearthd doctor` and ends with its exit code.
pub(crate) fn run(data: &Path, out: Out) -> Result<()> {
    let executable = process::executable()?;
    let mut command = Command::new(&executable);
    command.arg("doctor").env("HEARTH_DATA", data);
    if out.json {
        command.arg("--json");
    }
    let status = command.status().map_err(Error::file(&executable))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Exit(u8::try_from(code).unwrap_or(1))),
        None => Err(Error::failed(format!("`hearthd doctor` was ended: {status}"), "")),
    }
}
