//! A VMM process's mapping of guest memory, read and written from outside.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use nix::sys::stat::{major, minor};
use procfs::process::VmFlags;

use super::{
    PAGE_BYTES,
    pagemap::{PageRun, written_pages},
};

/// Guest memory inside a VMM process.
#[derive(Debug)]
pub struct GuestSpace {
    pid: i32,
    /// In the file's order, without gaps: a guest with a hole in its address space has memory on both sides of it.
    pieces: Vec<Piece>,
    bytes: u64,
    memory: File,
}

/// A part of the file and where the process has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: u64,
    address: u64,
    bytes: u64,
}

impl GuestSpace {
    /// Finds the mapping of `file` in the process.
    pub fn find(pid: i32, file: &Path) -> io::Result<GuestSpace> {
        let wanted = std::fs::metadata(file)?;
        let maps = procfs::process::Process::new(pid)
            .and_then(|process| process.maps())
            .map_err(io::Error::other)?;
        let device = (major(wanted.dev()) as i32, minor(wanted.dev()) as i32);
        let mut mapped: Vec<_> = maps.iter().filter(|map| map.inode == wanted.ino()).collect();
        // Files of other file systems may have the same number. Some file systems (btrfs, overlayfs) name another device here.
        if mapped.iter().any(|map| map.dev == device) {
            mapped.retain(|map| map.dev == device);
        }
        let found = mapped.iter().map(|map| Piece {
            offset: map.offset,
            address: map.address.0,
            bytes: map.address.1 - map.address.0,
        });
        let pieces = whole(found.collect(), wanted.len())?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        Ok(GuestSpace {
            pid,
            pieces,
            bytes: wanted.len(),
            memory,
        })
    }

    /// Finds memory without a file: what the process has mapped without reserving swap for it. `landmark` is an address in
    /// the guest and what is there, which tells where memory begins when the process has it in two parts, of which the
    /// first has one of the lengths `low`. The parts are in the order of the guest's addresses.
    pub fn find_anonymous(
        pid: i32,
        bytes: u64,
        low: &[u64],
        landmark: (u64, &[u8]),
    ) -> io::Result<GuestSpace> {
        let maps = procfs::process::Process::new(pid)
            .and_then(|process| process.smaps())
            .map_err(io::Error::other)?;
        let found: Vec<(u64, u64)> = maps
            .iter()
            .filter(|map| map.inode == 0 && map.extension.vm_flags.contains(VmFlags::NR))
            .map(|map| map.address)
            .collect();
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let is_begin = |address: u64| {
            let mut there = vec![0; landmark.1.len()];
            memory.read_exact_at(&mut there, address + landmark.0).is_ok() && there == landmark.1
        };
        let pieces = arrange(&found, bytes, low, is_begin)
            .ok_or_else(|| io::Error::other("guest memory is not where it was looked for"))?;
        Ok(GuestSpace {
            pid,
            pieces,
            bytes,
            memory,
        })
    }

    /// Size of guest memory in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages written since the process mapped the file.
    pub fn written(&self) -> io::Result<Vec<PageRun>> {
        let mut written = Vec::new();
        for piece in &self.pieces {
            let runs = written_pages(self.pid, piece.address, piece.bytes)?;
            written.extend(runs.into_iter().map(|run| PageRun {
                first: run.first + piece.offset / PAGE_BYTES as u64,
                ..run
            }));
        }
        Ok(written)
    }

    /// Reads guest memory at an offset of the file.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        for (address, bytes) in self.parts(offset, into.len())? {
            self.memory
                .read_exact_at(&mut into[done..done + bytes], address)?;
            done += bytes;
        }
        Ok(())
    }

    /// Writes guest memory at an offset of the file.
    pub fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        for (address, bytes) in self.parts(offset, from.len())? {
            self.memory.write_all_at(&from[done..done + bytes], address)?;
            done += bytes;
        }
        Ok(())
    }

    /// Addresses and lengths in the process of a stretch of the file.
    fn parts(&self, offset: u64, length: usize) -> io::Result<Vec<(u64, usize)>> {
        let end = offset
            .checked_add(length as u64)
            .filter(|end| *end <= self.bytes)
            .ok_or_else(|| io::Error::other("beyond the end of guest memory"))?;
        let part = |piece: &Piece| {
            let (from, to) = (offset.max(piece.offset), end.min(piece.offset + piece.bytes));
            (from < to).then(|| (piece.address + from - piece.offset, (to - from) as usize))
        };
        Ok(self.pieces.iter().filter_map(part).collect())
    }
}

/// Memory of this size among the ranges found: one, or two that may have grown together in either order.
fn arrange(
    found: &[(u64, u64)],
    bytes: u64,
    low: &[u64],
    is_begin: impl Fn(u64) -> bool,
) -> Option<Vec<Piece>> {
    let piece = |offset, address, bytes| Piece {
        offset,
        address,
        bytes,
    };
    let of_length = |length: u64| found.iter().filter(move |range| range.1 - range.0 == length);
    let lows = || low.iter().copied().filter(|low| *low < bytes);
    let one = of_length(bytes)
        .filter(|_| lows().next().is_none())
        .map(|range| vec![piece(0, range.0, bytes)]);
    let apart = lows().flat_map(|low| {
        let pairs = of_length(low)
            .flat_map(move |first| of_length(bytes - low).map(move |second| (first.0, second.0)));
        pairs.map(move |(first, second)| vec![piece(0, first, low), piece(low, second, bytes - low)])
    });
    let grown = lows().flat_map(|low| {
        of_length(bytes).flat_map(move |range| {
            [(range.0, range.0 + low), (range.1 - low, range.0)]
                .map(|(first, second)| vec![piece(0, first, low), piece(low, second, bytes - low)])
        })
    });
    one.chain(apart)
        .chain(grown)
        .find(|pieces| is_begin(pieces[0].address))
}

/// The pieces in order, neighbours joined (the kernel may split a mapping by protection), if they are the whole file once.
fn whole(mut pieces: Vec<Piece>, length: u64) -> io::Result<Vec<Piece>> {
    pieces.sort_by_key(|piece| piece.offset);
    let (mut joined, mut end): (Vec<Piece>, u64) = (Vec::new(), 0);
    for piece in pieces {
        if piece.offset < end {
            return Err(io::Error::other("guest memory is mapped more than once"));
        }
        if piece.offset > end {
            return Err(io::Error::other("guest memory is mapped in part"));
        }
        end += piece.bytes;
        match joined.last_mut() {
            Some(last) if last.address + last.bytes == piece.address => last.bytes += piece.bytes,
            _ => joined.push(piece),
        }
    }
    match end {
        0 => Err(io::Error::other("guest memory is not mapped")),
        end if end != length => Err(io::Error::other("guest memory is mapped in part")),
        _ => Ok(joined),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, os::fd::AsFd};

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    #[test]
    fn memory_in_two_pieces_is_one_stretch() {
        const HALF: usize = 8 * PAGE_BYTES;
        let file = tempfile::NamedTempFile::new().expect("temp file");
        file.as_file().set_len(2 * HALF as u64).expect("room");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = NonZeroUsize::new(HALF).expect("not zero");
        // The second half first: its address is no neighbour of the first one's end.
        let pieces = [HALF, 0].map(|offset| {
            // SAFETY: a fresh private mapping, touched only through the space below, unmapped at the end.
            unsafe {
                mmap(
                    None,
                    length,
                    protection,
                    MapFlags::MAP_PRIVATE,
                    file.as_fd(),
                    offset as i64,
                )
            }
            .expect("mapped")
        });
        let space = GuestSpace::find(std::process::id() as i32, file.path()).expect("found");
        let content: Vec<u8> = (0..2 * PAGE_BYTES).map(|index| index as u8 | 1).collect();
        let offset = (HALF - PAGE_BYTES) as u64;
        space.write(&content, offset).expect("written");
        let mut back = vec![0; content.len()];
        space.read(&mut back, offset).expect("read");
        assert_eq!(back, content);
        let written: Vec<_> = space
            .written()
            .expect("scan")
            .iter()
            .flat_map(|run| run.first..run.first + run.count)
            .collect();
        assert_eq!(written, [7, 8]);
        assert!(space.write(&content, 2 * HALF as u64 - 1).is_err());
        for piece in pieces {
            // SAFETY: a mapping made above, not used after this.
            unsafe { munmap(piece, HALF) }.expect("unmapped");
        }
    }

    #[test]
    fn two_parts_of_memory_are_told_apart_by_what_the_first_holds() {
        let piece = |offset, address, bytes| Piece {
            offset,
            address,
            bytes,
        };
        let arranged =
            |found: &[(u64, u64)], bytes, begin| arrange(found, bytes, &[70, 60], |address| address == begin);
        assert_eq!(
            arranged(&[(1000, 1050)], 50, 1000),
            Some(vec![piece(0, 1000, 50)])
        );
        let apart = [(1000, 1030), (2000, 2070)];
        assert_eq!(
            arranged(&apart, 100, 2000),
            Some(vec![piece(0, 2000, 70), piece(70, 1000, 30)])
        );
        // Grown together: the second below the first, or above it.
        let grown = [(1000, 1100)];
        assert_eq!(
            arranged(&grown, 100, 1030),
            Some(vec![piece(0, 1030, 70), piece(70, 1000, 30)])
        );
        assert_eq!(
            arranged(&grown, 100, 1040),
            Some(vec![piece(0, 1040, 60), piece(60, 1000, 40)])
        );
        assert_eq!(
            arranged(&grown, 100, 1000),
            Some(vec![piece(0, 1000, 70), piece(70, 1070, 30)])
        );
        assert_eq!(arranged(&grown, 100, 1001), None);
        assert_eq!(arranged(&grown, 101, 1000), None);
        assert_eq!(arranged(&[(1000, 1040), (2000, 2060)], 100, 1000), None);
    }

    #[test]
    fn a_file_mapped_in_part_or_twice_is_refused() {
        let piece = |offset, address, bytes| Piece {
            offset,
            address,
            bytes,
        };
        let cause = |pieces: &[Piece]| whole(pieces.to_vec(), 100).expect_err("refused").to_string();
        assert!(cause(&[]).contains("not mapped"));
        assert!(cause(&[piece(0, 1000, 50)]).contains("in part"));
        assert!(cause(&[piece(0, 1000, 50), piece(60, 3000, 40)]).contains("in part"));
        assert!(cause(&[piece(0, 1000, 100), piece(50, 3000, 50)]).contains("more than once"));
        let joined = whole(vec![piece(50, 1050, 50), piece(0, 1000, 50)], 100).expect("whole");
        assert_eq!(joined, [piece(0, 1000, 100)]);
    }
}
