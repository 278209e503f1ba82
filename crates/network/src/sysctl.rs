use std::{fs, io, path::PathBuf};

use crate::{NetworkError, error::While};

/// A setting under `/proc/sys/net` as the calling thread's network namespace sees it.
fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Reads a setting, without its line end.
pub(crate) fn read(name: &str) -> Result<String, NetworkError> {
    let text = fs::read_to_string(path(name)).during(|| format!("reading the kernel setting {name}"))?;
    Ok(text.trim_end().into())
}

/// Writes a setting.
pub(crate) fn write(name: &str, value: &str) -> Result<(), NetworkError> {
    fs::write(path(name), value).during(|| format!("setting {name} to {value}"))
}

/// Writes a setting that a kernel without the feature does not have.
pub(crate) fn write_if_present(name: &str, value: &str) -> Result<(), NetworkError> {
    match fs::write(path(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.during(|| format!("setting {name} to {value}")),
    }
}
