//! What the host and the guest agent say to each other.
//!
//! The agent (PID 1 in the guest) listens on [`AGENT_PORT`] of the guest's own address. The host opens one TCP
//! connection for each thing it wants, sends one [`Request`] frame, and reads [`Reply`] frames. After
//! [`Reply::Connected`] the connection carries raw bytes both ways; after [`Reply::Started`] it carries
//! [`ExecInput`] frames down and [`Output`] frames up; file contents travel as [`FileChunk`] frames.
//!
//! A frame is a little-endian `u32` length followed by that many bytes of `postcard`. The host treats every frame
//! from the guest as hostile: bounded by [`MAX_FRAME_BYTES`], decoded strictly, never trusted as a fact about the host.
#![forbid(unsafe_code)]

mod files;
mod frame;
mod messages;
#[cfg(feature = "tokio")]
mod stream;

pub use files::*;
pub use frame::{FrameError, MAX_FRAME_BYTES, decode, encode, read_frame, write_frame};
pub use messages::*;
#[cfg(feature = "tokio")]
pub use stream::{receive, send};

/// Version of this protocol. It is stored in every snapshot's manifest; a host refuses a snapshot of another version.
pub const PROTOCOL_VERSION: u32 = 2;

/// TCP port of the agent on the guest's address. Low and unused by applications, so `0.0.0.0:8080` never collides.
pub const AGENT_PORT: u16 = 1;

/// The guest's IPv4 address: the same in every MicroVM, since each has a network namespace of its own.
pub const GUEST_ADDRESS: [u8; 4] = [100, 64, 0, 2];
/// The host's address on the guest's link: gateway and name server.
pub const GATEWAY_ADDRESS: [u8; 4] = [100, 64, 0, 1];
/// Prefix length of the guest's link.
pub const GUEST_PREFIX_LENGTH: u8 = 30;
/// The guest's MAC address, the same in every MicroVM.
pub const GUEST_MAC: [u8; 6] = [0x06, 0x00, 0x64, 0x40, 0x00, 0x02];
/// MAC address of the host's end of the guest's link, the same everywhere so that a restored guest's ARP cache is right.
pub const GATEWAY_MAC: [u8; 6] = [0x06, 0x00, 0x64, 0x40, 0x00, 0x01];
