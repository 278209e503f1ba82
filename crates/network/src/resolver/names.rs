//! Which names a guest may look up, and what an answer opens.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
    sync::Arc,
};

use simple_dns::{CLASS, Packet, QCLASS, rdata::RData};

use crate::{
    Egress, NamePattern, NetworkError,
    error::While,
    namespace::{Namespace, on_own_thread},
    nft, rules,
};

/// How long an answered address stays open at least and at most, in seconds: a guest connects a moment after it asked,
/// also when the answer lives for none.
const LIFE: RangeInclusive<u32> = 30..=86_400;
/// Addresses of one answer that are opened.
const MAX_ADDRESSES: usize = 64;

/// The names that a guest may look up.
#[derive(Debug)]
pub(super) struct Names {
    /// Also those that no pattern names.
    all: bool,
    /// The set of addresses that each pattern opens.
    sets: BTreeMap<NamePattern, String>,
}

impl Names {
    pub(super) fn of(egress: &Egress) -> Self {
        Self {
            all: egress.resolves_all(),
            sets: egress.names(),
        }
    }

    /// Whether a query may be answered. One that cannot be read may not, unless every one may.
    pub(super) fn allow(&self, query: &[u8]) -> bool {
        self.all || question(query).is_some_and(|name| !self.sets_of(&name).is_empty())
    }

    /// Opens the addresses that an answer gives for an allowed name.
    pub(super) async fn open(
        &self,
        query: &[u8],
        answer: &[u8],
        namespace: Arc<Namespace>,
    ) -> Result<(), NetworkError> {
        let Some(name) = question(query).filter(|_| !self.sets.is_empty()) else {
            return Ok(());
        };
        let sets = self.sets_of(&name);
        let addresses = addresses(&name, answer);
        if sets.is_empty() || addresses.is_empty() {
            return Ok(());
        }
        let batch: String = sets
            .iter()
            .map(|set| rules::open_addresses(set, &addresses))
            .collect();
        on_own_thread(move || {
            namespace
                .enter()
                .during(|| "entering a slot's namespace".into())?;
            nft::apply(&batch)
        })
        .await
    }

    fn sets_of(&self, name: &str) -> Vec<&str> {
        let meant = self.sets.iter().filter(|(pattern, _)| pattern.matches(name));
        meant.map(|(_, set)| set.as_str()).collect()
    }
}

/// The name of a message with one question about the Internet.
fn question(message: &[u8]) -> Option<String> {
    let packet = Packet::parse(message).ok()?;
    match packet.questions.as_slice() {
        [question] if question.qclass == QCLASS::CLASS(CLASS::IN) => {
            Some(question.qname.to_string().to_ascii_lowercase())
        }
        _ => None,
    }
}

/// The addresses of a name in an answer, through its aliases, each with the seconds it is good for.
fn addresses(name: &str, answer: &[u8]) -> Vec<(Ipv4Addr, u32)> {
    let Ok(packet) = Packet::parse(answer) else {
        return Vec::new();
    };
    let mut names = HashSet::from([name.to_owned()]);
    let mut found: Vec<(Ipv4Addr, u32)> = Vec::new();
    // An alias may stand behind what it stands for: as many rounds as there can be links.
    for _ in 0..packet.answers.len().min(MAX_ADDRESSES) {
        let known = names.len();
        for record in &packet.answers {
            if let RData::CNAME(alias) = &record.rdata
                && names.contains(&record.name.to_string().to_ascii_lowercase())
            {
                names.insert(alias.0.to_string().to_ascii_lowercase());
            }
        }
        if names.len() == known {
            break;
        }
    }
    for record in &packet.answers {
        if let RData::A(address) = &record.rdata
            && names.contains(&record.name.to_string().to_ascii_lowercase())
            && found.len() < MAX_ADDRESSES
        {
            let address = Ipv4Addr::from(address.address);
            if found.iter().all(|(known, _)| *known != address) {
                found.push((address, record.ttl.clamp(*LIFE.start(), *LIFE.end())));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::{
        Name, QTYPE, Question, ResourceRecord, TYPE,
        rdata::{A, CNAME},
    };

    use super::*;

    fn record<'a>(name: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(Name::new(name).expect("a name"), CLASS::IN, ttl, rdata)
    }

    fn address(last: u8) -> RData<'static> {
        RData::A(A::from(Ipv4Addr::new(198, 51, 100, last)))
    }

    fn alias(name: &str) -> RData<'_> {
        RData::CNAME(CNAME(Name::new(name).expect("a name")))
    }

    fn query(name: &str) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.questions.push(Question::new(
            Name::new(name).expect("a name"),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().expect("bytes")
    }

    fn only(pattern: &str) -> Names {
        Names {
            all: false,
            sets: [(pattern.parse().expect("a pattern"), "name_0".to_owned())].into(),
        }
    }

    #[test]
    fn a_name_is_allowed_in_any_case_and_others_are_not() {
        let names = only("*.example.com");
        assert!(names.allow(&query("API.Example.com")));
        for other in ["example.com", "api.example.org", "api.example.com.evil.org"] {
            assert!(!names.allow(&query(other)), "{other}");
        }
    }

    #[test]
    fn addresses_are_taken_through_aliases_in_any_order_and_from_nowhere_else() {
        let mut packet = Packet::new_reply(7);
        packet.answers = vec![
            record("end.example", 5, address(1)),
            record("middle.example", 5, alias("end.example")),
            record("a.example", 5, alias("Middle.example")),
            record("other.example", 900, address(9)),
            record("A.example", 900, address(2)),
            record("a.example", 4_000_000, address(3)),
        ];
        let answer = packet.build_bytes_vec().expect("bytes");
        let opened = |last, seconds| (Ipv4Addr::new(198, 51, 100, last), seconds);
        assert_eq!(
            addresses("a.example", &answer),
            [opened(1, 30), opened(2, 900), opened(3, 86_400)]
        );
    }

    proptest! {
        #[test]
        fn no_message_upsets_the_reader(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let names = only("a.example");
            let _ = names.allow(&message);
            prop_assert!(addresses("a.example", &message).len() <= MAX_ADDRESSES);
        }
    }
}
