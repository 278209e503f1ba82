//! Guest memory seen from outside the VMM: which pages were written, how they are kept, how they go back.

mod delta;
mod image;
mod pagemap;
mod space;
mod sparse;

pub use delta::{DeltaReader, DeltaSummary, FORMAT_VERSION, save as save_delta};
pub use image::save as save_image;
pub use pagemap::{PageRun, written_pages};
pub use space::GuestSpace;
pub use sparse::{DataExtents, checksum, punch_zero_pages};

/// Size of a page in bytes.
pub const PAGE_BYTES: usize = 4096;
