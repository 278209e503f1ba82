//! Ports that a MicroVM's endpoint serves without a token: an extension. A MicroVM asks for them by an ingress connector
//! (`PUBLIC_INGRESS_8080`), and they are open as long as the operator allows it.

use std::ops::RangeInclusive;

use hearth_wire::{ApiError, arn::public_ports, texts};

/// The port when a request names none (spec section 18.2).
const DEFAULT_PORT: u16 = 8080;

/// Refuses connectors that ask for more than the operator allows, as if there were none of that name.
pub(crate) fn check(ingress: &[String], allowed: &[RangeInclusive<u16>]) -> Result<(), ApiError> {
    let is_refused = |arn: &&String| public_ports(arn).is_some_and(|ports| !is_allowed(&ports, allowed));
    match ingress.iter().find(is_refused) {
        Some(arn) => Err(texts::unrecognized_connector(arn)),
        None => Ok(()),
    }
}

/// The public port that a request without a token may go to. One that names none goes to 8080 if that is public, else to
/// the first that is.
pub(crate) fn port(ingress: &[String], allowed: &[RangeInclusive<u16>], asked: Option<u16>) -> Option<u16> {
    let open = || {
        ingress
            .iter()
            .filter_map(|arn| public_ports(arn))
            .filter(|ports| is_allowed(ports, allowed))
    };
    let wanted = asked.unwrap_or(DEFAULT_PORT);
    if open().any(|ports| ports.contains(&wanted)) {
        return Some(wanted);
    }
    open()
        .map(|ports| *ports.start())
        .next()
        .filter(|_| asked.is_none())
}

fn is_allowed(ports: &RangeInclusive<u16>, allowed: &[RangeInclusive<u16>]) -> bool {
    allowed
        .iter()
        .any(|allowed| allowed.contains(ports.start()) && allowed.contains(ports.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(names: &[&str]) -> Vec<String> {
        let arn =
            |name: &&str| format!("arn:aws:lambda:r:aws:network-connector:aws-network-connector:{name}");
        names.iter().map(arn).collect()
    }

    #[test]
    fn only_what_is_asked_for_and_allowed_is_open() {
        let asked = ingress(&["HTTP_INGRESS", "PUBLIC_INGRESS_9000_9009", "PUBLIC_INGRESS_7000"]);
        let allowed = [9000..=9100];
        assert_eq!(port(&asked, &allowed, Some(9009)), Some(9009));
        for closed in [8080, 9010, 7000] {
            assert_eq!(port(&asked, &allowed, Some(closed)), None, "{closed}");
        }
        assert_eq!(port(&asked, &allowed, None), Some(9000));
        assert_eq!(
            port(&asked, &[], None),
            None,
            "the operator has changed their mind"
        );
        assert_eq!(port(&ingress(&["HTTP_INGRESS"]), &[1..=65535], None), None);
        let both = ingress(&["PUBLIC_INGRESS_1_9999"]);
        assert_eq!(port(&both, &[1..=65535], None), Some(DEFAULT_PORT));
    }

    #[test]
    fn asking_for_more_than_is_allowed_is_refused() {
        assert!(check(&ingress(&["HTTP_INGRESS", "PUBLIC_INGRESS_80_90"]), &[80..=90]).is_ok());
        assert!(check(&ingress(&["PUBLIC_INGRESS_80_91"]), &[80..=90]).is_err());
        assert!(check(&ingress(&["PUBLIC_INGRESS_80"]), &[]).is_err());
    }
}
