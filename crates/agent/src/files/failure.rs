use std::io::{self, ErrorKind};

use hearth_agent_protocol::FileFailure;

/// Longest cause, in characters.
const MAX_CAUSE: usize = 500;

/// A failure with the system's number for it.
pub(super) fn of(errno: i32, cause: &str) -> FileFailure {
    FileFailure {
        errno,
        cause: cause.into(),
    }
}

/// From an error of the system, perhaps wrapped: its number, and one line.
pub(super) fn from(error: &io::Error) -> FileFailure {
    let cause: String = error
        .to_string()
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MAX_CAUSE)
        .collect();
    FileFailure {
        errno: error.raw_os_error().unwrap_or_else(|| number(error.kind())),
        cause,
    }
}

fn number(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::ReadOnlyFilesystem => libc::EROFS,
        ErrorKind::InvalidInput | ErrorKind::InvalidData => libc::EINVAL,
        _ => 0,
    }
}
