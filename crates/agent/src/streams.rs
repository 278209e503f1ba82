//! The host's long connections. A host does not outlive a restore of its guest, and cannot say so: its connections are
//! ended here, at once, so that a command of a lost session does not run on and an application does not wait in vain.
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;

use crate::held;

/// All that are open.
#[derive(Default)]
pub struct Streams(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, TcpStream>,
}

/// Keeps a connection in the table until it is dropped.
pub struct Open<'a> {
    streams: &'a Streams,
    key: u64,
}

impl Streams {
    /// Adds a connection.
    pub fn register(&self, host: &TcpStream) -> io::Result<Open<'_>> {
        let host = host.try_clone()?;
        let mut table = held(&self.0);
        let key = table.next;
        table.next += 1;
        table.open.insert(key, host);
        Ok(Open { streams: self, key })
    }

    /// Ends every connection, both ways.
    pub fn close(&self) {
        for host in held(&self.0).open.values() {
            // One that has ended already is what is wanted.
            let _ = host.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        held(&self.streams.0).open.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn open_connections_are_ended_and_those_let_go_are_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let pair = || {
            let far = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
            (far, listener.accept().expect("accepts").0)
        };
        let (streams, (mut far, near), (mut other_far, other_near)) = (Streams::default(), pair(), pair());
        let _open = streams.register(&near).expect("registers");
        drop(streams.register(&other_near).expect("registers"));
        streams.close();
        assert_eq!(far.read(&mut [0]).expect("ended"), 0);
        other_far.set_nonblocking(true).expect("nonblocking");
        let silent = other_far.read(&mut [0]).expect_err("still open");
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }
}
