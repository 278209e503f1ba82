//! The enumerations of spec 4.3, each with its names as they stand on the wire.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A string that names no value of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a {1}")]
pub struct UnknownName(String, &'static str);

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $wire:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $wire, "`")] #[serde(rename = $wire)] $variant),+
        }

        impl $name {
            /// All names, in the model's order.
            pub const NAMES: &'static [&'static str] = &[$($wire),+];
            /// All values, in the model's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($wire => Ok(Self::$variant),)+
                    _ => Err(UnknownName(name.to_owned(), stringify!($name))),
                }
            }
        }
    };
}

wire_enum! {
    /// Where an image stands (spec 8).
    MicrovmImageState {
        Creating = "CREATING",
        Created = "CREATED",
        CreateFailed = "CREATE_FAILED",
        Updating = "UPDATING",
        Updated = "UPDATED",
        UpdateFailed = "UPDATE_FAILED",
        Deleting = "DELETING",
        DeleteFailed = "DELETE_FAILED",
        Deleted = "DELETED",
    }
}
wire_enum! {
    /// Where an image version stands (spec 8).
    MicrovmImageVersionState {
        Pending = "PENDING",
        InProgress = "IN_PROGRESS",
        Successful = "SUCCESSFUL",
        Failed = "FAILED",
        Deleting = "DELETING",
        Deleted = "DELETED",
        DeleteFailed = "DELETE_FAILED",
    }
}
wire_enum! {
    /// Whether a version may be run.
    MicrovmImageVersionStatus { Active = "ACTIVE", Inactive = "INACTIVE" }
}
wire_enum! {
    /// Where a build stands.
    BuildState { Pending = "PENDING", InProgress = "IN_PROGRESS", Successful = "SUCCESSFUL", Failed = "FAILED" }
}
wire_enum! {
    /// Where a MicroVM stands (spec 15).
    MicrovmState {
        Pending = "PENDING",
        Running = "RUNNING",
        Suspending = "SUSPENDING",
        Suspended = "SUSPENDED",
        Terminating = "TERMINATING",
        Terminated = "TERMINATED",
    }
}
wire_enum! {
    /// Whether a managed base image version may still be used (spec 5).
    ManagedMicrovmImageVersionStatus {
        Available = "AVAILABLE",
        Deprecated = "DEPRECATED",
        Expiring = "EXPIRING",
        Expired = "EXPIRED",
        Recalled = "RECALLED",
    }
}
wire_enum! {
    /// Whether a hook is called.
    HookState { Disabled = "DISABLED", Enabled = "ENABLED" }
}
wire_enum! {
    /// Instruction set of an image.
    Architecture { Arm64 = "ARM_64", X8664 = "X86_64" }
}
wire_enum! {
    /// Processor family of a build.
    Chipset { Graviton = "GRAVITON", Intel = "INTEL" }
}
wire_enum! {
    /// Operating-system capabilities beyond the default set.
    Capability { All = "ALL" }
}
wire_enum! {
    /// Where a network connector or one of its versions stands (spec 4.7).
    ConnectorState {
        Pending = "PENDING",
        Active = "ACTIVE",
        Inactive = "INACTIVE",
        Failed = "FAILED",
        Deleting = "DELETING",
        DeleteFailed = "DELETE_FAILED",
    }
}
wire_enum! {
    /// How a connector's latest change stands; the connector itself stays ACTIVE meanwhile.
    ConnectorUpdateStatus { Successful = "Successful", Failed = "Failed", InProgress = "InProgress" }
}
wire_enum! {
    /// Why a connector or a change of it failed.
    ConnectorReasonCode {
        DisallowedByVpcEncryptionControl = "DisallowedByVpcEncryptionControl",
        Ec2RequestLimitExceeded = "Ec2RequestLimitExceeded",
        InsufficientRolePermissions = "InsufficientRolePermissions",
        InternalError = "InternalError",
        InternetGatewayNotAttached = "InternetGatewayNotAttached",
        InvalidSecurityGroup = "InvalidSecurityGroup",
        InvalidSubnet = "InvalidSubnet",
        SecurityGroupsPerInterfaceLimitExceeded = "SecurityGroupsPerInterfaceLimitExceeded",
        SubnetOutOfIpAddresses = "SubnetOutOfIPAddresses",
    }
}
wire_enum! {
    /// The kind of a connector.
    ConnectorType { VpcEgress = "VPC_EGRESS" }
}
wire_enum! {
    /// What a connector's addresses are.
    NetworkProtocol { Ipv4 = "IPv4", DualStack = "DualStack" }
}
wire_enum! {
    /// What a connector is for.
    ComputeResourceType { MicroVm = "MicroVm", WebFunction = "WebFunction" }
}
wire_enum! {
    /// Whose address a connector's traffic has.
    ElasticIpType { None = "None", ServiceManaged = "ServiceManaged" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_its_value() {
        for state in MicrovmImageState::ALL {
            assert_eq!(state.as_str().parse::<MicrovmImageState>().as_ref(), Ok(state));
            assert_eq!(
                serde_json::to_string(state).expect("serializes"),
                format!("\"{state}\"")
            );
        }
        assert_eq!(Architecture::NAMES, ["ARM_64", "X86_64"]);
        assert!("arm_64".parse::<Architecture>().is_err());
    }
}
