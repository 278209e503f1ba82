use serde::{Deserialize, Serialize};

/// Guest ports from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port.
    pub end: u16,
}

impl PortRange {
    /// Every port: `{"allPorts":{}}`.
    pub const ALL: PortRange = PortRange {
        start: 1,
        end: u16::MAX,
    };

    /// One port.
    pub fn single(port: u16) -> PortRange {
        PortRange {
            start: port,
            end: port,
        }
    }

    /// Whether the port lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.start..=self.end).contains(&port)
    }
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// HTTP to any of these guest ports.
    Http(Vec<PortRange>),
    /// A shell, and nothing else.
    Shell,
}

impl Grant {
    /// Whether HTTP to this guest port is granted.
    pub fn allows_port(&self, port: u16) -> bool {
        match self {
            Grant::Http(ranges) => ranges.iter().any(|range| range.contains(port)),
            Grant::Shell => false,
        }
    }
}

/// The content of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The one MicroVM this token is for.
    pub microvm_id: String,
    /// What it opens there.
    pub grant: Grant,
    /// When it ends: milliseconds since the epoch.
    pub expires_at_ms: u64,
}
