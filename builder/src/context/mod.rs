//! Trees that COPY, ADD and mounts read from, always by descriptor: nothing outside their root is ever seen.

pub(crate) mod content;
pub(crate) mod file_cache;
pub(crate) mod select;
pub(crate) mod tree;
