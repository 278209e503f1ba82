use std::net::Ipv4Addr;

use hearth_agent_protocol::{GATEWAY_ADDRESS, GUEST_ADDRESS};

use crate::{NetworkConfig, tap::TAP};

/// The namespace's end of the link to the host.
pub(crate) const VETH: &str = "uplink";

/// Destinations closed to guests: private, shared, loopback, link-local, benchmarking, multicast and reserved ranges of
/// the IANA special-purpose registry (RFC 6890). The documentation ranges lead nowhere on the Internet and stay open.
const CLOSED: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
                      192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/4, 240.0.0.0/4";

/// Open outbound connections per guest; more are dropped, so that one guest cannot fill the host's connection table.
const MAX_CONNECTIONS: u32 = 4096;

fn sets(config: &NetworkConfig) -> String {
    let allow: Vec<String> = config
        .allow
        .iter()
        .map(|(address, length)| format!("{address}/{length}"))
        .collect();
    let elements = if allow.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {} }}", allow.join(", "))
    };
    format!(
        "  set closed {{ type ipv4_addr; flags interval; elements = {{ {CLOSED} }}; }}
  set allowed {{ type ipv4_addr; flags interval; auto-merge; {elements} }}"
    )
}

/// The whole rule set of a slot's namespace.
pub(crate) fn namespace(config: &NetworkConfig) -> String {
    let guest = Ipv4Addr::from(GUEST_ADDRESS);
    let gateway = Ipv4Addr::from(GATEWAY_ADDRESS);
    let sets = sets(config);
    // `invalid` TCP is a packet of a connection this namespace never saw open, as a guest sends after a restore: a reset
    // ends the connection at once, where silence would leave it hanging for minutes.
    format!(
        "flush ruleset
table ip guest {{
{sets}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
    iifname != {TAP} drop
    ip saddr != {guest} drop
    meta l4proto tcp ct state established accept
    meta l4proto tcp ct state invalid reject with tcp reset
    ip daddr {gateway} udp dport 53 accept
    ip daddr {gateway} tcp dport 53 accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    tcp flags syn tcp option maxseg size set rt mtu
    iifname {VETH} oifname {TAP} ct state established,related accept
    iifname != {TAP} drop
    oifname != {VETH} drop
    ip saddr != {guest} drop
    meta l4proto != tcp drop
    ct state established accept
    ct state invalid reject with tcp reset
    ip daddr @closed ip daddr != @allowed drop
    ct state new ct count over {MAX_CONNECTIONS} drop
    ct state new accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {VETH} masquerade
  }}
}}
"
    )
}

/// The host's table, replacing an earlier one of the same prefix in the same transaction.
pub(crate) fn host(config: &NetworkConfig) -> String {
    let table = &config.prefix;
    let (range, length) = config.range;
    let sets = sets(config);
    // The first chain stands before any address translation: a published port of the host is the host, too.
    format!(
        "{removal}
table inet {table} {{
{sets}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{table}-*\" fib daddr type {{ local, broadcast, multicast }} drop
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname \"{table}-*\" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname \"{table}-*\" goto from_guest
    oifname \"{table}-*\" goto to_guest
  }}
  chain from_guest {{
    oifname \"{table}-*\" drop
    meta l4proto != tcp drop
    ip saddr != {range}/{length} drop
    ip daddr {range}/{length} drop
    ip daddr @closed ip daddr != @allowed drop
    ct state established,new accept
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

/// Removes the host's table, whether it exists or not.
pub(crate) fn host_removal(config: &NetworkConfig) -> String {
    format!("add table inet {0}\ndelete table inet {0}\n", config.prefix)
}
