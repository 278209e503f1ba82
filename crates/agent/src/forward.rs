//! Bytes both ways between the host's connection and the application's.
//!
//! One thread and `poll` for both directions: a stream costs one thread, and a connection that breaks is noticed
//! although the application neither reads nor writes.
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const BUFFER_BYTES: usize = 64 * 1024;

/// Copies until both directions have ended or one side broke. An end of one direction is passed on, the other goes on.
pub fn splice(host: &TcpStream, application: &TcpStream) -> io::Result<()> {
    host.set_nonblocking(true)?;
    application.set_nonblocking(true)?;
    let mut up = Direction::new(host, application);
    let mut down = Direction::new(application, host);
    while !(up.ended && down.ended) {
        // Each side is polled for what its two directions can do with it just now.
        let host_interest = up.read_interest() | down.write_interest();
        let application_interest = down.read_interest() | up.write_interest();
        let mut sides = Vec::with_capacity(2);
        // A side that was shut down for writing reports a hang-up as soon as its peer ends, too: no news while nothing
        // is wanted of it. Any other hang-up is a broken connection.
        if !host_interest.is_empty() || !down.ended {
            sides.push(PollFd::new(host.as_fd(), host_interest));
        }
        if !application_interest.is_empty() || !up.ended {
            sides.push(PollFd::new(application.as_fd(), application_interest));
        }
        match poll(&mut sides, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP;
        let idle_side_broke = sides.iter().any(|side| {
            side.events().is_empty() && side.revents().is_some_and(|seen| seen.intersects(broken))
        });
        if idle_side_broke {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        up.advance()?;
        down.advance()?;
    }
    Ok(())
}

struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer is yet to be written.
    start: usize,
    end: usize,
    source_ended: bool,
    /// The end has been passed on.
    ended: bool,
}

impl<'a> Direction<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream) -> Direction<'a> {
        Direction {
            from,
            to,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            source_ended: false,
            ended: false,
        }
    }

    fn read_interest(&self) -> PollFlags {
        if self.start == self.end && !self.source_ended {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        }
    }

    fn write_interest(&self) -> PollFlags {
        if self.start < self.end {
            PollFlags::POLLOUT
        } else {
            PollFlags::empty()
        }
    }

    /// Moves what can be moved without waiting.
    fn advance(&mut self) -> io::Result<()> {
        while !self.ended {
            if self.start == self.end {
                match ready(self.from.read(&mut self.buffer))? {
                    None => return Ok(()),
                    Some(0) => {
                        self.source_ended = true;
                        self.ended = true;
                        // The other side may be gone altogether, which its own direction will find.
                        let _ = self.to.shutdown(Shutdown::Write);
                        return Ok(());
                    }
                    Some(count) => (self.start, self.end) = (0, count),
                }
            }
            match ready(self.to.write(&self.buffer[self.start..self.end]))? {
                None => return Ok(()),
                Some(count) => self.start += count,
            }
        }
        Ok(())
    }
}

/// `None` when the call would have waited.
fn ready(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The far ends (host, application) of a splice that runs in a thread.
    fn spliced() -> (TcpStream, TcpStream, thread::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let pair = || {
            let far = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
            (far, listener.accept().expect("accepts").0)
        };
        let ((host, near_host), (application, near_application)) = (pair(), pair());
        (
            host,
            application,
            thread::spawn(move || splice(&near_host, &near_application)),
        )
    }

    #[test]
    fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut host, mut application, splice) = spliced();
        host.write_all(b"request").expect("writes");
        host.shutdown(Shutdown::Write).expect("half-closes");
        let mut request = String::new();
        application
            .read_to_string(&mut request)
            .expect("reads to the end");
        assert_eq!(request, "request");
        application
            .write_all(b"answer")
            .expect("writes after the end of the request");
        drop(application);
        let mut answer = String::new();
        host.read_to_string(&mut answer).expect("reads to the end");
        assert_eq!(answer, "answer");
        splice.join().expect("thread").expect("clean end");
    }

    #[test]
    fn megabytes_cross_in_both_directions_at_once() {
        const BYTES: usize = 8 << 20;
        let (host, application, splice) = spliced();
        let exchange = |mut stream: TcpStream, fill: u8| {
            let mut reader = stream.try_clone().expect("clones");
            let received = thread::spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map(|_| bytes)
            });
            thread::spawn(move || {
                stream.write_all(&vec![fill; BYTES]).expect("writes");
                stream.shutdown(Shutdown::Write).expect("half-closes");
                received.join().expect("thread").expect("reads")
            })
        };
        let (at_host, at_application) = (exchange(host, 1), exchange(application, 2));
        assert!(at_host.join().expect("thread") == vec![2; BYTES]);
        assert!(at_application.join().expect("thread") == vec![1; BYTES]);
        splice.join().expect("thread").expect("clean end");
    }

    #[test]
    fn a_host_that_breaks_off_ends_the_splice_though_the_application_reads_nothing() {
        let (mut host, application, splice) = spliced();
        host.set_nonblocking(true).expect("nonblocking");
        // Fill every buffer on the way.
        let mut refusals = 0;
        while refusals < 20 {
            match host.write(&[0; 64 * 1024]) {
                Ok(count) => refusals = u32::from(count == 0),
                Err(_) => {
                    refusals += 1;
                    thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        }
        nix::sys::socket::setsockopt(
            &host,
            nix::sys::socket::sockopt::Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )
        .expect("lingers");
        drop(host);
        assert!(splice.join().expect("thread").is_err());
        drop(application);
    }

    #[test]
    fn an_application_that_resets_ends_the_splice() {
        let (mut host, application, splice) = spliced();
        nix::sys::socket::setsockopt(
            &application,
            nix::sys::socket::sockopt::Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )
        .expect("lingers");
        drop(application);
        assert!(splice.join().expect("thread").is_err());
        let _ = host.read(&mut [0]);
    }
}
