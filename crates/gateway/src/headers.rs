//! What a proxy adds, keeps and strips (RFC 9110 section 7.6.1; spec section 18).

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// Names one exchange, to the application and in the proxy's own answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

const PLATFORM_PREFIX: &str = "x-aws-proxy-";
const FORCE_H2: &str = "x-aws-proxy-force-h2";

/// Whether the client asks for cleartext HTTP/2 to the application.
pub(crate) fn forces_h2(headers: &HeaderMap) -> bool {
    headers
        .get(FORCE_H2)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Whether any value of a list-valued header names this token.
pub(crate) fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut values = headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Removes what concerns one connection only, and what `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // Framing and addressing are never the client's to strike out.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

/// Makes a client's headers fit for the application: no hop-by-hop and no platform headers, Host kept, an id added.
/// `Expect` goes as well: the proxy itself answers 100 as soon as the application takes the body.
pub(crate) fn prepare_request(headers: &mut HeaderMap, host: HeaderValue, request_id: HeaderValue) {
    let takes_trailers = lists(headers, TE, "trailers");
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    let platform: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PLATFORM_PREFIX))
        .cloned()
        .collect();
    for name in platform {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.insert(HOST, host);
    headers.insert(REQUEST_ID, request_id);
}

/// What HTTP/1.1 wants and HTTP/2 does not have: one Cookie line, `TE` named in `Connection`.
pub(crate) fn suit_http1(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_application_sees_neither_platform_nor_connection_headers() {
        let mut headers = map(&[
            ("host", "x"),
            ("x-aws-proxy-auth", "secret"),
            ("x-aws-proxy-anything", "1"),
            ("connection", "close, x-mine, host, content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("x-amzn-requestid", "forged"),
            ("x-app", "1"),
        ]);
        prepare_request(
            &mut headers,
            HeaderValue::from_static("a.vm"),
            HeaderValue::from_static("id"),
        );
        let want = [
            ("host", "a.vm"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("x-amzn-requestid", "id"),
            ("x-app", "1"),
        ];
        assert_eq!(headers, map(&want));
    }

    #[test]
    fn cookies_split_by_http2_are_joined_for_http1() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        suit_http1(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }
}
