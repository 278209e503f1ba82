//! The delta file: the pages a guest has written since it was restored.
//!
//! Layout, little-endian: a header of one page (magic, version, guest bytes, number of runs, checksums of the runs
//! and of the data), the runs (16 bytes each: first page, count with the top bit set for zero pages), padding to a page,
//! then the data pages in the order of the runs. Zero pages carry no data; a zero page over a hole of the base is left
//! out. Version 1, which is still read, had no checksum of the data.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use tokio_util::sync::CancellationToken;

use super::{
    PAGE_BYTES,
    pagemap::PageRun,
    space::GuestSpace,
    sparse::{DataExtents, is_zero},
};

/// Version of the delta file's layout.
pub const FORMAT_VERSION: u32 = 2;
/// The first version whose header has a checksum of the data.
const DATA_CHECKED_SINCE: u32 = 2;
const MAGIC: [u8; 8] = *b"hearthDL";
const ZERO_BIT: u64 = 1 << 63;
/// Pages copied at a time.
pub(super) const BATCH_PAGES: u64 = 256;

/// What a delta holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSummary {
    /// Pages written by the guest, zero pages included.
    pub written_pages: u64,
    /// Pages stored with their data.
    pub data_pages: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
}

/// Writes the delta of a paused guest against its base to a new file, durably. It ends with an error when the guest goes on
/// instead.
pub fn save(
    space: &GuestSpace,
    base: &Path,
    to: &Path,
    given_up: &CancellationToken,
) -> io::Result<DeltaSummary> {
    let written = space.written()?;
    let base_data = DataExtents::of(&File::open(base)?)?;
    let mut runs: Vec<(PageRun, bool)> = Vec::new();
    let new = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut file = BufWriter::with_capacity(1 << 20, new);

    let written_count: u64 = written.iter().map(|run| run.count).sum();
    let data_pages = classify(space, &written, &base_data, &mut runs, given_up)?;
    let data_start = data_start(runs.len() as u64);
    file.seek(SeekFrom::Start(data_start))?;
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; BATCH_PAGES as usize * PAGE_BYTES];
    for (run, _) in runs.iter().filter(|(_, zero)| !zero) {
        for (first, count) in batches(*run) {
            wanted(given_up)?;
            let bytes = &mut buffer[..count as usize * PAGE_BYTES];
            space.read(bytes, first * PAGE_BYTES as u64)?;
            checksum.update(bytes);
            file.write_all(bytes)?;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    write_header(&mut file, space.bytes(), &runs, checksum.finalize())?;
    let file = file.into_inner().map_err(|error| error.into_error())?;
    let file_bytes = data_start + data_pages * PAGE_BYTES as u64;
    file.set_len(file_bytes)?;
    file.sync_all()?;
    Ok(DeltaSummary {
        written_pages: written_count,
        data_pages,
        file_bytes,
    })
}

/// Splits the written pages into data and zero runs; drops zero pages over holes. Returns the number of data pages.
fn classify(
    space: &GuestSpace,
    written: &[PageRun],
    base: &DataExtents,
    runs: &mut Vec<(PageRun, bool)>,
    given_up: &CancellationToken,
) -> io::Result<u64> {
    let mut buffer = vec![0; BATCH_PAGES as usize * PAGE_BYTES];
    let mut data_pages = 0;
    for run in written {
        for (first, count) in batches(*run) {
            wanted(given_up)?;
            let bytes = &mut buffer[..count as usize * PAGE_BYTES];
            space.read(bytes, first * PAGE_BYTES as u64)?;
            for (index, page) in bytes.chunks_exact(PAGE_BYTES).enumerate() {
                let page_number = first + index as u64;
                let offset = page_number * PAGE_BYTES as u64;
                let zero = is_zero(page);
                if zero && !base.touches(offset, offset + PAGE_BYTES as u64) {
                    continue;
                }
                data_pages += u64::from(!zero);
                match runs.last_mut() {
                    Some((last, kind)) if *kind == zero && last.first + last.count == page_number => {
                        last.count += 1
                    }
                    _ => runs.push((
                        PageRun {
                            first: page_number,
                            count: 1,
                        },
                        zero,
                    )),
                }
            }
        }
    }
    Ok(data_pages)
}

fn wanted(given_up: &CancellationToken) -> io::Result<()> {
    match given_up.is_cancelled() {
        true => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "nobody wants the delta any more",
        )),
        false => Ok(()),
    }
}

fn write_header(
    to: &mut impl Write,
    guest_bytes: u64,
    runs: &[(PageRun, bool)],
    data_checksum: u32,
) -> io::Result<()> {
    let mut table = Vec::with_capacity(runs.len() * 16);
    for (run, zero) in runs {
        table.extend_from_slice(&run.first.to_le_bytes());
        table.extend_from_slice(&(run.count | if *zero { ZERO_BIT } else { 0 }).to_le_bytes());
    }
    let mut header = vec![0; PAGE_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&guest_bytes.to_le_bytes());
    header[24..32].copy_from_slice(&(runs.len() as u64).to_le_bytes());
    header[32..36].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
    header[36..40].copy_from_slice(&data_checksum.to_le_bytes());
    to.write_all(&header)?;
    to.write_all(&table)
}

fn data_start(runs: u64) -> u64 {
    PAGE_BYTES as u64 + (runs * 16).next_multiple_of(PAGE_BYTES as u64)
}

pub(super) fn batches(run: PageRun) -> impl Iterator<Item = (u64, u64)> {
    (0..run.count.div_ceil(BATCH_PAGES)).map(move |batch| {
        let first = run.first + batch * BATCH_PAGES;
        (first, BATCH_PAGES.min(run.first + run.count - first))
    })
}

/// An opened delta file whose table has been checked.
#[derive(Debug)]
pub struct DeltaReader {
    file: File,
    guest_bytes: u64,
    runs: Vec<(PageRun, bool)>,
    data_checksum: Option<u32>,
}

impl DeltaReader {
    /// Opens and checks: magic, version, checksum, every run inside guest memory and ascending, length of the file.
    pub fn open(path: &Path) -> io::Result<DeltaReader> {
        let bad =
            |cause: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {cause}", path.display()));
        let mut file = File::open(path)?;
        let mut header = vec![0; PAGE_BYTES];
        file.read_exact(&mut header)?;
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if header[..8] != MAGIC {
            return Err(bad("not a delta file"));
        }
        let version = word(8) as u32;
        if version == 0 || version > FORMAT_VERSION {
            return Err(bad(&format!(
                "delta format {version}, this hearth reads 1 to {FORMAT_VERSION}"
            )));
        }
        let data_checksum = (version >= DATA_CHECKED_SINCE)
            .then(|| u32::from_le_bytes(header[36..40].try_into().expect("four bytes")));
        let (guest_bytes, count) = (word(16), word(24));
        let length = file.metadata()?.len();
        if count > length / 16 {
            return Err(bad("the table is longer than the file"));
        }
        let mut table = vec![0; count as usize * 16];
        file.read_exact(&mut table)?;
        if crc32fast::hash(&table) != word(32) as u32 {
            return Err(bad("the table's checksum is wrong"));
        }
        let mut runs = Vec::with_capacity(count as usize);
        let (mut next, mut data_pages) = (0, 0);
        for entry in table.chunks_exact(16) {
            let first = u64::from_le_bytes(entry[..8].try_into().expect("eight bytes"));
            let count = u64::from_le_bytes(entry[8..].try_into().expect("eight bytes"));
            let (count, zero) = (count & !ZERO_BIT, count & ZERO_BIT != 0);
            let end = first
                .checked_add(count)
                .filter(|end| first >= next && *end <= guest_bytes / PAGE_BYTES as u64);
            next = end.ok_or_else(|| bad("a run lies outside guest memory"))?;
            data_pages += if zero { 0 } else { count };
            runs.push((PageRun { first, count }, zero));
        }
        if length != data_start(count) + data_pages * PAGE_BYTES as u64 {
            return Err(bad("the file is cut short"));
        }
        Ok(DeltaReader {
            file,
            guest_bytes,
            runs,
            data_checksum,
        })
    }

    /// Writes every page into a fresh guest of the same size that has not run yet, and must not when this fails: data
    /// whose checksum is wrong is noticed at the end.
    pub fn write_into(&mut self, space: &GuestSpace) -> io::Result<()> {
        if space.bytes() != self.guest_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the delta is of a guest of another size",
            ));
        }
        self.file
            .seek(SeekFrom::Start(data_start(self.runs.len() as u64)))?;
        let mut buffer = vec![0; BATCH_PAGES as usize * PAGE_BYTES];
        let mut checksum = crc32fast::Hasher::new();
        for (run, zero) in &self.runs {
            for (first, count) in batches(*run) {
                let bytes = &mut buffer[..count as usize * PAGE_BYTES];
                if *zero {
                    bytes.fill(0);
                } else {
                    self.file.read_exact(bytes)?;
                    checksum.update(bytes);
                }
                space.write(bytes, first * PAGE_BYTES as u64)?;
            }
        }
        let found = checksum.finalize();
        match self.data_checksum {
            Some(expected) if expected != found => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the delta's data is not what was saved: its checksum is wrong",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::os::unix::fs::FileExt;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    use proptest::prelude::*;

    use super::*;

    const PAGES: usize = 64;

    /// A stand-in for a VMM: this very process with a private mapping of the base.
    fn with_guest<T>(base: &Path, use_it: impl FnOnce(&mut [u8], &GuestSpace) -> T) -> T {
        let file = File::open(base).expect("base opens");
        let length = NonZeroUsize::new(PAGES * PAGE_BYTES).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh private mapping, used only through the slice below and unmapped at the end.
        let mapping =
            unsafe { mmap(None, length, protection, MapFlags::MAP_PRIVATE, &file, 0) }.expect("mapped");
        // SAFETY: as above.
        let memory = unsafe { std::slice::from_raw_parts_mut(mapping.as_ptr().cast::<u8>(), length.get()) };
        let space = GuestSpace::find(std::process::id() as i32, base).expect("found");
        let result = use_it(memory, &space);
        // SAFETY: the mapping made above, not used after this.
        unsafe { munmap(mapping, length.get()) }.expect("unmapped");
        result
    }

    fn base_with(pages: &[u8], directory: &Path) -> std::path::PathBuf {
        let path = directory.join("memory");
        let file = File::create(&path).expect("created");
        file.set_len((PAGES * PAGE_BYTES) as u64).expect("room");
        for (index, fill) in pages.iter().enumerate().filter(|(_, fill)| **fill != 0) {
            file.write_all_at(&[*fill; PAGE_BYTES], (index * PAGE_BYTES) as u64)
                .expect("data");
        }
        path
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_guest_restored_from_its_delta_has_the_same_memory(
            base in prop::collection::vec(0u8..3, PAGES),
            writes in prop::collection::vec((0..PAGES, 0u8..3), 0..40),
        ) {
            let directory = tempfile::tempdir().expect("temp dir");
            let base = base_with(&base, directory.path());
            let delta = directory.path().join("delta");
            let (content, summary) = with_guest(&base, |memory, space| {
                for (page, fill) in &writes {
                    memory[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(*fill);
                }
                let summary = save(space, &base, &delta, &CancellationToken::new()).expect("saved");
                (memory.to_vec(), summary)
            });
            prop_assert_eq!(std::fs::metadata(&delta).expect("there").len(), summary.file_bytes);
            prop_assert!(summary.data_pages <= writes.len() as u64);
            with_guest(&base, |memory, space| {
                DeltaReader::open(&delta).expect("valid").write_into(space).expect("written");
                assert!(memory == content);
            });
        }

        #[test]
        fn a_damaged_delta_is_refused(at in prop::sample::select((0..12).chain(16..40).chain(PAGE_BYTES..PAGE_BYTES + 16).chain(2 * PAGE_BYTES..3 * PAGE_BYTES).collect::<Vec<_>>()), flip in 1u8..) {
            let directory = tempfile::tempdir().expect("temp dir");
            let base = base_with(&[1; PAGES], directory.path());
            let delta = directory.path().join("delta");
            with_guest(&base, |memory, space| {
                memory[5 * PAGE_BYTES] = 9;
                save(space, &base, &delta, &CancellationToken::new()).expect("saved");
            });
            let file = File::options().read(true).write(true).open(&delta).expect("opens");
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).expect("read");
            file.write_all_at(&[byte[0] ^ flip], at as u64).expect("written");
            // Byte 8 alone may turn the version into 1, which has no checksum of the data.
            if at != 8 {
                let read = DeltaReader::open(&delta);
                let read = read.and_then(|mut reader| with_guest(&base, |_, space| reader.write_into(space)));
                prop_assert!(read.is_err(), "byte {at}");
            }
            file.set_len(file.metadata().expect("there").len() - 1).expect("cut");
            prop_assert!(DeltaReader::open(&delta).is_err());
        }
    }
}
