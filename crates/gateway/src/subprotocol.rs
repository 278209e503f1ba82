//! Authentication by WebSocket subprotocols, for clients that cannot set headers (spec section 20).

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

use crate::respond::Refusal;

/// The subprotocol that every offer of ours must hold, and the one chosen when the application names none.
const MARKER: &str = "lambda-microvms";
const PLATFORM_PREFIX: &str = "lambda-microvms.";
const AUTHENTICATION_PREFIX: &str = "lambda-microvms.authentication.";
const PORT_PREFIX: &str = "lambda-microvms.port.";

/// What a client offered for the platform's own use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    marker: bool,
    tokens: Vec<String>,
    ports: Vec<String>,
    unknown: bool,
}

impl Offer {
    /// Takes the platform's subprotocols out of the headers; the application's own stay, in their order.
    pub(crate) fn take(headers: &mut HeaderMap) -> Offer {
        let mut offer = Offer::default();
        let mut application = Vec::new();
        let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
        for protocol in values
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        {
            let protocol = protocol.trim_ascii();
            match str::from_utf8(protocol) {
                Ok(MARKER) => offer.marker = true,
                Ok(text) if text.starts_with(PLATFORM_PREFIX) => offer.add(text),
                _ if protocol.is_empty() => {}
                _ => application.push(protocol),
            }
        }
        let application = HeaderValue::from_bytes(&application.join(&b", "[..]));
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Ok(application) = application
            && !application.is_empty()
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, application);
        }
        offer
    }

    fn add(&mut self, protocol: &str) {
        if let Some(token) = protocol.strip_prefix(AUTHENTICATION_PREFIX) {
            self.tokens.push(token.to_owned());
        } else if let Some(port) = protocol.strip_prefix(PORT_PREFIX) {
            self.ports.push(port.to_owned());
        } else {
            self.unknown = true;
        }
    }

    /// Refuses an offer that holds platform subprotocols without the marker, twice, or unknown ones.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let addressed = !self.tokens.is_empty() || !self.ports.is_empty();
        if (addressed && !self.marker) || self.unknown || self.tokens.len() > 1 || self.ports.len() > 1 {
            return Err(Refusal::InvalidSubprotocol);
        }
        Ok(())
    }

    /// The offered token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.tokens.first().map(String::as_str)
    }

    /// The offered port, as text.
    pub(crate) fn port(&self) -> Option<&str> {
        self.ports.first().map(String::as_str)
    }

    /// Chooses the marker in a 101 when the application chose nothing: a browser insists on a choice.
    pub(crate) fn complete(&self, response_headers: &mut HeaderMap) {
        if self.marker && !response_headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            response_headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(MARKER));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values
            .iter()
            .map(|value| HeaderValue::from_str(value).expect("a header value"));
        values.map(|value| (SEC_WEBSOCKET_PROTOCOL, value)).collect()
    }

    #[test]
    fn platform_subprotocols_are_taken_and_the_application_keeps_its_own() {
        let mut headers = headers(&[
            "lambda-microvms, chat.v2",
            "lambda-microvms.authentication.a.b.c,lambda-microvms.port.9",
            "chat.v1",
        ]);
        let offer = Offer::take(&mut headers);
        assert_eq!(
            (offer.token(), offer.port(), offer.check()),
            (Some("a.b.c"), Some("9"), Ok(()))
        );
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "chat.v2, chat.v1");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn no_header_is_left_when_only_platform_subprotocols_were_offered() {
        let mut headers = headers(&["lambda-microvms,lambda-microvms.authentication.x"]);
        Offer::take(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_offer_without_marker_or_with_doubles_is_refused() {
        for bad in [
            "lambda-microvms.authentication.x",
            "lambda-microvms.port.80",
            "lambda-microvms, lambda-microvms.port.1, lambda-microvms.port.2",
            "lambda-microvms, lambda-microvms.authentication.x, lambda-microvms.authentication.y",
            "lambda-microvms, lambda-microvms.color.red",
        ] {
            assert_eq!(
                Offer::take(&mut headers(&[bad])).check(),
                Err(Refusal::InvalidSubprotocol),
                "{bad}"
            );
        }
        assert_eq!(Offer::take(&mut headers(&["chat"])).check(), Ok(()));
    }

    #[test]
    fn the_marker_is_chosen_only_when_it_was_offered_and_the_application_chose_nothing() {
        let mut chosen = headers(&["chat"]);
        let marked = Offer {
            marker: true,
            ..Offer::default()
        };
        marked.complete(&mut chosen);
        assert_eq!(chosen[SEC_WEBSOCKET_PROTOCOL], "chat");
        let mut none = HeaderMap::new();
        Offer::default().complete(&mut none);
        assert!(none.is_empty());
        marked.complete(&mut none);
        assert_eq!(none[SEC_WEBSOCKET_PROTOCOL], MARKER);
    }

    proptest! {
        #[test]
        fn nothing_of_the_platform_ever_passes(values in prop::collection::vec("[ -~]{0,20}|(lambda-microvms[.a-z, ]{0,20})", 0..5)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let mut headers = headers(&values);
            Offer::take(&mut headers);
            for left in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
                for protocol in left.to_str().expect("printable").split(',').map(str::trim) {
                    prop_assert!(protocol != MARKER && !protocol.starts_with(PLATFORM_PREFIX));
                }
            }
        }

        #[test]
        fn what_is_not_the_platform_s_passes_in_its_order(values in prop::collection::vec("[a-z0-9]{1,6}|lambda-microvms\\.port\\.[0-9]{1,3}", 0..8)) {
            let offered = values.join(", ");
            let mut headers = headers(&[&offered]);
            Offer::take(&mut headers);
            let own: Vec<&str> = values.iter().map(String::as_str).filter(|value| !value.starts_with(PLATFORM_PREFIX)).collect();
            let left = headers.get(SEC_WEBSOCKET_PROTOCOL).map_or("", |left| left.to_str().expect("printable"));
            prop_assert_eq!(left, own.join(", "));
        }
    }
}
