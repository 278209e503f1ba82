//! Ending TCP connections that lead out of the guest: their other ends died with the time the guest stood still.
//!
//! The `sock_diag` netlink family lists sockets and destroys them; the application sees a reset (spec section 9).
//! Messages are laid out by hand (linux/inet_diag.h): two fixed structures, on the way of every resume.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use hearth_agent_protocol::{AGENT_PORT, GUEST_ADDRESS};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

const HEADER_BYTES: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET_ID_BYTES: usize = 48;
/// `struct inet_diag_msg` up to and including the socket's identity.
const MESSAGE_BYTES: usize = 4 + SOCKET_ID_BYTES;

/// Every state but LISTEN (10) and TIME_WAIT (6), which is over already; bits as in linux/tcp_states.h.
const CONNECTED_STATES: u32 = 0x1fff & !(1 << 10) & !(1 << 6);

/// Resets every TCP connection to an address outside the guest, but for those of the agent. Returns how many.
pub fn close_outside() -> io::Result<usize> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut closed = 0;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        for connection in list(&netlink, family)? {
            if connection.leads_outside() && destroy(&netlink, family, &connection.id)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

struct Connection {
    id: [u8; SOCKET_ID_BYTES],
    local_port: u16,
    remote: IpAddr,
}

impl Connection {
    /// From the body of a `SOCK_DIAG_BY_FAMILY` answer.
    fn parse(body: &[u8]) -> Option<Connection> {
        let family = *body.first()?;
        let id: [u8; SOCKET_ID_BYTES] = body.get(4..MESSAGE_BYTES)?.try_into().ok()?;
        let remote: [u8; 16] = id[20..36].try_into().ok()?;
        let remote = if i32::from(family) == libc::AF_INET {
            IpAddr::V4(Ipv4Addr::new(remote[0], remote[1], remote[2], remote[3]))
        } else {
            Ipv6Addr::from(remote).to_canonical()
        };
        Some(Connection {
            id,
            local_port: u16::from_be_bytes([id[0], id[1]]),
            remote,
        })
    }

    fn leads_outside(&self) -> bool {
        self.local_port != AGENT_PORT
            && !self.remote.is_loopback()
            && !self.remote.is_unspecified()
            && self.remote != IpAddr::from(GUEST_ADDRESS)
    }
}

fn list(netlink: &OwnedFd, family: u8) -> io::Result<Vec<Connection>> {
    request(
        netlink,
        SOCK_DIAG_BY_FAMILY,
        NLM_F_DUMP,
        family,
        &[0; SOCKET_ID_BYTES],
    )?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in messages(&buffer[..length]) {
            match kind {
                SOCK_DIAG_BY_FAMILY => found.extend(Connection::parse(body)),
                NLMSG_ERROR => return Err(error_of(body)),
                NLMSG_DONE => return Ok(found),
                _ => {}
            }
        }
    }
}

/// Whether the socket was there to be destroyed. A kernel without the feature is an error.
fn destroy(netlink: &OwnedFd, family: u8, id: &[u8; SOCKET_ID_BYTES]) -> io::Result<bool> {
    request(netlink, SOCK_DESTROY, NLM_F_ACK, family, id)?;
    let mut buffer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let Some((NLMSG_ERROR, body)) = messages(&buffer[..length]).next() else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    let error = error_of(body);
    match error.raw_os_error() {
        Some(0) => Ok(true),
        Some(libc::ENOENT) => Ok(false),
        _ => Err(error),
    }
}

fn request(
    netlink: &OwnedFd,
    kind: u16,
    flags: u16,
    family: u8,
    id: &[u8; SOCKET_ID_BYTES],
) -> io::Result<()> {
    let length = HEADER_BYTES + 8 + SOCKET_ID_BYTES;
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    // struct inet_diag_req_v2
    message.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend(CONNECTED_STATES.to_ne_bytes());
    message.extend(id);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

/// Splits a datagram into (type, body); stops at anything ill-formed.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The errno of an `NLMSG_ERROR`; zero is an acknowledgement.
fn error_of(body: &[u8]) -> io::Error {
    match body.get(..4).and_then(|code| code.try_into().ok()) {
        Some(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(code).wrapping_neg()),
        None => io::Error::from(io::ErrorKind::InvalidData),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::net;

    #[test]
    fn connections_to_other_addresses_are_reset_and_loopback_ones_live() {
        // A network namespace of this thread's own, where 10.9.0.1 stands for the outside world.
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        net::set_up("lo").expect("lo");
        net::set_address("lo:0", [10, 9, 0, 1], 32).expect("address");
        let pair = |address: &str| {
            let listener = TcpListener::bind((address, 0)).expect("binds");
            let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
            (listener.accept().expect("accepts").0, client)
        };
        let (inside_server, inside_client) = pair("127.0.0.1");
        let (_outside_server, mut outside_client) = pair("10.9.0.1");

        // The reset of one end takes the other with it.
        assert_ne!(close_outside().expect("sock_diag"), 0);

        let broken = outside_client.read(&mut [0]).expect_err("broken").kind();
        assert!(
            matches!(
                broken,
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
            ),
            "{broken}"
        );
        inside_client
            .shutdown(std::net::Shutdown::Write)
            .expect("still open");
        assert_eq!((&inside_server).read(&mut [0]).expect("still open"), 0);
    }

    #[test]
    fn ill_formed_messages_end_the_walk() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[1; 40]).count(), 0);
        let mut short = vec![0; 20];
        short[..4].copy_from_slice(&8u32.to_ne_bytes());
        assert_eq!(messages(&short).count(), 0);
        assert!(Connection::parse(&[2; 51]).is_none());
    }
}
