//! Which MicroVM and which of its ports a request is for.

use http::{HeaderMap, HeaderValue, Request, header::HOST};

use crate::respond::Refusal;
use crate::subprotocol::Offer;

pub(crate) const PORT: &str = "x-aws-proxy-port";
/// The port when the request names none (spec section 18.2).
const DEFAULT_PORT: u16 = 8080;

/// The authority a request is addressed to: absolute form and `:authority` before Host, the TLS server name last.
pub(crate) fn authority<B>(request: &Request<B>, server_name: Option<&str>) -> Result<HeaderValue, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::InvalidRequest);
    }
    if let Some(authority) = request.uri().authority() {
        return HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::InvalidRequest);
    }
    match (host, server_name) {
        (Some(host), _) => Ok(host.clone()),
        (None, Some(name)) => HeaderValue::from_str(name).map_err(|_| Refusal::InvalidRequest),
        (None, None) => Err(Refusal::InvalidRequest),
    }
}

/// The first label of an endpoint below `domain`, in lower case; the authority may carry a port.
pub(crate) fn endpoint_id(authority: &HeaderValue, domain: &str) -> Option<String> {
    let authority = authority.to_str().ok()?.to_ascii_lowercase();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority.as_str(),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let (label, parent) = host.split_once('.')?;
    (!label.is_empty() && parent == domain).then(|| label.to_owned())
}

/// The guest port: header, then subprotocol, then 8080.
pub(crate) fn port(headers: &HeaderMap, offer: Option<&Offer>) -> Result<u16, Refusal> {
    Ok(asked_port(headers, offer)?.unwrap_or(DEFAULT_PORT))
}

/// The guest port that a request asks for, if it does.
pub(crate) fn asked_port(headers: &HeaderMap, offer: Option<&Offer>) -> Result<Option<u16>, Refusal> {
    let mut in_headers = headers.get_all(PORT).iter();
    match (in_headers.next(), in_headers.next()) {
        (Some(_), Some(_)) => Err(Refusal::InvalidPort),
        (Some(port), None) => parse_port(port.to_str().map_err(|_| Refusal::InvalidPort)?).map(Some),
        (None, _) => offer.and_then(Offer::port).map(parse_port).transpose(),
    }
}

pub(crate) fn parse_port(text: &str) -> Result<u16, Refusal> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(Refusal::InvalidPort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_endpoint_is_found_with_a_port_in_capitals_and_with_a_final_dot() {
        for host in [
            "ab-1.vm.localhost",
            "AB-1.vm.LOCALHOST:8443",
            "ab-1.vm.localhost.",
        ] {
            let found = endpoint_id(&HeaderValue::from_static(host), "vm.localhost");
            assert_eq!(found.as_deref(), Some("ab-1"), "{host}");
        }
    }

    #[test]
    fn other_names_are_no_endpoints() {
        for host in [
            "",
            "vm.localhost",
            ".vm.localhost",
            "a.b.vm.localhost",
            "a.vm.localhost.evil",
            "127.0.0.1:443",
            "[::1]:443",
        ] {
            assert_eq!(
                endpoint_id(&HeaderValue::from_static(host), "vm.localhost"),
                None,
                "{host}"
            );
        }
    }

    #[test]
    fn only_decimal_ports_from_1_to_65535_are_ports() {
        for bad in [
            "",
            "0",
            "-1",
            "+80",
            "1.5",
            "70000",
            "65536",
            "banana",
            " 80",
            "0x50",
            "99999999999999999999",
        ] {
            assert_eq!(parse_port(bad), Err(Refusal::InvalidPort), "{bad}");
        }
        assert_eq!((parse_port("1"), parse_port("65535")), (Ok(1), Ok(65535)));
    }

    proptest! {
        #[test]
        fn hostile_authorities_never_panic(bytes in prop::collection::vec(32..=255u8, 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                endpoint_id(&value, "vm.localhost");
            }
        }

        #[test]
        fn hostile_ports_are_numbers_or_refused(text in "[0-9+-]{0,7}|\\PC{0,12}") {
            match parse_port(&text) {
                Ok(port) => {
                    let digits = text.trim_start_matches('0');
                    prop_assert!(port > 0 && digits == port.to_string());
                }
                Err(refusal) => prop_assert_eq!(refusal, Refusal::InvalidPort),
            }
        }

        #[test]
        fn two_port_headers_are_refused_and_one_goes_before_the_subprotocol(
            values in prop::collection::vec("[0-9]{1,6}|[!-~]{0,8}", 0..4),
        ) {
            let headers: HeaderMap = values
                .iter()
                .filter_map(|value| Some((http::HeaderName::from_static(PORT), HeaderValue::from_str(value).ok()?)))
                .collect();
            let found = port(&headers, None);
            match values.as_slice() {
                [] => prop_assert_eq!(found, Ok(DEFAULT_PORT)),
                [one] => prop_assert_eq!(found, parse_port(one)),
                _ => prop_assert_eq!(found, Err(Refusal::InvalidPort)),
            }
        }
    }
}
