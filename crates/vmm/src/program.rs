//! A VMM's program on the host, and what it loads.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// As a shell would find it.
pub(crate) fn locate(program: &Path) -> io::Result<PathBuf> {
    if program.components().count() > 1 {
        return std::path::absolute(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The dynamic linker and the libraries it would load, at the names it looks for; none for a static program.
pub(crate) fn libraries(file: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text
        .lines()
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'));
    // The first word of a line may be the linker's own name, `/lib64/ld-linux-x86-64.so.2`.
    Ok(paths
        .map(|path| PathBuf::from(path.trim_end_matches(':')))
        .filter(|path| path != file)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_with_its_linker_and_the_c_library() {
        let program = locate(Path::new("sh")).expect("there is a shell");
        let libraries = libraries(&program).expect("ldd runs");
        let named = |part: &str| libraries.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(named("/ld-linux") && named("/libc.so"), "{libraries:?}");
        assert!(locate(Path::new("no-such-program")).is_err());
    }
}
