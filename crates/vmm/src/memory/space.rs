//! A VMM process's mapping of guest memory, read and written from outside.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

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
        let found = maps
            .iter()
            .filter(|map| map.inode == wanted.ino())
            .map(|map| Piece {
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
