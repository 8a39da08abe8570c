//! The archive format: POSIX ustar with PAX records, and what GNU and old archives need to be read.

mod header;
mod pax;
mod reader;
mod writer;

pub use reader::RawEntry;
pub use reader::TarReader;
pub use writer::{TarWriter, TimeRule};

/// Size of a tar block in bytes.
pub(crate) const BLOCK: usize = 512;
