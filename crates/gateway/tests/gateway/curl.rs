//! The same through `curl`, a client that nobody here wrote.

use std::process::Output;

use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming};
use tokio::process::Command;

use crate::world::{Body, ENDPOINT, World, full, inspect};

async fn curl(world: &World, arguments: &[&str]) -> Output {
    let port = world.address.port();
    Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--cacert"])
        .arg(&world.ca_file)
        .args(["--connect-to", &format!("{ENDPOINT}:443:127.0.0.1:{port}")])
        .args(["--header", &format!("X-aws-proxy-auth: {}", world.token())])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(arguments)
        .arg(format!("https://{ENDPOINT}/from/curl"))
        .output()
        .await
        .unwrap()
}

async fn count(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    Response::new(full(format!("{bytes} bytes")))
}

#[tokio::test]
async fn curl_is_served_over_both_versions_and_trusts_the_certificate() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let output = curl(&world, &[option]).await;
        let got = String::from_utf8(output.stdout).unwrap();
        assert!(
            got.starts_with("GET /from/curl HTTP/1.1\n"),
            "{got}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            got.contains(&format!("host: {ENDPOINT}\n")) && !got.contains("x-aws-proxy"),
            "{got}"
        );
        assert!(got.ends_with(&format!("\n200 {version}")), "{got}");
    }
}

#[tokio::test]
async fn curl_uploads_a_large_file_with_and_without_a_known_length() {
    let world = World::start().await;
    world.application(8080, count).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    let path = file.path().to_str().unwrap();
    for options in [
        vec!["--http1.1"],
        vec!["--http2"],
        vec!["--http1.1", "-H", "Transfer-Encoding: chunked"],
    ] {
        let output = curl(&world, &[options, vec!["--upload-file", path]].concat()).await;
        let got = String::from_utf8(output.stdout).unwrap();
        assert!(
            got.starts_with("20971520 bytes\n200 "),
            "{got}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
