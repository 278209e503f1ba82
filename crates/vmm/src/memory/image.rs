//! The memory file of an image, from a guest whose memory has no file.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    PAGE_BYTES,
    delta::{BATCH_PAGES, batches},
    space::GuestSpace,
    sparse::is_zero,
};

/// Writes a paused guest's memory into an empty sparse file of the same length. Zero pages stay holes.
pub fn save(space: &GuestSpace, to: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(to)?;
    if file.metadata()?.len() != space.bytes() {
        return Err(io::Error::other("the memory file is not as long as memory"));
    }
    let mut buffer = vec![0; BATCH_PAGES as usize * PAGE_BYTES];
    for run in space.written()? {
        for (first, count) in batches(run) {
            let bytes = &mut buffer[..count as usize * PAGE_BYTES];
            let offset = first * PAGE_BYTES as u64;
            space.read(bytes, offset)?;
            let zero: Vec<bool> = bytes.chunks_exact(PAGE_BYTES).map(is_zero).collect();
            let mut at = 0;
            for alike in zero.chunk_by(|one, next| one == next) {
                let length = alike.len() * PAGE_BYTES;
                if !alike[0] {
                    file.write_all_at(&bytes[at..at + length], offset + at as u64)?;
                }
                at += length;
            }
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    use super::*;
    use crate::memory::DataExtents;

    #[test]
    fn anonymous_memory_becomes_a_sparse_file_with_its_content() {
        const PAGES: usize = 1000;
        let length = NonZeroUsize::new(PAGES * PAGE_BYTES).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let guarded = NonZeroUsize::new(length.get() + 2 * PAGE_BYTES).expect("not zero");
        // SAFETY: fresh anonymous memory, unmapped at the end. The pages around what is used keep the kernel from joining it
        // with others of this process.
        let mapping = unsafe { mmap_anonymous(None, guarded, ProtFlags::PROT_NONE, flags) }.expect("mapped");
        // SAFETY: inside the mapping above, used only through the slice below.
        let memory = unsafe {
            let inner = mapping.byte_add(PAGE_BYTES);
            mprotect(inner, length.get(), protection).expect("made writable");
            std::slice::from_raw_parts_mut(inner.as_ptr().cast::<u8>(), length.get())
        };
        memory[5000..5004].copy_from_slice(b"mark");
        for page in [0, 300, 301, 999] {
            memory[page * PAGE_BYTES] = 7;
        }
        memory[600 * PAGE_BYTES] = 0;
        let file = tempfile::NamedTempFile::new().expect("temp file");
        file.as_file().set_len(length.get() as u64).expect("room");
        let find = |mark: &[u8]| {
            let low = [length.get() as u64];
            GuestSpace::find_anonymous(std::process::id() as i32, low[0], &low, (5000, mark))
        };
        find(b"none").expect_err("another's memory");
        save(&find(b"mark").expect("found"), file.path()).expect("saved");
        assert!(std::fs::read(file.path()).expect("read") == memory);
        let data = DataExtents::of(file.as_file()).expect("extents");
        assert_eq!(data.bytes(), 5 * PAGE_BYTES as u64);
        // SAFETY: the mapping made above, not used after this.
        unsafe { munmap(mapping, guarded.get()) }.expect("unmapped");
    }
}
