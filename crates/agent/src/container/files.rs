//! The few files of a container's root that are the service's: resolver, hosts, host name, trust store.
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use nix::unistd::{Gid, Uid, fchown};

use super::NewContainer;
use super::user::Identity;

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
const TRUST_STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes them into the current root, which the container's links cannot lead out of.
pub fn write(container: &NewContainer) -> anyhow::Result<()> {
    let resolver = format!("nameserver {}\n", Ipv4Addr::from(container.name_server));
    for (path, content) in [
        ("/etc/resolv.conf", resolver.as_str()),
        ("/etc/hosts", HOSTS),
        ("/etc/hostname", "localhost\n"),
    ] {
        replace(Path::new(path), content).with_context(|| format!("cannot write {path}"))?;
    }
    if !container.extra_certificates.is_empty() {
        append(Path::new(TRUST_STORE), &container.extra_certificates)
            .with_context(|| format!("cannot extend {TRUST_STORE}"))?;
    }
    Ok(())
}

/// Whatever was there, a link into nowhere for example, gives way to a new file.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?
        .write_all(content.as_bytes())
}

fn append(path: &Path, certificates: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Without waiting, should the image have put a pipe there.
    let mut file = File::options()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // The last certificate of the store may lack its line's end.
    write!(file, "\n{}\n", certificates.trim_end())
}

/// Gives the pipes on the standard descriptors to the user, who may want to open /dev/stdout anew.
pub fn own_pipes(identity: &Identity) -> anyhow::Result<()> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for descriptor in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let copy = File::from(
            descriptor
                .try_clone_to_owned()
                .context("cannot look at a descriptor")?,
        );
        if copy.metadata().is_ok_and(|kind| kind.file_type().is_fifo()) {
            fchown(
                &copy,
                Some(Uid::from_raw(identity.uid)),
                Some(Gid::from_raw(identity.gid)),
            )
            .context("cannot pass the output on to the user")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_gives_way_to_a_file() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("etc/resolv.conf");
        fs::create_dir(root.path().join("etc")).expect("creates");
        std::os::unix::fs::symlink("/run/nowhere", &path).expect("links");
        replace(&path, "nameserver 1.2.3.4\n").expect("replaces");
        assert!(fs::symlink_metadata(&path).expect("there").is_file());
        assert_eq!(fs::read_to_string(&path).expect("reads"), "nameserver 1.2.3.4\n");
    }

    #[test]
    fn certificates_are_added_to_the_store_or_make_one() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("certs/ca-certificates.crt");
        append(&path, "NEW\n").expect("creates");
        fs::write(&path, "OLD").expect("writes");
        append(&path, "NEW\n").expect("appends");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "OLD\nNEW\n");
    }
}
