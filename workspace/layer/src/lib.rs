//! Layers: a tree of files becomes a deterministic tar archive, and a hostile archive becomes a tree.
//!
//! Everything below a root is reached by directory descriptors and names without links, never by joined paths.
//! Compression and decompression happen in the process: no program, library or file of an image is ever run or loaded.
#![forbid(unsafe_code)]

mod ahead;
mod below;
pub mod blocks;
mod compress;
mod copy;
mod decompress;
mod diff;
mod entry;
mod error;
mod extract;
mod gzip;
mod merged;
mod pack;
mod stack;
mod tar;
mod tree;

pub use below::{Below, Found, View};
pub use blocks::Known;
pub use compress::{Compressor, Encoding};
pub use copy::{copy_merged, copy_with_own};
pub use decompress::Decompressor;
pub use diff::{Change, Effect, diff_copy, diff_trees, diff_upper, order};
pub use entry::{Entry, Kind, Time};
pub use error::{Error, Result};
pub use extract::{Devices, Extracted, Extractor, Limits, Owners, Whiteouts, extract};
pub use pack::{LayerWriter, Packed, Written, pack, pack_layer};
pub use stack::{LeftOut, Unpacker};
pub use tar::{RawEntry, TarReader, TarWriter, TimeRule};
pub use tree::{is_opaque, list, read_entry, read_xattrs};
