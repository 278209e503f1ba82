//! The endpoint proxy: HTTPS to each MicroVM's own host name (spec sections 18 to 20).
//!
//! A request passes, in this order: TLS ([`serve`]), the token, the port and its grant, the gate that may wake the
//! MicroVM ([`MicroVms::enter`]), and the application itself. Whatever fails before the gate costs the MicroVM
//! nothing. Bodies stream both ways with back-pressure; nothing is buffered whole.
#![forbid(unsafe_code)]

pub mod ca;
pub mod certificates;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;

mod authenticate;
mod body;
mod client;
mod connect;
mod console;
mod endpoint;
mod exchange;
mod gate;
mod headers;
mod limits;
mod linger;
mod link;
mod listen;
mod meter;
mod metrics;
mod pool;
mod proxy;
mod respond;
mod send;
mod subprotocol;
mod target;
mod upgrade;
mod upstream;

pub use gate::{Attachment, Endpoint, GateError, MicroVms, Passage};
pub use limits::Limits;
pub use listen::{GatewayConfig, serve};
pub use metrics::Metrics;
