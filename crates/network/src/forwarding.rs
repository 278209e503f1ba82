use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{NetworkError, error::While, sysctl};

/// Who switched forwarding on for which interface, and what it was before. One place for all daemons of a machine, so
/// that the first one to stop does not cut the others off; gone after a reboot, as the settings are.
const DIRECTORY: &str = "/run/hearth-forwarding";
/// The setting's value before the first claim.
const ORIGINAL: &str = "original";

fn setting(interface: &str) -> String {
    format!("ipv4/conf/{interface}/forwarding")
}

/// Lets packets that arrive on `interface` be forwarded, on behalf of `owner`. Repeatable.
pub(crate) fn claim(interface: &str, owner: &str) -> Result<(), NetworkError> {
    let _lock = lock()?;
    let place = Path::new(DIRECTORY).join(interface);
    fs::create_dir_all(&place).during(|| format!("making {}", place.display()))?;
    let original = place.join(ORIGINAL);
    if !original.exists() {
        let value = sysctl::read(&setting(interface))?;
        store(&original, &value).during(|| format!("writing {}", original.display()))?;
    }
    let user = place.join(format!("user.{owner}"));
    File::create(&user).during(|| format!("writing {}", user.display()))?;
    sysctl::write(&setting(interface), "1")
}

/// Gives up every claim of `owner`; the last claim on an interface restores its setting.
pub(crate) fn release(owner: &str) -> Result<(), NetworkError> {
    let _lock = lock()?;
    for place in entries(Path::new(DIRECTORY)).during(|| format!("listing {DIRECTORY}"))? {
        if place.is_dir() {
            release_one(&place, owner)?;
        }
    }
    Ok(())
}

fn release_one(place: &Path, owner: &str) -> Result<(), NetworkError> {
    let doing = || format!("giving up the claim at {}", place.display());
    match fs::remove_file(place.join(format!("user.{owner}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.during(doing)?,
    }
    let is_user = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "user");
    if entries(place).during(doing)?.iter().any(is_user) {
        return Ok(());
    }
    let value = fs::read_to_string(place.join(ORIGINAL)).during(doing)?;
    if let Some(interface) = place.file_name().and_then(|name| name.to_str()) {
        // The interface may be gone by now.
        sysctl::write_if_present(&setting(interface), value.trim())?;
    }
    fs::remove_dir_all(place).during(doing)
}

fn lock() -> Result<Flock<File>, NetworkError> {
    let path = Path::new(DIRECTORY).join("lock");
    let file = fs::create_dir_all(DIRECTORY)
        .and_then(|()| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        })
        .during(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .during(|| format!("locking {}", path.display()))
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

fn store(path: &Path, value: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(value.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}
