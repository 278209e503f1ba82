//! Holes: a page that is all zero costs nothing on disk.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::{
    errno::Errno,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_data_is_told_from_holes() {
        let file = tempfile::tempfile().expect("temp file");
        file.set_len(600 * PAGE_BYTES as u64).expect("room");
        for page in [0, 1, 77, 300, 599] {
            file.write_all_at(&[1], page * PAGE_BYTES as u64 + page)
                .expect("written");
        }
        let extents = DataExtents::of(&file).expect("extents");
        assert_eq!(extents.bytes(), 5 * PAGE_BYTES as u64);
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
