//! Holes: a page that is all zero costs nothing on disk.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek},
};

use super::PAGE_BYTES;

/// The parts of a file that hold data, ascending, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataExtents(Vec<(u64, u64)>);

impl DataExtents {
    /// Asks the file system.
    pub fn of(file: &File) -> io::Result<DataExtents> {
        let mut extents = Vec::new();
        let mut at = 0;
        loop {
            let start = match lseek(file, at, Whence::SeekData) {
                Ok(start) => start,
                Err(Errno::ENXIO) => return Ok(DataExtents(extents)),
                Err(error) => return Err(error.into()),
            };
            let end = lseek(file, start, Whence::SeekHole)?;
            extents.push((start as u64, end as u64));
            at = end;
        }
    }

    /// Start and end of each extent.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether any byte of `start..end` may be other than zero.
    pub fn touches(&self, start: u64, end: u64) -> bool {
        let next = self.0.partition_point(|&(_, extent_end)| extent_end <= start);
        self.0
            .get(next)
            .is_some_and(|&(extent_start, _)| extent_start < end)
    }

    /// Sum of all extents in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

/// Turns every run of zero pages into a hole. Returns the bytes of data left.
pub fn punch_zero_pages(file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * PAGE_BYTES];
    for (start, end) in DataExtents::of(file)?.iter() {
        let mut hole: Option<u64> = None;
        let mut at = start - start % PAGE_BYTES as u64;
        while at < end {
            let wanted = ((end - at) as usize).min(buffer.len());
            file.read_exact_at(&mut buffer[..wanted], at)?;
            for (index, page) in buffer[..wanted].chunks(PAGE_BYTES).enumerate() {
                let offset = at + (index * PAGE_BYTES) as u64;
                if is_zero(page) {
                    hole.get_or_insert(offset);
                } else if let Some(hole) = hole.take() {
                    punch(file, hole, offset)?;
                }
            }
            at += wanted as u64;
        }
        if let Some(hole) = hole {
            punch(file, hole, end)?;
        }
    }
    Ok(DataExtents::of(file)?.bytes())
}

/// Checksum of a file's content and where it lies; the same whether a zero page is a hole or not. Reads only data.
pub fn checksum(file: &File) -> io::Result<u32> {
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * PAGE_BYTES];
    let length = file.metadata()?.len();
    let mut done = 0;
    for (start, end) in DataExtents::of(file)?.iter() {
        let mut at = (start - start % PAGE_BYTES as u64).max(done);
        let end = end.next_multiple_of(PAGE_BYTES as u64).min(length);
        while at < end {
            let wanted = ((end - at) as usize).min(buffer.len());
            file.read_exact_at(&mut buffer[..wanted], at)?;
            for (offset, page) in (at..)
                .step_by(PAGE_BYTES)
                .zip(buffer[..wanted].chunks(PAGE_BYTES))
            {
                if !is_zero(page) {
                    checksum.update(&offset.to_le_bytes());
                    checksum.update(page);
                }
            }
            at += wanted as u64;
        }
        done = end;
    }
    Ok(checksum.finalize())
}

/// Whether every byte is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: any bit pattern is a valid u128.
    let (head, body, tail) = unsafe { bytes.align_to::<u128>() };
    head.iter().chain(tail).all(|byte| *byte == 0) && body.iter().all(|word| *word == 0)
}

fn punch(file: &File, start: u64, end: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, start as i64, (end - start) as i64)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pages_become_holes_and_content_stays() {
        let file = tempfile::tempfile().expect("temp file");
        let mut content = vec![0u8; 600 * PAGE_BYTES];
        for page in [0, 1, 77, 300, 599] {
            content[page * PAGE_BYTES + page] = 1;
        }
        file.write_all_at(&content, 0).expect("written");
        assert_eq!(punch_zero_pages(&file).expect("punched"), 5 * PAGE_BYTES as u64);
        let mut back = vec![1; content.len()];
        file.read_exact_at(&mut back, 0).expect("read");
        assert!(back == content);
        let extents = DataExtents::of(&file).expect("extents");
        assert!(extents.touches(77 * 4096 + 5, 77 * 4096 + 6) && !extents.touches(78 * 4096, 300 * 4096));
    }

    #[test]
    fn a_checksum_tells_content_and_place_and_overlooks_holes() {
        let file = |pages: &[(usize, u8)], whole: bool| {
            let file = tempfile::tempfile().expect("temp file");
            file.set_len(300 * PAGE_BYTES as u64 + 7).expect("room");
            if whole {
                file.write_all_at(&vec![0; 300 * PAGE_BYTES + 7], 0)
                    .expect("written");
            }
            for (page, fill) in pages {
                file.write_all_at(&[*fill], (page * PAGE_BYTES) as u64 + 5)
                    .expect("written");
            }
            checksum(&file).expect("read")
        };
        let content = [(0, 1), (7, 2), (299, 3), (300, 4)];
        assert_eq!(file(&content, false), file(&content, true));
        assert_ne!(file(&content, false), file(&content[..3], false));
        assert_ne!(file(&[(7, 2)], false), file(&[(8, 2)], false));
        assert_ne!(file(&[(7, 2)], false), file(&[(7, 3)], false));
    }
}
