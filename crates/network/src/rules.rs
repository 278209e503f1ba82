use std::{fmt::Write, net::Ipv4Addr};

use hearth_agent_protocol::{GATEWAY_ADDRESS, GUEST_ADDRESS};

use crate::{
    Allowed, Destination, Egress, NetworkConfig, Outlet, Protocol, Range,
    resolver::QUERIES_PER_SECOND,
    slot::{API_ADDRESS, API_PORT, METADATA_ADDRESS, METADATA_PORT},
    tap::TAP,
};

/// The namespace's end of the link to the host.
pub(crate) const VETH: &str = "uplink";

const fn range(a: u8, b: u8, c: u8, length: u8) -> Range {
    Range::new(Ipv4Addr::new(a, b, c, 0), length)
}

/// Destinations that no configuration opens: this network, loopback, link-local, multicast and reserved ranges.
pub(crate) const NEVER: [Range; 5] = [
    range(0, 0, 0, 8),
    range(127, 0, 0, 8),
    range(169, 254, 0, 16),
    range(224, 0, 0, 4),
    range(240, 0, 0, 4),
];

/// Destinations closed to guests: private, shared, loopback, link-local, benchmarking, multicast and reserved ranges of
/// the IANA special-purpose registry (RFC 6890). The documentation ranges lead nowhere on the Internet and stay open.
pub(crate) const CLOSED_RANGES: [Range; 11] = [
    NEVER[0],
    range(10, 0, 0, 8),
    range(100, 64, 0, 10),
    NEVER[1],
    NEVER[2],
    range(172, 16, 0, 12),
    range(192, 0, 0, 24),
    range(192, 168, 0, 16),
    range(198, 18, 0, 15),
    NEVER[3],
    NEVER[4],
];

/// Open outbound connections per guest; more are dropped, so that one guest cannot fill the host's connection table.
const MAX_CONNECTIONS: u32 = 4096;
/// New connections per guest and second, after a burst of [`MAX_CONNECTIONS`]; more are dropped. To count the open ones takes the
/// kernel a walk over them.
const MAX_NEW_CONNECTIONS: u32 = 1000;
/// ARP messages per guest and second, after a burst of as many; more are dropped. A guest knows its gateway and needs none, unless
/// it brings its link up anew.
const MAX_ARP: u32 = 16;
/// Addresses of one name rule that are open at a time.
const MAX_NAMED_ADDRESSES: u32 = 4096;

/// A set of ranges; an empty one holds nothing.
fn set(name: &str, ranges: impl IntoIterator<Item = String>) -> String {
    let ranges: Vec<String> = ranges.into_iter().collect();
    let elements = if ranges.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }}", ranges.join(", "))
    };
    format!("  set {name} {{ type ipv4_addr; flags interval; auto-merge; {elements} }}\n")
}

fn sets(config: &NetworkConfig) -> String {
    let allow = config
        .allow
        .iter()
        .map(|(address, length)| format!("{address}/{length}"));
    set("closed", CLOSED_RANGES.iter().map(Range::to_string)) + &set("allowed", allow)
}

/// The ranges that are opened as they are, and those that private ranges are taken from.
fn opened(ranges: &[Range]) -> (Vec<String>, Vec<String>) {
    let (private, wide): (Vec<&Range>, Vec<&Range>) = ranges.iter().partition(|range| range.is_private());
    let texts = |ranges: Vec<&Range>| ranges.into_iter().map(Range::to_string).collect();
    (texts(private), texts(wide))
}

/// The sets and chains of a guest's ways out; `outlet_<i>` accepts what the `i`th allows and returns from the rest.
fn outlets(egress: &Egress) -> String {
    let mut text = String::new();
    let names = egress.names();
    for set in names.values() {
        text += &format!("  set {set} {{ type ipv4_addr; flags timeout; size {MAX_NAMED_ADDRESSES}; }}\n");
    }
    for (number, outlet) in egress.outlets.iter().enumerate() {
        match outlet {
            Outlet::Internet => {
                text += &format!(
                    "  chain outlet_{number} {{
    meta l4proto != tcp return
    ip daddr @closed ip daddr != @allowed return
    accept
  }}
"
                );
            }
            Outlet::Within { ranges, allowed } => {
                let (private, wide) = opened(ranges);
                text += &set(&format!("private_{number}"), private);
                text += &set(&format!("wide_{number}"), wide);
                let rules = match allowed {
                    None => "    accept\n".to_owned(),
                    Some(allowed) => allowed.iter().map(|rule| accept(rule, &names)).collect(),
                };
                text += &format!(
                    "  chain allowed_{number} {{
{rules}  }}
  chain outlet_{number} {{
    ip daddr @private_{number} jump allowed_{number}
    ip daddr @wide_{number} ip daddr != @closed jump allowed_{number}
  }}
"
                );
            }
        }
    }
    text
}

/// The lines that accept what one rule allows.
fn accept(rule: &Allowed, names: &std::collections::BTreeMap<crate::NamePattern, String>) -> String {
    let destination = match &rule.destination {
        Destination::Range(range) => range.to_string(),
        Destination::Name(name) => match names.get(name) {
            Some(set) => format!("@{set}"),
            None => return String::new(),
        },
    };
    let (first, last) = (rule.ports.start(), rule.ports.end());
    let protocols = match rule.protocol {
        None => &["tcp", "udp"][..],
        Some(Protocol::Tcp) => &["tcp"],
        Some(Protocol::Udp) => &["udp"],
    };
    protocols.iter().fold(String::new(), |mut text, protocol| {
        let _ = writeln!(
            text,
            "    ip daddr {destination} {protocol} dport {first}-{last} accept"
        );
        text
    })
}

/// The whole rule set of a slot's namespace, with an empty chain by whose name the very same rules are known again
/// ([`mark`]).
pub(crate) fn namespace(config: &NetworkConfig, egress: &Egress) -> String {
    let rules = unmarked(config, egress);
    format!("{rules}add chain ip guest {}\n", mark(&rules))
}

/// The chain that tells whether a namespace has exactly these rules.
pub(crate) fn namespace_mark(config: &NetworkConfig, egress: &Egress) -> String {
    mark(&unmarked(config, egress))
}

fn mark(rules: &str) -> String {
    format!("rules_{:08x}", crc32fast::hash(rules.as_bytes()))
}

fn unmarked(config: &NetworkConfig, egress: &Egress) -> String {
    let guest = Ipv4Addr::from(GUEST_ADDRESS);
    let gateway = Ipv4Addr::from(GATEWAY_ADDRESS);
    let sets = sets(config);
    let outlets = outlets(egress);
    let ways: String = (0..egress.outlets.len())
        .map(|number| format!("    jump outlet_{number}\n"))
        .collect();
    // The first packet of a connection is the one that is not `confirmed`: those that nobody answers stay `new`.
    // `invalid` TCP is a packet of a connection this namespace never saw open, as a guest sends after a restore: a reset
    // ends the connection at once, where silence would leave it hanging for minutes.
    // Nothing in the namespace speaks to the outside for itself; a VMM that was taken over and lives in it would.
    // Floods end where they enter, before connections are tracked and answers are made, which would cost other guests time.
    format!(
        "flush ruleset
table netdev guest {{
  chain ingress {{
    type filter hook ingress device {TAP} priority filter; policy drop;
    ether type arp limit rate {MAX_ARP}/second burst {MAX_ARP} packets accept
    ip saddr != {guest} drop
    ip daddr {gateway} udp dport 53 limit rate over {QUERIES_PER_SECOND}/second burst {QUERIES_PER_SECOND} packets drop
    tcp flags & (syn | ack) == syn limit rate over {MAX_NEW_CONNECTIONS}/second burst {MAX_CONNECTIONS} packets drop
    ether type ip accept
  }}
}}
table ip guest {{
{sets}{outlets}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
    iifname != {TAP} drop
    meta l4proto tcp ct state established accept
    meta l4proto tcp ct state invalid reject with tcp reset
    ip daddr {gateway} udp dport 53 accept
    ip daddr {gateway} tcp dport 53 accept
    ip daddr {METADATA_ADDRESS} tcp dport {METADATA_PORT} accept
    ip daddr {API_ADDRESS} tcp dport {API_PORT} accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    tcp flags syn tcp option maxseg size set rt mtu
    iifname {VETH} oifname {TAP} ct state established,related accept
    iifname != {TAP} drop
    oifname != {VETH} drop
    meta l4proto != {{ tcp, udp }} drop
    ct state established accept
    meta l4proto tcp ct state invalid reject with tcp reset
    ct state != new drop
    ct status & confirmed == 0 limit rate over {MAX_NEW_CONNECTIONS}/second burst {MAX_CONNECTIONS} packets drop
    ct count over {MAX_CONNECTIONS} drop
{ways}  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname {VETH} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {VETH} masquerade
  }}
}}
"
    )
}

/// The host's table, replacing an earlier one of the same prefix in the same transaction. Slots with ways out of their
/// own are added by [`host_slot`].
pub(crate) fn host(config: &NetworkConfig) -> String {
    let table = &config.prefix;
    let (range, length) = config.range;
    let sets = sets(config);
    // The first chain stands before any address translation: a published port of the host is the host, too.
    format!(
        "{removal}
table inet {table} {{
{sets}
  map slots {{ type ipv4_addr : verdict; }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{table}-*\" fib daddr type {{ local, broadcast, multicast }} drop
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname \"{table}-*\" drop
  }}
  chain internet {{
    meta l4proto != tcp return
    ip daddr @closed ip daddr != @allowed return
    ct state established,new accept
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname \"{table}-*\" goto from_guest
    oifname \"{table}-*\" goto to_guest
  }}
  chain from_guest {{
    oifname \"{table}-*\" drop
    ip saddr != {range}/{length} drop
    ip daddr {range}/{length} drop
    ip saddr vmap @slots
    jump internet
    drop
  }}
  chain to_guest {{
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {range}/{length} oifname != \"{table}-*\" masquerade
  }}
}}
",
        removal = host_removal(config)
    )
}

/// What the host lets through for a slot with ways out of its own, named by the namespace's end of its link, which
/// nothing else can have (`rp_filter`). The namespace's rules are the finer ones.
pub(crate) fn host_slot(config: &NetworkConfig, index: u16, egress: &Egress) -> String {
    let table = &config.prefix;
    let (_, address) = config.link(index);
    let ranges: Vec<Range> = egress
        .outlets
        .iter()
        .flat_map(|outlet| match outlet {
            Outlet::Internet => Vec::new(),
            Outlet::Within { ranges, .. } => ranges.clone(),
        })
        .collect();
    let (private, wide) = opened(&ranges);
    let internet = if egress.outlets.contains(&Outlet::Internet) {
        "    jump internet\n"
    } else {
        ""
    };
    format!(
        "table inet {table} {{
{private}{wide}
  chain slot_{index} {{
    meta l4proto != {{ tcp, udp }} drop
    ip daddr @private_{index} ct state established,new accept
    ip daddr @wide_{index} ip daddr != @closed ct state established,new accept
{internet}    drop
  }}
}}
add element inet {table} slots {{ {address} : goto slot_{index} }}
",
        private = set(&format!("private_{index}"), private),
        wide = set(&format!("wide_{index}"), wide),
    )
}

/// Takes back what [`host_slot`] added.
pub(crate) fn host_slot_removal(config: &NetworkConfig, index: u16) -> String {
    let table = &config.prefix;
    let (_, address) = config.link(index);
    format!(
        "delete element inet {table} slots {{ {address} }}
flush chain inet {table} slot_{index}
delete chain inet {table} slot_{index}
delete set inet {table} private_{index}
delete set inet {table} wide_{index}
"
    )
}

/// Opens addresses in a namespace for `seconds` each, anew when they are open already.
pub(crate) fn open_addresses(set: &str, addresses: &[(Ipv4Addr, u32)]) -> String {
    addresses
        .iter()
        .fold(String::new(), |mut text, (address, seconds)| {
            let _ = write!(
                text,
                "add element ip guest {set} {{ {address} timeout {seconds}s }}
delete element ip guest {set} {{ {address} }}
add element ip guest {set} {{ {address} timeout {seconds}s }}
"
            );
            text
        })
}

/// Removes the host's table, whether it exists or not.
pub(crate) fn host_removal(config: &NetworkConfig) -> String {
    format!("add table inet {0}\ndelete table inet {0}\n", config.prefix)
}
