//! Work on files of a container. Needs root, busybox and cgroup2.

mod support;

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use hearth_agent::application::Started;
use hearth_agent_protocol::{
    FileAction, FileChunk, FileFailure, FileInfo, FileKind, FileOwnership, Reply, read_frame, write_frame,
};
use support::Container;

fn application(container: &Container) -> Started {
    container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts")
}

fn reply(host: &mut TcpStream) -> Reply {
    read_frame(host).expect("frame").expect("a reply")
}

fn refusal(host: &mut TcpStream) -> FileFailure {
    match reply(host) {
        Reply::FileRefused(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn file(reply: Reply) -> FileInfo {
    match reply {
        Reply::File(info) => info,
        other => panic!("{other:?}"),
    }
}

/// The content that follows a reply.
fn content(host: &mut TcpStream) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        match read_frame(host).expect("frame").expect("a chunk") {
            FileChunk::Data(bytes) => content.extend(bytes),
            FileChunk::End => return content,
            other => panic!("{other:?}"),
        }
    }
}

fn send(host: &mut TcpStream, content: &[u8]) {
    for piece in content.chunks(100_000) {
        write_frame(host, &FileChunk::Data(piece.to_vec())).expect("sends");
    }
    write_frame(host, &FileChunk::End).expect("sends");
}

#[test]
fn a_file_is_written_at_once_and_read_back_byte_for_byte() {
    let container = Container::new();
    let application = application(&container);
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let ownership = FileOwnership {
        mode: Some(0o640),
        uid: Some(1000),
        gid: Some(1001),
    };
    let mut host = container.files(&application, "/new/deep/file", FileAction::Write(ownership));
    send(&mut host, &bytes);
    let info = file(reply(&mut host));
    assert_eq!(
        (info.name.as_str(), info.kind, info.bytes),
        ("file", FileKind::File, 1_000_003)
    );
    assert_eq!((info.mode, info.uid, info.gid), (0o640, 1000, 1001));

    // Where nothing is said, what was stays.
    let mut host = container.files(
        &application,
        "/new/deep/file",
        FileAction::Write(FileOwnership::default()),
    );
    send(&mut host, &bytes[1..]);
    let info = file(reply(&mut host));
    assert_eq!((info.mode, info.uid, info.gid), (0o640, 1000, 1001));

    let mut host = container.files(&application, "/new/deep/file", FileAction::Read);
    assert_eq!(file(reply(&mut host)).bytes, 1_000_002);
    assert!(content(&mut host) == bytes[1..]);
    container.end(&application);
}

#[test]
fn a_write_that_is_broken_off_changes_nothing() {
    let container = Container::new();
    let application = application(&container);
    container.write("/tmp/kept", "old");
    let mut host = container.files(
        &application,
        "/tmp/kept",
        FileAction::Write(FileOwnership::default()),
    );
    write_frame(&mut host, &FileChunk::Data(b"half".to_vec())).expect("sends");
    host.shutdown(Shutdown::Write).expect("half-closes");
    refusal(&mut host);
    assert_eq!(fs::read(container.path("/tmp/kept")).expect("reads"), b"old");
    assert_eq!(fs::read_dir(container.path("/tmp")).expect("lists").count(), 1);
    container.end(&application);
}

#[test]
fn links_lead_nowhere_but_into_the_container() {
    let container = Container::new();
    let application = application(&container);
    let outside = tempfile::tempdir().expect("directory");
    fs::write(outside.path().join("secret"), "of the host").expect("writes");
    let outside = outside.path().join("secret");
    symlink(&outside, container.path("/tmp/absolute")).expect("links");
    let up = format!("{}{}", "../".repeat(20), outside.display());
    symlink(&up, container.path("/tmp/relative")).expect("links");
    symlink("/etc", container.path("/tmp/inside")).expect("links");
    for path in ["/tmp/absolute", "/tmp/relative", &up, &format!("/{up}")] {
        let mut host = container.files(&application, path, FileAction::Read);
        let errno = refusal(&mut host).errno;
        assert!(errno == libc::ENOENT || errno == libc::EINVAL, "{path}: {errno}");
    }
    let mut host = container.files(&application, "/tmp/inside/group", FileAction::Read);
    file(reply(&mut host));
    assert!(content(&mut host).starts_with(b"root:x:0:"));

    // A write through a link lands in the container, too.
    symlink("/etc/made", container.path("/tmp/way")).expect("links");
    container.write("/etc/made", "");
    let mut host = container.files(
        &application,
        "/tmp/way",
        FileAction::Write(FileOwnership::default()),
    );
    send(&mut host, b"through");
    file(reply(&mut host));
    assert_eq!(fs::read(container.path("/etc/made")).expect("reads"), b"through");
    // Removing a link removes that, not what it names.
    let mut host = container.files(&application, "/tmp/way", FileAction::Remove { recursive: true });
    assert_eq!(reply(&mut host), Reply::Done);
    assert!(container.path("/etc/made").exists() && !container.path("/tmp/way").exists());
    container.end(&application);
}

#[test]
fn trees_go_down_and_up_with_modes_and_owners() {
    let container = Container::new();
    let application = application(&container);
    fs::create_dir_all(container.path("/tmp/tree/empty")).expect("creates");
    container.write("/tmp/tree/tool", "#!/bin/sh\n");
    let tool = container.path("/tmp/tree/tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4750)).expect("sets");
    std::os::unix::fs::chown(&tool, Some(1000), Some(29)).expect("owns");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o4750)).expect("sets");
    symlink("tool", container.path("/tmp/tree/link")).expect("links");

    let mut host = container.files(&application, "/tmp/tree", FileAction::List);
    file(reply(&mut host));
    let mut names = Vec::new();
    while let Some(FileChunk::Entry(info)) = read_frame(&mut host).expect("frame") {
        names.push((info.name, info.kind, info.target));
    }
    let named = |name: &str, kind, target: Option<&str>| (name.into(), kind, target.map(Into::into));
    assert_eq!(
        names,
        [
            named("empty", FileKind::Directory, None),
            named("link", FileKind::Link, Some("tool")),
            named("tool", FileKind::File, None)
        ]
    );

    let mut host = container.files(&application, "/tmp/tree", FileAction::Pack);
    assert_eq!(file(reply(&mut host)).kind, FileKind::Directory);
    let archive = content(&mut host);
    for owners in [true, false] {
        let place = format!("/srv/{owners}");
        let mut host = container.files(&application, &place, FileAction::Unpack { owners });
        send(&mut host, &archive);
        assert_eq!(reply(&mut host), Reply::Done);
        let tool = fs::metadata(container.path(format!("{place}/tool"))).expect("exists");
        assert_eq!(tool.mode() & 0o7777, 0o4750);
        assert_eq!((tool.uid(), tool.gid()), if owners { (1000, 29) } else { (0, 0) });
        assert!(container.path(format!("{place}/empty")).is_dir());
        assert!(container.path(format!("{place}/link")).is_symlink());
    }
    for (recursive, errno) in [(false, Some(libc::ENOTEMPTY)), (true, None)] {
        let mut host = container.files(&application, "/srv", FileAction::Remove { recursive });
        match errno {
            Some(errno) => assert_eq!(refusal(&mut host).errno, errno),
            None => assert_eq!(reply(&mut host), Reply::Done),
        }
    }
    assert!(!container.path("/srv").exists());
    container.end(&application);
}

#[test]
fn what_cannot_be_done_is_named_by_the_systems_number() {
    let container = Container::new();
    let application = application(&container);
    nix::unistd::mkfifo(&container.path("/tmp/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for (path, action, errno) in [
        ("/nothing", FileAction::Read, libc::ENOENT),
        ("/nothing", FileAction::Describe, libc::ENOENT),
        ("relative", FileAction::Read, libc::EINVAL),
        ("", FileAction::Describe, libc::EINVAL),
        ("/etc", FileAction::Read, libc::EISDIR),
        ("/etc/passwd", FileAction::List, libc::ENOTDIR),
        ("/tmp/pipe", FileAction::Read, libc::EINVAL),
        ("/etc/passwd/x", FileAction::Read, libc::ENOTDIR),
        (
            "/proc/sys/kernel/ostype",
            FileAction::Remove { recursive: false },
            libc::EROFS,
        ),
        ("/a\0b", FileAction::Read, libc::EINVAL),
    ] {
        let mut host = container.files(&application, path, action);
        assert_eq!(refusal(&mut host).errno, errno, "{path:?}");
    }
    let mut host = container.files(&application, "/etc", FileAction::Write(FileOwnership::default()));
    assert_eq!(refusal(&mut host).errno, libc::EISDIR);
    let mut host = container.files(&application, "/tmp/x", FileAction::Unpack { owners: false });
    send(&mut host, &[0xff; 2048]);
    refusal(&mut host);
    // A file of /proc names no size but has a content.
    let mut host = container.files(&application, "/proc/1/status", FileAction::Read);
    assert!(file(reply(&mut host)).bytes > 0);
    assert!(content(&mut host).starts_with(b"Name:"));
    container.end(&application);
}
