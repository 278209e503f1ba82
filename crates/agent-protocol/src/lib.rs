//! Room: agent-protocol.
