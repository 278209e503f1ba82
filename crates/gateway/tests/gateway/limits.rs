//! What a size carries (spec section 18.4), and how it is measured.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::{Response, StatusCode};
use prometheus_client::registry::Registry;

use crate::world::{World, empty, full, inspect, text, until};

fn measured(world: &World) -> String {
    let mut registry = Registry::default();
    world.metrics.register(&mut registry);
    let mut shown = String::new();
    prometheus_client::encoding::text::encode(&mut shown, &registry).unwrap();
    shown
}

async fn get(
    world: &World,
    client: &mut hyper::client::conn::http1::SendRequest<crate::world::Body>,
) -> StatusCode {
    let request = world.request("GET", "/").body(empty()).unwrap();
    let response = client.send_request(request).await.unwrap();
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(text(response).await, "Too many requests");
    } else {
        text(response).await;
    }
    status
}

#[tokio::test]
async fn one_connection_too_many_is_answered_429_until_another_closes() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    world.machine.limits.lock().unwrap().connections = Some(2);
    let (mut one, mut two, mut three) = (world.h1().await, world.h1().await, world.h1().await);
    for _ in 0..3 {
        assert_eq!(get(&world, &mut one).await, StatusCode::OK);
        assert_eq!(get(&world, &mut two).await, StatusCode::OK);
        assert_eq!(get(&world, &mut three).await, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(one);
    while get(&world, &mut three).await != StatusCode::OK {}
    assert_eq!(get(&world, &mut two).await, StatusCode::OK);
}

#[tokio::test]
async fn a_refused_client_takes_no_place() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    world.machine.limits.lock().unwrap().connections = Some(1);
    let mut stranger = world.h1().await;
    let request = hyper::Request::get("/")
        .header("host", crate::world::ENDPOINT)
        .body(empty())
        .unwrap();
    assert_eq!(
        stranger.send_request(request).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(get(&world, &mut world.h1().await).await, StatusCode::OK);
}

#[tokio::test]
async fn more_requests_than_the_rate_and_its_burst_are_answered_429() {
    let world = World::start().await;
    world.application(8080, inspect).await;
    world.machine.limits.lock().unwrap().requests_per_second = Some(1);
    let mut client = world.h1().await;
    let mut passed = 0;
    while get(&world, &mut client).await == StatusCode::OK {
        passed += 1;
    }
    assert!(passed >= 5, "a burst passes: {passed}");
    until_passed(&world, &mut client).await;
    let shown = measured(&world);
    assert!(
        shown.contains(r#"hearth_endpoint_limited_total{microvm="microvm-one"}"#),
        "{shown}"
    );
}

async fn until_passed(
    world: &World,
    client: &mut hyper::client::conn::http1::SendRequest<crate::world::Body>,
) {
    while get(world, client).await != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn bandwidth_is_back_pressure_and_no_error() {
    let world = World::start().await;
    world
        .application(8080, |_| async { Response::new(full(vec![b'x'; 2_000_000])) })
        .await;
    world.machine.limits.lock().unwrap().bytes_per_second = Some(2_000_000);
    let began = Instant::now();
    let request = world.request("GET", "/").body(empty()).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(text(response).await.len(), 2_000_000);
    // Faster than the rate is wrong on any machine; slower is the machine's own affair.
    assert!(
        began.elapsed() > Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn bytes_of_bodies_are_counted_for_the_microvm_each_way() {
    let world = World::start().await;
    world
        .application(8080, |request| async {
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(full([&sent[..], b"45"].concat()))
        })
        .await;
    let request = world.request("POST", "/").body(full("123")).unwrap();
    let response = world.h1().await.send_request(request).await.unwrap();
    assert_eq!(text(response).await, "12345");
    assert_eq!(*world.machine.moved.lock().unwrap(), (3, 5));
}

#[tokio::test]
async fn what_passes_is_measured() {
    let world = World::start().await;
    world
        .application(8080, |_| async { Response::new(full("12345")) })
        .await;
    {
        let mut client = world.h1().await;
        assert_eq!(get(&world, &mut client).await, StatusCode::OK);
        assert!(measured(&world).contains(r#"hearth_endpoint_connections{microvm="microvm-one"} 1"#));
    }
    let shown = measured(&world);
    for line in [
        r#"hearth_endpoint_requests_total{microvm="microvm-one",status="2xx"} 1"#,
        r#"hearth_endpoint_bytes_total{microvm="microvm-one",direction="out"} 5"#,
        r#"hearth_endpoint_latency_seconds_count{microvm="microvm-one"} 1"#,
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    until(|| measured(&world).contains(r#"hearth_endpoint_connections{microvm="microvm-one"} 0"#)).await;
}
