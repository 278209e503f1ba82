//! The HTTP control plane as a client sees it, on loopback, with TLS and real signatures.

mod calls;
mod refusals;
mod support;
