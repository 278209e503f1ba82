//! Which pages of a private file mapping were written: those present or swapped that are no longer the file's
//! (kernel documentation `admin-guide/mm/pagemap`).

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use super::PAGE_BYTES;

/// Neighbouring pages, counted from the start of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// First page.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// Pages of `pid`'s mapping at `start..start + bytes` that were written since it was mapped, ascending.
pub fn written_pages(pid: i32, start: u64, bytes: u64) -> io::Result<Vec<PageRun>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    match scan(&pagemap, start, bytes) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
            read(&pagemap, start, bytes)
        }
        result => result,
    }
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, ScanArguments);

/// By `PAGEMAP_SCAN` (Linux 6.7): the kernel walks its own tables and answers with ranges.
fn scan(pagemap: &File, start: u64, bytes: u64) -> io::Result<Vec<PageRun>> {
    let mut regions = vec![Region::default(); 1024];
    let mut runs: Vec<PageRun> = Vec::new();
    let end = start + bytes;
    let mut at = start;
    while at < end {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start: at,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_inverted: PAGE_IS_FILE,
            category_mask: PAGE_IS_FILE,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..ScanArguments::default()
        };
        // SAFETY: `arguments` has the kernel's layout and `vec` names `vec_len` regions that outlive the call.
        let found = unsafe { pagemap_scan(pagemap.as_raw_fd(), &mut arguments) }? as usize;
        for region in &regions[..found] {
            push(
                &mut runs,
                (region.start - start) / PAGE_BYTES as u64,
                (region.end - region.start) / PAGE_BYTES as u64,
            );
        }
        // `walk_end` is no guide: the kernel leaves there where it last emptied a buffer of its own. A full answer
        // ends where its last region does; any other is the last.
        match regions[..found].last() {
            Some(last) if found == regions.len() => at = last.end,
            _ => break,
        }
    }
    Ok(runs)
}

/// By reading the map: eight bytes a page.
fn read(pagemap: &File, start: u64, bytes: u64) -> io::Result<Vec<PageRun>> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    let pages = bytes / PAGE_BYTES as u64;
    let mut runs = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut page = 0;
    while page < pages {
        let wanted = ((pages - page) as usize * 8).min(buffer.len());
        pagemap.read_exact_at(&mut buffer[..wanted], (start / PAGE_BYTES as u64 + page) * 8)?;
        for entry in buffer[..wanted].chunks_exact(8) {
            let entry = u64::from_ne_bytes(entry.try_into().expect("chunks of eight"));
            if entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0 {
                push(&mut runs, page, 1);
            }
            page += 1;
        }
    }
    Ok(runs)
}

fn push(runs: &mut Vec<PageRun>, first: u64, count: u64) {
    match runs.last_mut() {
        Some(last) if last.first + last.count == first => last.count += count,
        _ => runs.push(PageRun { first, count }),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, slice};

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    /// A private mapping of a file with this many pages, and where it lies.
    fn with_mapping(pages: usize, use_it: impl FnOnce(&mut [u8], u64)) {
        let file = tempfile::tempfile().expect("temp file");
        file.set_len((pages * PAGE_BYTES) as u64).expect("room");
        file.write_all_at(&[7; PAGE_BYTES], 10 * PAGE_BYTES as u64)
            .expect("data");
        let length = NonZeroUsize::new(pages * PAGE_BYTES).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh private mapping of our own file, unmapped at the end, used only through the slice.
        let mapping =
            unsafe { mmap(None, length, protection, MapFlags::MAP_PRIVATE, &file, 0) }.expect("mapped");
        // SAFETY: as above; nothing else refers to the mapping.
        let memory = unsafe { slice::from_raw_parts_mut(mapping.as_ptr().cast::<u8>(), length.get()) };
        use_it(memory, mapping.as_ptr() as u64);
        // SAFETY: the mapping made above; `memory` is not used after this.
        unsafe { munmap(mapping, length.get()) }.expect("unmapped");
    }

    #[test]
    fn both_ways_find_exactly_the_written_pages() {
        with_mapping(300, |memory, start| {
            assert_eq!(memory[10 * PAGE_BYTES], 7, "a read alone writes nothing");
            for page in [3, 4, 10, 255] {
                memory[page * PAGE_BYTES + 5] = 1;
            }
            let expected = [
                PageRun { first: 3, count: 2 },
                PageRun { first: 10, count: 1 },
                PageRun { first: 255, count: 1 },
            ];
            let own = File::open("/proc/self/pagemap").expect("readable");
            assert_eq!(read(&own, start, memory.len() as u64).expect("read"), expected);
            assert_eq!(
                written_pages(std::process::id() as i32, start, memory.len() as u64).expect("scan"),
                expected
            );
        });
    }

    #[test]
    fn more_runs_than_any_buffer_of_the_kernel_are_found_once_each_in_order() {
        // Around the kernel's own buffer of 512 regions and this module's of 1024.
        for runs in [511, 512, 513, 700, 1024, 1025, 3000] {
            with_mapping(2 * runs + 64, |memory, start| {
                let expected: Vec<_> = (0..runs as u64)
                    .map(|run| PageRun {
                        first: 2 * run + 1,
                        count: 1,
                    })
                    .collect();
                for run in &expected {
                    memory[run.first as usize * PAGE_BYTES] = 1;
                }
                let found =
                    written_pages(std::process::id() as i32, start, memory.len() as u64).expect("scan");
                assert_eq!(found, expected, "{runs} runs");
            });
        }
    }
}
