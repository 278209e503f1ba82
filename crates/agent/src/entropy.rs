//! Fresh randomness for the kernel after a restore, so that no two clones draw the same numbers.
use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::Context;

/// `struct rand_pool_info` with room for one seed (linux/random.h).
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; 32],
}

nix::ioctl_write_ptr_bad!(
    /// RNDADDENTROPY
    add_entropy,
    nix::request_code_write!(b'R', 0x03, 2 * size_of::<libc::c_int>()),
    RandPoolInfo
);
nix::ioctl_none!(
    /// RNDRESEEDCRNG
    reseed,
    b'R',
    0x07
);

/// Credits the bytes to the kernel's generator and makes it reseed at once.
pub fn add(bytes: [u8; 32]) -> anyhow::Result<()> {
    let random = File::options()
        .write(true)
        .open("/dev/random")
        .context("cannot open /dev/random")?;
    let info = RandPoolInfo {
        entropy_bits: 256,
        size_bytes: 32,
        bytes,
    };
    // SAFETY: the kernel reads the header and `size_bytes` bytes after it, all inside `info`, which outlives the call.
    unsafe { add_entropy(random.as_raw_fd(), &info) }.context("cannot add entropy")?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { reseed(random.as_raw_fd()) }.context("cannot reseed the random number generator")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_takes_a_seed_and_reseeds() {
        super::add([7; 32]).expect("needs root");
    }
}
