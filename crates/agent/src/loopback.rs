//! Connections to the application, which may listen on either loopback address.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connects to 127.0.0.1:`port`, or to \[::1\]:`port` when only that listens. The error is that of the first try.
pub fn connect(port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let stream = match TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout) {
        Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
            TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), timeout)
                .map_err(|_| refused)?
        }
        other => other?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
