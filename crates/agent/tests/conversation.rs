//! Whole conversations with an agent over real connections: those that leave the machine as it is.
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use hearth_agent::container::launch::Launcher;
use hearth_agent::reaper::Reaper;
use hearth_agent::serve::Agent;
use hearth_agent_protocol::{
    Application, Exec, HookCall, HookOutcome, PROTOCOL_VERSION, Reply, Request, encode, read_frame,
    write_frame,
};

/// The host's end of a new connection to an agent without an application.
fn connection() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let host = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
    let agents = listener.accept().expect("accepts").0;
    thread::spawn(move || {
        let reaper = Reaper::start().expect("reaper");
        Agent::new(Launcher {
            reaper,
            program: env!("CARGO_BIN_EXE_hearth-agent").into(),
        })
        .converse(agents)
    });
    host
}

fn ask(request: &Request) -> Option<Reply> {
    let mut host = connection();
    write_frame(&mut host, request).expect("sends");
    read_frame(&mut host).expect("a frame or the end")
}

#[test]
fn the_agent_names_its_protocol_and_kernel() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("reads");
    let expected = Reply::Hello {
        protocol: PROTOCOL_VERSION,
        kernel: release.trim().into(),
    };
    assert_eq!(ask(&Request::Hello), Some(expected));
}

#[test]
fn a_forwarded_connection_is_raw_and_what_was_sent_early_is_not_lost() {
    let application = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = application.local_addr().expect("address").port();
    let echo = thread::spawn(move || {
        let (mut stream, _) = application.accept().expect("accepts");
        let mut request = String::new();
        stream.read_to_string(&mut request).expect("reads to the end");
        stream
            .write_all(request.to_uppercase().as_bytes())
            .expect("answers");
    });
    let mut host = connection();
    let mut early = encode(&Request::Forward { port }).expect("encodes");
    early.extend(b"early ");
    host.write_all(&early).expect("sends");
    assert_eq!(read_frame(&mut host).expect("reply"), Some(Reply::Connected));
    host.write_all(b"late").expect("sends");
    host.shutdown(Shutdown::Write).expect("half-closes");
    let mut answer = String::new();
    host.read_to_string(&mut answer).expect("reads to the end");
    assert_eq!(answer, "EARLY LATE");
    echo.join().expect("application");
}

#[test]
fn an_application_on_the_ipv6_loopback_is_found_and_none_is_refused() {
    let application = TcpListener::bind("[::1]:0").expect("binds");
    let port = application.local_addr().expect("address").port();
    assert_eq!(ask(&Request::Forward { port }), Some(Reply::Connected));
    drop(application);
    assert!(matches!(ask(&Request::Forward { port }), Some(Reply::Refused(_))));
}

#[test]
fn a_hook_nobody_listens_for_is_a_failed_hook_not_a_failed_request() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("binds")
        .local_addr()
        .expect("address")
        .port();
    let call = HookCall {
        port,
        name: "ready".into(),
        body: String::new(),
        timeout_ms: 1000,
        retry_connect: false,
    };
    assert!(matches!(
        ask(&Request::Hook(call)),
        Some(Reply::Hook(HookOutcome::Failed(_)))
    ));
}

#[test]
fn listeners_are_awaited() {
    let _listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    assert_eq!(
        ask(&Request::AwaitListener { timeout_ms: 60_000 }),
        Some(Reply::Listening(true))
    );
}

#[test]
fn what_needs_an_application_fails_before_one_is_started() {
    let exec = |argv: &[&str]| {
        let argv = argv.iter().map(ToString::to_string).collect();
        Request::Exec(Exec {
            argv,
            env: Vec::new(),
            working_directory: String::new(),
            user: String::new(),
            terminal: None,
        })
    };
    for request in [Request::Output { from: 0 }, exec(&["sh"])] {
        assert_eq!(
            ask(&request),
            Some(Reply::Failed("no application has been started".into()))
        );
    }
    assert!(matches!(ask(&exec(&[])), Some(Reply::Refused(_))));
}

#[test]
fn malformed_requests_are_answered_with_one_line() {
    for wire in [vec![0xff; 64], vec![1, 0, 0, 0, 200], vec![3, 0, 0, 0, 0, 0, 0]] {
        let mut host = connection();
        host.write_all(&wire).expect("sends");
        match read_frame(&mut host).expect("reply") {
            Some(Reply::Failed(why)) => assert!(!why.is_empty() && !why.contains('\n'), "{why}"),
            other => panic!("{other:?} to {wire:?}"),
        }
    }
    let mut cut = encode(&Request::Start(Application::default())).expect("encodes");
    cut.pop();
    let mut host = connection();
    host.write_all(&cut).expect("sends");
    host.shutdown(Shutdown::Write).expect("half-closes");
    assert!(matches!(
        read_frame(&mut host).expect("reply"),
        Some(Reply::Failed(_))
    ));
}
