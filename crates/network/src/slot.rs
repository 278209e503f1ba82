use std::{
    fmt, io,
    net::{SocketAddrV4, TcpStream as StdTcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};

use crate::{NetworkError, core::Core, namespace::Namespace, resolver::Resolver, tap};

/// One network namespace, for one VMM process. Clones share it. Dropping the last clone ends its resolver (soon, not
/// at once) and nothing else, since the MicroVM may outlive the daemon; only [`Slot::release`] destroys it.
#[derive(Clone)]
pub struct Slot(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    index: u16,
    name: String,
    namespace: Namespace,
    /// Taken by the first release.
    resolver: Mutex<Option<Resolver>>,
}

impl Slot {
    pub(crate) fn new(core: Arc<Core>, index: u16, namespace: Namespace, resolver: Resolver) -> Self {
        let name = core.config.name(index);
        Self(Arc::new(Inner {
            core,
            index,
            name,
            namespace,
            resolver: Mutex::new(Some(resolver)),
        }))
    }

    /// Name of the namespace and of the interface on the host; [`crate::Network::adopt`] takes it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Number of the slot, unique among those that exist.
    pub fn index(&self) -> u16 {
        self.0.index
    }

    /// The namespace as a file, for a VMM that is to be started inside it.
    pub fn namespace_path(&self) -> PathBuf {
        self.0.core.config.mount(&self.0.name)
    }

    /// MTU of the guest's link, in bytes.
    pub fn mtu(&self) -> u32 {
        self.0.core.mtu
    }

    /// Opens the guest's tap (`IFF_TAP`, `IFF_NO_PI`, `IFF_VNET_HDR`), close-on-exec. One holder at a time: `EBUSY`
    /// while another one has it. The tap itself stays when the descriptor is closed. It may wait some milliseconds for the
    /// kernel's network lock.
    pub fn open_tap(&self) -> io::Result<OwnedFd> {
        self.0.namespace.visit(&self.0.core.home, tap::open)
    }

    /// Connects to the guest (or whatever is reachable from the namespace), with `TCP_NODELAY`. It waits as long as TCP
    /// does; put a time limit around it.
    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = self.0.namespace.visit(&self.0.core.home, || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            Ok(socket(AddressFamily::Inet, SockType::Stream, flags, None)?)
        })?;
        let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
        socket.set_nodelay(true)?;
        socket.connect(to.into()).await
    }

    /// Destroys namespace, links and mount; the VMM must have ended. It happens once, whichever clone asks, and runs to
    /// its end when the caller does not wait. What could not be removed is left to [`crate::Network::sweep`].
    pub async fn release(self) -> Result<(), NetworkError> {
        let Some(resolver) = self
            .0
            .resolver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };
        drop(resolver);
        let (core, index) = (self.0.core.clone(), self.0.index);
        tokio::spawn(async move { core.destroy(index).await })
            .await
            .map_err(|_| NetworkError::WorkerLost)?
    }
}

impl Drop for Inner {
    /// A slot that nobody holds is a leftover: to be adopted again, or swept.
    fn drop(&mut self) {
        if self
            .resolver
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            self.core.abandon(self.index);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.0.name).finish()
    }
}
