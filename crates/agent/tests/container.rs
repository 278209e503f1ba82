//! Real containers on this machine: namespaces, a busybox root, a cgroup. Needs root, busybox and cgroup2.
//!
//! The machine's own clock, disks and network stay untouched: nothing here sends `Start`, `Freeze` or `Thaw`.

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use hearth_agent_protocol::{Exec, ExecInput, ExitStatus, Output, Reply, read_frame, write_frame};
use support::{Container, kinds};

#[test]
fn the_program_is_pid_1_of_a_container_laid_out_like_dockers() {
    let container = Container::new();
    let script = r#"
        echo "pid=$$ host=$(hostname) home=$HOME path=$PATH hostname=$HOSTNAME pwd=$(pwd) a=$A"
        grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status
        ulimit -n; ulimit -Hn
        cat /proc/self/cgroup | grep ^0::
        cat /etc/resolv.conf /etc/hostname; grep localhost /etc/hosts
        echo x > /proc/sys/kernel/domainname || echo read-only
        ls /sys/firmware | wc -l; ls -d /dev/fuse
        echo fine > /dev/stderr; : < /dev/null; head -c 4 /dev/zero | wc -c
        df -k /dev/shm | tail -1 | awk '{print $2}'
        test -e /dev/ptmx && test -c /dev/pts/ptmx && echo ptmx
        awk '$5 == "/"' /proc/self/mountinfo | wc -l
        mount -t tmpfs none /tmp || echo no-mount
    "#;
    let mut settings = container.settings(&["sh", "-c", script]);
    settings.env = vec!["A=1".into(), "A=2".into()];
    settings.working_directory = "/work/made".into();
    let (status, stdout, stderr) = container.run(settings);
    assert_eq!(status, ExitStatus::Code(0), "{stdout}\n{stderr}");
    for line in [
        "pid=1 host=localhost home=/root path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
         hostname=localhost pwd=/work/made a=2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "1024\n1024",
        "nameserver 192.0.2.1",
        "localhost",
        "read-only\n0\n4\n65536\nptmx\n1\n",
        "no-mount",
    ] {
        assert!(
            stdout.contains(line),
            "{line:?} is missing in\n{stdout}\n{stderr}"
        );
    }
    assert!(stdout.contains(container.cgroup_name()), "{stdout}");
    assert!(
        stderr.contains("fine") && stderr.contains("/dev/fuse"),
        "{stderr}"
    );
}

#[test]
fn another_user_has_its_ids_and_no_capabilities_but_may_open_its_output() {
    let container = Container::new();
    let script = "id -u; id -g; id -G; echo $HOME; grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status; echo again > /dev/stdout";
    let mut settings = container.settings(&["/bin/sh", "-c", script]);
    settings.user = "app".into();
    let (status, stdout, stderr) = container.run(settings);
    assert_eq!(
        (status, stdout.as_str()),
        (
            ExitStatus::Code(0),
            "1000\n1001\n1001 29\n/home/app\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
             CapBnd:\t00000000a80425fb\nagain\n"
        ),
        "{stderr}"
    );
}

#[test]
fn a_program_that_cannot_be_executed_is_told_to_the_host_and_in_the_output() {
    let container = Container::new();
    container.write("/etc/notes", "no program");
    for (program, code) in [
        ("nothing", 127),
        ("/no/such", 127),
        ("/etc/notes", 126),
        ("/etc", 126),
    ] {
        let started = container
            .start(container.settings(&[program]))
            .expect("makes a process");
        let refusal = started.check().expect_err("refused").to_string();
        assert!(
            refusal.starts_with(&format!("cannot start {program}: ")),
            "{refusal}"
        );
        let (status, _, stderr) = support::follow(&started.output);
        assert_eq!(status, ExitStatus::Code(code), "{program}");
        assert_eq!(stderr, format!("hearth: {refusal}\n"));
    }
}

#[test]
fn hostile_images_harm_only_themselves() {
    let container = Container::new();
    fs::remove_file(container.path("/etc/passwd")).expect("removes");
    nix::unistd::mkfifo(&container.path("/etc/passwd"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let outside = tempfile::NamedTempFile::new().expect("file");
    let _ = fs::remove_file(container.path("/etc/resolv.conf"));
    symlink(outside.path(), container.path("/etc/resolv.conf")).expect("links");
    let (status, stdout, _) = container.run(container.settings(&["cat", "/etc/resolv.conf"]));
    assert_eq!(
        (status, stdout.as_str()),
        (ExitStatus::Code(0), "nameserver 192.0.2.1\n")
    );
    assert_eq!(fs::metadata(outside.path()).expect("there").len(), 0);

    let container = Container::new();
    let _ = fs::remove_dir(container.path("/proc"));
    symlink("/etc", container.path("/proc")).expect("links");
    let started = container
        .start(container.settings(&["true"]))
        .expect("makes a process");
    assert_eq!(
        started.check().expect_err("refused").to_string(),
        "cannot start true: /proc of the image is not a directory"
    );
}

#[test]
fn orphans_of_the_application_die_with_it_and_its_last_words_are_kept() {
    let container = Container::new();
    let (status, stdout, _) =
        container.run(container.settings(&["sh", "-c", "(sleep 1000; echo late) & echo last; exit 7"]));
    assert_eq!((status, stdout.as_str()), (ExitStatus::Code(7), "last\n"));
    assert_eq!(container.processes(), 0);
}

#[test]
fn a_command_shares_the_container_and_its_output_ends_with_its_status() {
    let container = Container::new();
    let application = container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts");
    let request = Exec {
        argv: vec![
            "sh".into(),
            "-c".into(),
            "head -c 5 /proc/1/cmdline; echo; echo $B; pwd; cat; echo err >&2; exit 9".into(),
        ],
        env: vec!["B=mine".into()],
        working_directory: "/etc".into(),
        user: "app".into(),
        terminal: None,
    };
    let mut host = container.exec(&application, request);
    assert_eq!(read_frame(&mut host).expect("reply"), Some(Reply::Started));
    let long = vec![b'x'; 300_000];
    write_frame(&mut host, &ExecInput::Stdin(b"input:".to_vec())).expect("sends");
    write_frame(&mut host, &ExecInput::Stdin(long.clone())).expect("sends");
    write_frame(&mut host, &ExecInput::StdinEnd).expect("sends");
    let (status, stdout, stderr) = kinds(|| read_frame(&mut host).expect("frame").expect("frame"));
    assert_eq!(status, ExitStatus::Code(9));
    assert!(
        stdout.starts_with("sleep\nmine\n/etc\ninput:xxx"),
        "{}",
        &stdout[..60.min(stdout.len())]
    );
    assert_eq!(stdout.len(), "sleep\nmine\n/etc\ninput:".len() + long.len());
    assert_eq!(stderr, "err\n");
    assert_eq!(read_frame::<Output>(&mut host).expect("end"), None);
    container.end(&application);
}

#[test]
fn a_signal_reaches_the_command_even_a_real_time_one() {
    let container = Container::new();
    let application = container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts");
    let mut host = container.exec(
        &application,
        Exec {
            argv: vec!["sleep".into(), "1000".into()],
            env: Vec::new(),
            working_directory: String::new(),
            user: String::new(),
            terminal: None,
        },
    );
    assert_eq!(read_frame(&mut host).expect("reply"), Some(Reply::Started));
    write_frame(&mut host, &ExecInput::Signal(40)).expect("sends");
    assert_eq!(
        read_frame(&mut host).expect("frame"),
        Some(Output::Exited(ExitStatus::Signal(40)))
    );
    container.end(&application);
}

#[test]
fn a_command_dies_with_its_whole_group_when_the_host_goes() {
    let container = Container::new();
    let application = container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts");
    let before = container.processes();
    let mut host = container.exec(
        &application,
        Exec {
            argv: vec!["sh".into(), "-c".into(), "sleep 2000 & sleep 3000".into()],
            env: Vec::new(),
            working_directory: String::new(),
            user: String::new(),
            terminal: None,
        },
    );
    assert_eq!(read_frame(&mut host).expect("reply"), Some(Reply::Started));
    drop(host);
    container.await_processes(before);
    container.end(&application);
}

#[test]
fn a_command_that_cannot_run_is_refused() {
    let container = Container::new();
    let application = container
        .start(container.settings(&["sleep", "1000"]))
        .expect("starts");
    let request = |argv: &[&str], user: &str| Exec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        working_directory: String::new(),
        user: user.into(),
        terminal: None,
    };
    for (argv, user, cause) in [
        (["nothing"].as_slice(), "", "cannot start nothing: ENOENT"),
        (
            &["true"],
            "stranger",
            "cannot start true: unable to find user stranger",
        ),
    ] {
        let mut host = container.exec(&application, request(argv, user));
        match read_frame(&mut host).expect("reply") {
            Some(Reply::Refused(why)) => assert!(why.starts_with(cause), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    container.end(&application);
    let mut host = container.exec(&application, request(&["true"], ""));
    assert!(matches!(
        read_frame(&mut host).expect("reply"),
        Some(Reply::Refused(_))
    ));
}

#[test]
fn what_is_frozen_stands_still_until_it_is_thawed() {
    let container = Container::new();
    let counting = "i=0; while true; do i=$((i+1)); echo $i; done";
    let application = container
        .start(container.settings(&["sh", "-c", counting]))
        .expect("starts");
    let mut reader = application.output.read_from(0);
    let mut count = || match reader.next(|| false).expect("counts") {
        Output::Stdout(bytes) => bytes.len(),
        other => panic!("{other:?}"),
    };
    count();
    hearth_agent::freezer::freeze(container.cgroups()).expect("freezes");
    let events = fs::read_to_string(container.cgroups().join("app/cgroup.events")).expect("reads");
    assert!(events.contains("frozen 1"), "{events}");
    hearth_agent::freezer::thaw(container.cgroups()).expect("thaws");
    // More than the pipe and the ring can have held while it stood still.
    let mut counted = 0;
    while counted < 1 << 20 {
        counted += count();
    }
    container.end(&application);
}
