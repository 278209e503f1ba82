#![allow(unsafe_code)] // The ioctls of tun and ethtool have no safe wrapper.

use std::{
    fs::{File, OpenOptions},
    io,
    mem::zeroed,
    os::fd::{AsRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The guest's link, in its namespace.
pub(crate) const TAP: &str = "tap0";

mod ioctl {
    nix::ioctl_write_ptr!(tun_set_iff, b'T', 202, libc::c_int);
    nix::ioctl_write_int!(tun_set_persist, b'T', 203);
    nix::ioctl_write_int!(tun_set_group, b'T', 206);
    nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// How often and how long [`open`] waits for a link that is held.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Attaches to [`TAP`] of the calling thread's namespace (made on the first call), close-on-exec, one holder at a time.
///
/// A process that another thread is starting has a copy of every descriptor until it becomes its program: the link may be
/// held for a moment by what [`create`] has closed, or a former VMM.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let mut tries = 1..TRIES;
    let tap = loop {
        match attach() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries.next().is_some() => {
                sleep(PAUSE)
            }
            attached => break attached?,
        }
    };
    settle()?;
    Ok(tap.into())
}

/// Lets the kernel finish bringing the link up. It does so in the background, and would drop what is sent before: a
/// connection's first packet, say, which TCP repeats only after a second. Asking for the link's state has it done now.
pub(crate) fn settle() -> io::Result<()> {
    /// ETHTOOL_GLINK of linux/ethtool.h.
    const GET_LINK: u32 = 0x0a;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // `struct ethtool_value`: the command, and where the answer goes.
    let mut value = [GET_LINK, 0];
    let mut request = request();
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the kernel reads and writes the request and the value it points to; both outlive the call.
    unsafe { ioctl::ethtool(socket.as_raw_fd(), &mut request) }?;
    Ok(())
}

/// Makes [`TAP`] in the calling thread's namespace; it stays when nobody is attached. The group may attach to it by name.
pub(crate) fn create(group: Option<u32>) -> io::Result<()> {
    let file = attach()?;
    if let Some(group) = group {
        // SAFETY: the descriptor is open and the argument is a plain number.
        unsafe { ioctl::tun_set_group(file.as_raw_fd(), group.into()) }?;
    }
    // SAFETY: the descriptor is open and the argument is a plain number.
    unsafe { ioctl::tun_set_persist(file.as_raw_fd(), 1) }?;
    Ok(())
}

/// An interface request that names [`TAP`].
fn request() -> libc::ifreq {
    // SAFETY: `ifreq` is plain C data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn attach() -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = request();
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq` (its number only pretends an int), which outlives the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), (&raw mut request).cast_const().cast()) }?;
    Ok(file)
}
