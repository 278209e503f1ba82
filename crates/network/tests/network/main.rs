//! The network as a guest sees it. Each test has a machine of its own: a network and mount namespace that plays the host,
//! one that plays the Internet, and one per guest. Needs root; leaves nothing behind and disturbs nobody.

mod closed;
mod egress;
mod guest;
mod lifetime;
mod limits;
mod probe;
mod resolver;
mod traffic;
mod world;
