//! The guest's one link, by the classic interface ioctls: netdevice(7), arp(7).
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hearth_agent_protocol::{GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS, GUEST_PREFIX_LENGTH};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The only network interface besides `lo`.
pub const INTERFACE: &str = "eth0";

const APPEAR_TIMEOUT: Duration = Duration::from_secs(10);

/// `struct rtentry` (linux/route.h).
#[repr(C)]
struct RouteEntry {
    pad1: libc::c_ulong,
    destination: libc::sockaddr,
    gateway: libc::sockaddr,
    mask: libc::sockaddr,
    flags: libc::c_ushort,
    pad2: libc::c_short,
    pad3: libc::c_ulong,
    pad4: *mut libc::c_void,
    metric: libc::c_short,
    device: *mut libc::c_char,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    rtt: libc::c_ushort,
}

nix::ioctl_write_ptr_bad!(
    /// SIOCSIFADDR
    set_interface_address,
    libc::SIOCSIFADDR,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// SIOCSIFNETMASK
    set_interface_mask,
    libc::SIOCSIFNETMASK,
    libc::ifreq
);
nix::ioctl_read_bad!(
    /// SIOCGIFFLAGS
    get_interface_flags,
    libc::SIOCGIFFLAGS,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// SIOCSIFFLAGS
    set_interface_flags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// SIOCADDRT
    add_route,
    libc::SIOCADDRT,
    RouteEntry
);
nix::ioctl_write_ptr_bad!(
    /// SIOCSARP
    set_arp,
    libc::SIOCSARP,
    libc::arpreq
);

/// Brings up `lo` and the link to the host.
pub fn bring_up() -> anyhow::Result<()> {
    set_up("lo")?;
    await_interface()?;
    // The link speaks IPv4 only; without this the guest would chatter about IPv6 routers in every snapshot.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"), "1");
    set_address(INTERFACE, GUEST_ADDRESS, GUEST_PREFIX_LENGTH)?;
    set_up(INTERFACE)?;
    add_permanent_neighbour(INTERFACE, GATEWAY_ADDRESS, GATEWAY_MAC)?;
    add_default_route(GATEWAY_ADDRESS)
}

fn await_interface() -> anyhow::Result<()> {
    let path = Path::new("/sys/class/net").join(INTERFACE);
    let deadline = Instant::now() + APPEAR_TIMEOUT;
    while !path.exists() {
        ensure!(
            Instant::now() < deadline,
            "no network interface {INTERFACE} appeared"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Gives an interface its IPv4 address.
pub fn set_address(interface: &str, address: [u8; 4], prefix_length: u8) -> anyhow::Result<()> {
    let socket = control()?;
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    // SAFETY: the kernel reads one ifreq, whose name is terminated and whose address is set.
    unsafe { set_interface_address(socket.as_raw_fd(), &request) }
        .with_context(|| format!("cannot set the address of {interface}"))?;
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix_length))
        .unwrap_or(0)
        .to_be_bytes();
    request.ifr_ifru.ifru_netmask = socket_address(mask);
    // SAFETY: as above.
    unsafe { set_interface_mask(socket.as_raw_fd(), &request) }
        .with_context(|| format!("cannot set the netmask of {interface}"))?;
    Ok(())
}

/// Switches an interface on.
pub fn set_up(interface: &str) -> anyhow::Result<()> {
    let socket = control()?;
    let mut request = request(interface)?;
    // SAFETY: the kernel reads the terminated name and writes the flags into the same ifreq.
    unsafe { get_interface_flags(socket.as_raw_fd(), &mut request) }
        .with_context(|| format!("cannot read the flags of {interface}"))?;
    // SAFETY: the call above has set this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one ifreq.
    unsafe { set_interface_flags(socket.as_raw_fd(), &request) }
        .with_context(|| format!("cannot switch {interface} on"))?;
    Ok(())
}

fn add_permanent_neighbour(interface: &str, address: [u8; 4], mac: [u8; 6]) -> anyhow::Result<()> {
    // SAFETY: all-zero bytes are a valid arpreq.
    let mut entry: libc::arpreq = unsafe { std::mem::zeroed() };
    entry.arp_pa = socket_address(address);
    entry.arp_ha.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in entry.arp_ha.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    entry.arp_flags = libc::ATF_PERM | libc::ATF_COM;
    copy_name(&mut entry.arp_dev, interface)?;
    // SAFETY: the kernel reads one arpreq, whose device name is terminated.
    unsafe { set_arp(control()?.as_raw_fd(), &entry) }.context("cannot add the gateway's ARP entry")?;
    Ok(())
}

fn add_default_route(gateway: [u8; 4]) -> anyhow::Result<()> {
    // SAFETY: all-zero bytes are a valid rtentry (null device: the gateway decides).
    let mut route: RouteEntry = unsafe { std::mem::zeroed() };
    route.destination = socket_address([0; 4]);
    route.mask = socket_address([0; 4]);
    route.gateway = socket_address(gateway);
    route.flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the kernel reads one rtentry with a null device.
    unsafe { add_route(control()?.as_raw_fd(), &route) }.context("cannot add the default route")?;
    Ok(())
}

fn control() -> anyhow::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn request(interface: &str) -> anyhow::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    copy_name(&mut request.ifr_name, interface)?;
    Ok(request)
}

/// Leaves the terminating zero in place.
fn copy_name(to: &mut [libc::c_char; libc::IFNAMSIZ], name: &str) -> anyhow::Result<()> {
    ensure!(name.len() < to.len(), "interface name {name} is too long");
    for (to, from) in to.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(())
}

/// A `sockaddr_in` in its general form: family, port 0, address.
fn socket_address(address: [u8; 4]) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}
