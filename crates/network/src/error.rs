use std::io;

/// Why the network could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A value in [`crate::NetworkConfig`] cannot work; the text says which and why.
    #[error("network configuration: {0}")]
    Config(String),
    /// The `nft` program is not installed.
    #[error("the program `nft` was not found: install the package `nftables`")]
    NftMissing,
    /// `nft` refused a batch; holds its standard error.
    #[error(
        "nft refused the rules (does the kernel have nf_tables with netdev, conntrack, fib and masquerade?): {0}"
    )]
    Nft(String),
    /// A system call or a file under `/proc` or the state directory failed.
    #[error("{what}: {cause} (network namespaces need root, CAP_SYS_ADMIN and CAP_NET_ADMIN)")]
    Io {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("{what}: {cause}")]
    Netlink {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Every address pair of the configured range is in use.
    #[error("all {0} network slots of the address range are in use: widen `range` or end MicroVMs")]
    Exhausted(u32),
    /// No namespace of this name is left on the machine.
    #[error("there is no network namespace named {0}")]
    Unknown(String),
    /// The namespace is already held by this process.
    #[error("the network namespace {0} is already in use")]
    InUse(String),
    /// [`crate::Network::stop`] was called.
    #[error("the network was stopped")]
    Stopped,
    /// A worker ended without an answer (it panicked, or the runtime is shutting down).
    #[error("the network worker ended without an answer")]
    WorkerLost,
}

/// Adds what was being done to an error of the kernel.
pub(crate) trait While<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, NetworkError>;
}

impl<T> While<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|cause| NetworkError::Io { what: what(), cause })
    }
}

impl<T> While<T> for nix::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|errno| NetworkError::Io {
            what: what(),
            cause: errno.into(),
        })
    }
}

impl<T> While<T> for Result<T, rtnetlink::Error> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|cause| NetworkError::Netlink {
            what: what(),
            cause: cause.into(),
        })
    }
}
