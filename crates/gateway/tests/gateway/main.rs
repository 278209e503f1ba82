//! The gateway as clients and applications see it: real TLS, real TCP on loopback, and MicroVMs that are only ports.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod connect;
mod console;
mod curl;
mod entry;
mod frames;
mod http;
mod limits;
mod streams;
mod tls;
mod torture;
mod upgrade;
mod world;
