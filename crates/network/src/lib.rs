//! Network slots: one network namespace per MicroVM, with the same addresses in each.
//!
//! ```text
//!   guest ── tap0 ─[ namespace: nftables, NAT, resolver ]─ uplink ══ veth ══ hearth-N ─[ host: nftables, NAT ]─ uplink
//!  .0.2     .0.1                                        100.65.x.y
//! ```
//!
//! Beside its gateway a guest finds two link-local addresses in its namespace: [`METADATA_ADDRESS`] and [`API_ADDRESS`],
//! where whoever owns the slot may listen ([`Slot::listen`]). What it reaches beyond is its [`Egress`]; a ready slot has
//! that of the Internet, and another one is applied before the guest runs.
//!
//! A [`Slot`] is made for one VMM process and destroyed afterwards; [`Network`] keeps some ready. Two rule sets, one in
//! the namespace and one on the host, each close the host, private ranges and other guests by themselves. All state
//! lives in the kernel, so that MicroVMs outlive the daemon: [`Network::adopt`] takes a namespace over again and
//! [`Network::sweep`] removes what belongs to nobody.
#![deny(unsafe_code)]

mod build;
mod config;
mod core;
mod egress;
mod error;
mod forwarding;
mod namespace;
mod network;
mod nft;
mod probe;
mod resolver;
mod rules;
mod shaping;
mod slot;
mod sysctl;
mod tap;
mod uplink;

pub use config::NetworkConfig;
pub use egress::{Allowed, Destination, Egress, Misnamed, NamePattern, Outlet, Protocol, Range};
pub use error::NetworkError;
pub use network::Network;
pub use probe::{probe_limit, probe_rules};
pub use slot::{API_ADDRESS, API_PORT, METADATA_ADDRESS, METADATA_PORT, Slot};
