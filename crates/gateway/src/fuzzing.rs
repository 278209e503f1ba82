//! What the fuzz targets call: the parsers of what a client sends before anybody knows it.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

use crate::{
    subprotocol::Offer,
    target::{PORT, endpoint_id, port},
};

/// Header values of a request: the lines of `bytes`.
fn values(bytes: &[u8]) -> impl Iterator<Item = HeaderValue> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
}

/// Offers of subprotocols, a header a line. Nothing of the platform's is left for the application.
pub fn subprotocols(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in values(bytes) {
        headers.append(SEC_WEBSOCKET_PROTOCOL, value);
    }
    let offer = Offer::take(&mut headers);
    let _ = (offer.check(), offer.token(), port(&headers, Some(&offer)));
    let again = Offer::take(&mut headers);
    assert!(again == Offer::default(), "something of the platform's was left");
    offer.complete(&mut headers);
}

/// Port headers and an authority, a value a line.
pub fn ports(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in values(bytes) {
        if let Some(id) = endpoint_id(&value, "vm.localhost") {
            assert!(!id.is_empty() && !id.contains('.'));
        }
        headers.append(PORT, value);
    }
    let several = headers.len() > 1;
    if let Ok(port) = port(&headers, None) {
        assert!(port > 0 && !several);
    }
}
