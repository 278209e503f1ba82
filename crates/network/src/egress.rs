//! What a guest may reach beyond its namespace.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

use crate::rules::{CLOSED_RANGES, NEVER};

/// Everything one guest may reach: the union of its outlets. Without any it reaches nothing, and no name either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// The ways out.
    pub outlets: Vec<Outlet>,
}

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlet {
    /// TCP to every public address.
    Internet,
    /// TCP and UDP to what is allowed within some ranges.
    Within {
        /// Where it leads. A range inside a private one opens that part of it; a wider one, such as `0.0.0.0/0`, leaves
        /// private ranges closed.
        ranges: Vec<Range>,
        /// What is allowed there; `None` is everything.
        allowed: Option<Vec<Allowed>>,
    },
}

/// Destinations that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Where to.
    pub destination: Destination,
    /// `None` is both.
    pub protocol: Option<Protocol>,
    /// Ports, both ends included.
    pub ports: RangeInclusive<u16>,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Addresses.
    Range(Range),
    /// The addresses that the resolver has answered for a name, for as long as the answer lives.
    Name(NamePattern),
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An IPv4 network such as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    address: Ipv4Addr,
    length: u8,
}

/// A host name, or `*.` and a domain for every name below it. Lower case, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern(String);

/// A text that cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misnamed(String);

impl Default for Egress {
    fn default() -> Self {
        Self::internet()
    }
}

impl Egress {
    /// What a guest may reach when nothing else is said.
    pub fn internet() -> Self {
        Self {
            outlets: vec![Outlet::Internet],
        }
    }

    /// Every name that is allowed by itself, with its place in the rules.
    pub(crate) fn names(&self) -> BTreeMap<NamePattern, String> {
        let outlets = self.outlets.iter().filter_map(|outlet| match outlet {
            Outlet::Within {
                allowed: Some(allowed),
                ..
            } => Some(allowed),
            _ => None,
        });
        let names = outlets
            .flatten()
            .filter_map(|allowed| match &allowed.destination {
                Destination::Name(name) => Some(name.clone()),
                Destination::Range(_) => None,
            });
        let mut sets = BTreeMap::new();
        for name in names {
            let set = format!("name_{}", sets.len());
            sets.entry(name).or_insert(set);
        }
        sets
    }

    /// Whether names may be looked up that no rule names: where whole ranges are open, and nowhere by name alone.
    pub(crate) fn resolves_all(&self) -> bool {
        self.outlets.contains(&Outlet::Internet)
            || (self.names().is_empty()
                && self.outlets.iter().any(|outlet| match outlet {
                    Outlet::Internet => true,
                    Outlet::Within { ranges, allowed } => {
                        !ranges.is_empty() && allowed.as_ref().is_none_or(|allowed| !allowed.is_empty())
                    }
                }))
    }
}

impl Range {
    /// The first address and the number of fixed bits.
    pub(crate) const fn new(address: Ipv4Addr, length: u8) -> Self {
        Self { address, length }
    }

    /// Whether `other` lies in it as a whole.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.length <= other.length && u32::from(other.address) & mask(self.length) == u32::from(self.address)
    }

    /// Whether it lies in a private range as a whole, so that naming it means to open it.
    pub(crate) fn is_private(&self) -> bool {
        CLOSED_RANGES.iter().any(|closed| closed.contains(self))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl FromStr for Range {
    type Err = Misnamed;

    /// Refuses what is no network, and what no guest may ever reach: link-local, loopback, multicast and reserved ranges.
    fn from_str(text: &str) -> Result<Self, Misnamed> {
        let read = || {
            let (address, length) = text.split_once('/')?;
            Some(Self::new(address.parse().ok()?, length.parse().ok()?))
        };
        let range = read()
            .filter(|range| range.length <= 32 && u32::from(range.address) & !mask(range.length) == 0)
            .ok_or_else(|| {
                Misnamed(format!(
                    "{text:?} is not an address range with its prefix length, such as 10.1.0.0/16"
                ))
            })?;
        if NEVER.iter().any(|never| never.contains(&range)) {
            return Err(Misnamed(format!(
                "the range {text} can never be opened to guests"
            )));
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl NamePattern {
    /// Whether a name (in lower case, without a final dot) is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(below) => name.len() > below.len() && name.ends_with(below) && !name.starts_with('.'),
            None => name == self.0,
        }
    }
}

impl FromStr for NamePattern {
    type Err = Misnamed;

    fn from_str(text: &str) -> Result<Self, Misnamed> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253 || !name.strip_prefix("*.").unwrap_or(&name).split('.').all(is_label) {
            return Err(Misnamed(format!(
                "{text:?} is not a host name such as api.example.com or *.example.com"
            )));
        }
        Ok(Self(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().expect(text)
    }

    #[test]
    fn a_range_is_a_network_and_none_that_must_stay_closed() {
        assert_eq!(range("10.1.0.0/16").to_string(), "10.1.0.0/16");
        for wrong in ["10.1.0.1/16", "10.1.0.0", "10.0.0.0/33", "x/8", "::/0"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
        for closed in [
            "169.254.169.254/32",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "0.0.0.0/8",
        ] {
            assert!(
                closed
                    .parse::<Range>()
                    .expect_err(closed)
                    .to_string()
                    .contains("never"),
                "{closed}"
            );
        }
        assert!(range("10.9.0.0/16").is_private() && !range("0.0.0.0/0").is_private());
    }

    #[test]
    fn a_star_stands_for_one_label_or_more() {
        let pattern: NamePattern = "*.Example.com.".parse().expect("a pattern");
        for (name, meant) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("badexample.com", false),
            (".example.com", false),
        ] {
            assert_eq!(pattern.matches(name), meant, "{name}");
        }
        for wrong in ["", "*", "a.*.com", "a..b", "ex ample.com", "*.*.com"] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_looked_up_freely_only_where_ranges_are_open() {
        let within = |allowed| Egress {
            outlets: vec![Outlet::Within {
                ranges: vec![range("0.0.0.0/0")],
                allowed,
            }],
        };
        let to = |destination| Allowed {
            destination,
            protocol: None,
            ports: 0..=65535,
        };
        let name = || to(Destination::Name("a.example".parse().expect("a name")));
        let addresses = || to(Destination::Range(range("198.51.100.0/24")));
        assert!(Egress::internet().resolves_all());
        assert!(within(None).resolves_all());
        assert!(within(Some(vec![addresses()])).resolves_all());
        assert!(!within(Some(vec![])).resolves_all());
        assert!(!within(Some(vec![addresses(), name()])).resolves_all());
        assert!(!Egress { outlets: vec![] }.resolves_all());
    }
}
