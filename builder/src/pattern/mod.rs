//! PURE: path patterns, ignore rules and the text of paths.

pub(crate) mod glob;
pub(crate) mod ignore;
pub(crate) mod path;
