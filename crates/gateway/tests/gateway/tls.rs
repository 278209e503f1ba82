//! Applications that speak TLS themselves (spec section 18.1): found out, with any certificate.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::world::{Body, World, empty, full, passed, text};

/// What a TLS server does when it is spoken to in clear.
#[derive(Debug, Clone, Copy)]
enum Manner {
    SendsAnAlert,
    HangsUp,
    Complains,
}

fn server_config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["whatever".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let version = format!("{:?}", request.version());
    let mut response = Response::new(passed(request.into_body()));
    response
        .headers_mut()
        .insert("x-version", version.parse().unwrap());
    response
}

async fn tls_application(world: &World, port: u16, manner: Manner) {
    let listener = world.listen(port).await;
    let acceptor = TlsAcceptor::from(server_config());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut first = [0];
                stream.peek(&mut first).await.unwrap();
                match manner {
                    _ if first[0] == 22 => {}
                    Manner::SendsAnAlert => {}
                    Manner::HangsUp => return,
                    Manner::Complains => {
                        let _heard = stream.read(&mut [0; 4096]).await;
                        let complaint = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
                        let _told = stream.write_all(complaint.as_bytes()).await;
                        return;
                    }
                }
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service =
                    hyper::service::service_fn(|request| async { Ok::<_, Infallible>(echo(request).await) });
                let _closed = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}

#[tokio::test]
async fn an_application_in_tls_is_found_out_and_no_byte_of_the_request_is_lost() {
    for manner in [Manner::SendsAnAlert, Manner::HangsUp, Manner::Complains] {
        let world = World::start().await;
        tls_application(&world, 8443, manner).await;
        for round in 0..3 {
            let request = world
                .request("POST", "/secret")
                .header("x-aws-proxy-port", "8443")
                .body(full(format!("body {round}")))
                .unwrap();
            let response = world.h1().await.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{manner:?}");
            assert_eq!(response.headers()["x-version"], "HTTP/1.1");
            assert_eq!(text(response).await, format!("body {round}"), "{manner:?}");
        }
        let dials = world.machine.dialled.load(SeqCst);
        assert!(
            dials <= 4,
            "found out once, not for every request: {dials} connections"
        );
    }
}

#[tokio::test]
async fn http2_is_forced_on_an_application_in_tls_as_well() {
    let world = World::start().await;
    tls_application(&world, 8443, Manner::HangsUp).await;
    let request = world
        .request("POST", "/")
        .header("x-aws-proxy-port", "8443")
        .header("x-aws-proxy-force-h2", "true")
        .body(full("framed"))
        .unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["x-version"], "HTTP/2.0");
    assert_eq!(text(response).await, "framed");
}

#[tokio::test]
async fn an_application_in_clear_that_hangs_up_or_refuses_keeps_its_word() {
    let world = World::start().await;
    let listener = world.listen(8080).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                if head[..read].starts_with(b"GET /refused") {
                    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\nnot an HTTPS port!";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    // Stays, as a server in clear would.
                    let _end = stream.read(&mut [0]).await;
                }
            });
        }
    });
    let ask = async |path: &str| {
        let request = world.request("GET", path).body(empty()).unwrap();
        let response = world.h1().await.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    assert_eq!(ask("/hangs-up").await, (502, "".into()));
    assert_eq!(ask("/refused").await, (400, "not an HTTPS port!".into()));
}
