use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    thread,
};

use hearth_agent_protocol::{GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_MAC, GUEST_PREFIX_LENGTH};
use hearth_network::Slot;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::world::{greeting, inside, ip};

nix::ioctl_write_ptr!(tun_set_iff, b'T', 202, libc::c_int);

/// A machine without a VM: a namespace with the guest's addresses, whose link can be plugged into a slot's tap and, as
/// after a restore, into another one's.
pub(crate) struct Guest {
    name: String,
    link: File,
    /// Ends the plugged cable when it is dropped.
    cable: Option<(OwnedFd, thread::JoinHandle<()>)>,
}

impl Guest {
    pub(crate) fn new(name: &str) -> Self {
        ip(&format!("netns add {name}"));
        let link = inside(format!("/run/netns/{name}"), || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .expect("tun is there");
            // SAFETY: all zeroes is a valid `ifreq`.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(*b"eth0") {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags =
                (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
            // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
            unsafe { tun_set_iff(file.as_raw_fd(), (&raw mut request).cast_const().cast()) }.expect("a tap");
            file
        });
        let mac = GUEST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let address = GUEST_ADDRESS.map(|byte| byte.to_string()).join(".");
        let gateway = GATEWAY_ADDRESS.map(|byte| byte.to_string()).join(".");
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 address {mac} up"));
        ip(&format!(
            "-n {name} address add {address}/{GUEST_PREFIX_LENGTH} dev eth0"
        ));
        ip(&format!("-n {name} route add default via {gateway}"));
        Self {
            name: name.into(),
            link,
            cable: None,
        }
    }

    /// Plugs the guest into a slot, out of the one before.
    pub(crate) fn plug(&mut self, slot: &Slot) {
        self.unplug();
        let tap = File::from(slot.open_tap().expect("the tap is free"));
        let link = self.link.try_clone().expect("duplicates");
        let (stop, end) = nix::unistd::pipe().expect("a pipe");
        let cable = thread::spawn(move || carry(link, tap, stop));
        self.cable = Some((end, cable));
    }

    fn unplug(&mut self) {
        if let Some((end, cable)) = self.cable.take() {
            drop(end);
            cable.join().expect("the cable held");
        }
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `work` on the guest.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        inside(self.namespace(), work)
    }

    /// One exchange with a server that must answer. Whatever the guest sent before has arrived by then, or never will.
    pub(crate) fn reach(&self, server: std::net::SocketAddr) -> String {
        self.run(move || {
            let mut stream = std::net::TcpStream::connect(server).expect("the server is reachable");
            greeting(&mut stream).expect("the server greets")
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// Carries frames, their virtio-net headers included, until the other end of `stop` is closed.
fn carry(mut a: File, mut b: File, stop: OwnedFd) {
    let mut frame = vec![0; 1 << 17];
    loop {
        let mut ready = [a.as_fd(), b.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE).expect("polls");
        let [from_a, from_b, stopped] = ready.map(|fd| fd.any().unwrap_or(false));
        if stopped {
            return;
        }
        if from_a {
            let length = a.read(&mut frame).expect("a frame");
            // A link that is not up yet loses its frames.
            let _ = b.write(&frame[..length]);
        }
        if from_b {
            let length = b.read(&mut frame).expect("a frame");
            let _ = a.write(&frame[..length]);
        }
    }
}
