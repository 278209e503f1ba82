use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{
    Egress, NetworkError,
    core::Core,
    error::While,
    namespace::{Namespace, on_own_thread},
    resolver::Resolver,
    shaping, tap,
};

/// Where a guest looks for what it is: the address of EC2's instance metadata service.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The metadata service's port.
pub const METADATA_PORT: u16 = 80;
/// Where a guest with a role finds the AWS APIs.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The APIs' port.
pub const API_PORT: u16 = 443;

/// One network namespace, for one VMM process. Clones share it. Dropping the last clone ends its resolver (soon, not
/// at once) and nothing else, since the MicroVM may outlive the daemon; only [`Slot::release`] destroys it.
#[derive(Clone)]
pub struct Slot(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    index: u16,
    name: String,
    namespace: Arc<Namespace>,
    /// Taken by the first release.
    resolver: Mutex<Option<Resolver>>,
    egress: Mutex<Egress>,
}

impl Slot {
    pub(crate) fn new(
        core: Arc<Core>,
        index: u16,
        namespace: Arc<Namespace>,
        resolver: Resolver,
        egress: Egress,
    ) -> Self {
        let name = core.config.name(index);
        Self(Arc::new(Inner {
            core,
            index,
            name,
            namespace,
            resolver: Mutex::new(Some(resolver)),
            egress: Mutex::new(egress),
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

    /// The tap's name in the namespace.
    pub fn tap_name(&self) -> &'static str {
        tap::TAP
    }

    /// Lets the kernel finish bringing the link up, after somebody in the namespace opened the tap by its name.
    pub fn settle_tap(&self) -> io::Result<()> {
        self.0.namespace.visit(&self.0.core.home, tap::settle)
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

    /// Sets what the guest may reach. Call it before the guest runs: the new rules replace the old ones all at once, but
    /// connections that were open stay open.
    pub async fn apply(&self, egress: &Egress) -> Result<(), NetworkError> {
        if *self.egress() == *egress {
            return Ok(());
        }
        let (core, index) = (self.0.core.clone(), self.0.index);
        let (namespace, wanted) = (self.0.namespace.clone(), egress.clone());
        tokio::spawn(async move { core.apply(index, namespace, wanted).await })
            .await
            .map_err(|_| NetworkError::WorkerLost)??;
        let resolver = self.0.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*resolver {
            resolver.restrict(egress);
        }
        *self.egress() = egress.clone();
        Ok(())
    }

    /// Holds the guest to this many bytes a second to it, and as many from it to what lies beyond the namespace; 0 is no
    /// limit. Call it once, before the guest runs. It lasts as long as the slot, whoever holds it.
    pub async fn limit(&self, bytes_per_second: u64) -> Result<(), NetworkError> {
        if bytes_per_second == 0 {
            return Ok(());
        }
        let namespace = self.0.namespace.clone();
        on_own_thread(move || {
            namespace
                .enter()
                .during(|| "entering a slot's namespace".into())?;
            shaping::limit(bytes_per_second)
        })
        .await
    }

    fn egress(&self) -> MutexGuard<'_, Egress> {
        self.0.egress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens in the namespace, at [`METADATA_ADDRESS`] and [`METADATA_PORT`] or [`API_ADDRESS`] and [`API_PORT`]; the
    /// guest reaches nothing else. The listener must end before the slot is released.
    pub fn listen(&self, address: SocketAddrV4) -> io::Result<TcpListener> {
        let listener = self
            .0
            .namespace
            .visit(&self.0.core.home, || StdTcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
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
