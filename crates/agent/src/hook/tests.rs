use std::net::TcpListener;
use std::sync::mpsc;

use super::*;

fn request_to(port: u16, timeout_ms: u64) -> HookCall {
    HookCall {
        port,
        name: "run".into(),
        body: String::new(),
        timeout_ms,
        retry_connect: false,
    }
}

/// A server for one connection, which reads the request's head and body and then does as told.
fn serve_once(answer: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("address").port();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut buffer = vec![0; 64 * 1024];
        let count = stream.read(&mut buffer).expect("reads");
        let _ = seen.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
        answer(&mut stream);
    });
    (port, requests)
}

fn outcome_of(answer: &'static [u8]) -> HookOutcome {
    let (port, _requests) = serve_once(move |stream| {
        let _ = stream.write_all(answer);
    });
    call(&request_to(port, 60_000))
}

#[test]
fn a_hook_with_a_body_is_posted_as_json_to_its_path() {
    let (port, requests) = serve_once(|stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .expect("answers");
    });
    let hook = HookCall {
        body: r#"{"microvmId":"microvm-1"}"#.into(),
        ..request_to(port, 60_000)
    };
    assert_eq!(call(&hook), HookOutcome::Status(200));
    assert_eq!(
        requests.recv().expect("request"),
        format!(
            "POST /aws/lambda-microvms/runtime/v1/run HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\
             Content-Length: 25\r\nContent-Type: application/json\r\n\r\n{{\"microvmId\":\"microvm-1\"}}"
        )
    );
}

#[test]
fn an_empty_hook_has_no_content_type() {
    let (port, requests) = serve_once(|stream| {
        stream.write_all(b"HTTP/1.0 503 Busy\r\n\r\n").expect("answers");
    });
    assert_eq!(call(&request_to(port, 60_000)), HookOutcome::Status(503));
    let request = requests.recv().expect("request");
    assert!(
        request.contains("Content-Length: 0\r\n") && !request.contains("Content-Type"),
        "{request}"
    );
}

#[test]
fn a_keep_alive_server_is_not_waited_for_after_its_answer() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice(),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (hold, released) = mpsc::channel::<()>();
        let (port, _requests) = serve_once(move |stream| {
            stream.write_all(answer).expect("answers");
            let _ = released.recv();
        });
        assert!(matches!(
            call(&request_to(port, 60_000)),
            HookOutcome::Status(200 | 204)
        ));
        drop(hold);
    }
}

#[test]
fn what_is_not_http_is_a_failure() {
    for answer in [
        b"220 smtp.example.com ESMTP\r\n".as_slice(),
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    ] {
        assert!(matches!(outcome_of(answer), HookOutcome::Failed(_)), "{answer:?}");
    }
}

#[test]
fn an_endless_head_is_a_failure_and_not_an_endless_wait() {
    let (port, _requests) = serve_once(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert!(matches!(call(&request_to(port, 60_000)), HookOutcome::Failed(_)));
}

#[test]
fn an_endless_body_does_not_hold_the_answer_back() {
    let (port, _requests) = serve_once(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(call(&request_to(port, 60_000)), HookOutcome::Status(200));
}

#[test]
fn a_server_that_trickles_past_the_deadline_times_out() {
    let (port, _requests) = serve_once(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(call(&request_to(port, 200)), HookOutcome::TimedOut);
}

#[test]
fn a_body_that_never_ends_in_time_is_no_complete_answer() {
    let (hold, released) = mpsc::channel::<()>();
    let (port, _requests) = serve_once(move |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let _ = released.recv();
    });
    assert_eq!(call(&request_to(port, 100)), HookOutcome::TimedOut);
    drop(hold);
}

#[test]
fn a_refused_connection_fails_at_once_or_is_retried_until_the_server_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("address");
    drop(listener);
    assert!(matches!(
        call(&request_to(address.port(), 60_000)),
        HookOutcome::Failed(_)
    ));
    let retried = HookCall {
        retry_connect: true,
        ..request_to(address.port(), 60)
    };
    assert_eq!(call(&retried), HookOutcome::TimedOut);

    let server = thread::spawn(move || {
        thread::sleep(Duration::from_millis(60));
        let listener = TcpListener::bind(address).expect("binds");
        let (mut stream, _) = listener.accept().expect("accepts");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let retried = HookCall {
        retry_connect: true,
        ..request_to(address.port(), 60_000)
    };
    assert_eq!(call(&retried), HookOutcome::Status(200));
    server.join().expect("server");
}

#[test]
fn a_name_that_is_not_a_word_is_refused() {
    for name in ["", "Run", "../x", "run HTTP/1.1\r\n"] {
        let hook = HookCall {
            name: name.into(),
            ..request_to(1, 1000)
        };
        assert!(matches!(call(&hook), HookOutcome::Failed(_)), "{name:?}");
    }
}
