use std::{
    io::{self, Write},
    process::{Child, Command, Stdio},
};

use crate::{NetworkError, error::While};

/// Applies one batch, all or nothing, in the calling thread's network namespace (a child process inherits it).
pub(crate) fn apply(batch: &str) -> Result<(), NetworkError> {
    let mut child = spawn(&["-f", "-"])?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(batch.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output().during(|| "waiting for nft".into())?;
    if !output.status.success() {
        return Err(NetworkError::Nft(
            String::from_utf8_lossy(&output.stderr).trim().into(),
        ));
    }
    written.during(|| "sending rules to nft".into())
}

/// Whether an IPv4 table of the calling thread's network namespace has this chain.
pub(crate) fn has_chain(table: &str, chain: &str) -> Result<bool, NetworkError> {
    let listed = spawn(&["list", "chain", "ip", table, chain])?.wait_with_output();
    Ok(listed.during(|| "waiting for nft".into())?.status.success())
}

fn spawn(arguments: &[&str]) -> Result<Child, NetworkError> {
    // The second is where Debian puts it, for a daemon whose PATH lacks the directory.
    for program in ["nft", "/usr/sbin/nft"] {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            child => return child.during(|| "starting nft".into()),
        }
    }
    Err(NetworkError::NftMissing)
}
