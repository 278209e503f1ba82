//! Room: gateway.
