//! `hull state`.

use super::find;
use crate::cli::ContainerOnly;
use crate::document;
use crate::error::Result;
use crate::globals::Globals;
use crate::output;
use crate::state::Status;

/// Prints the state document.
pub fn run(options: &ContainerOnly, globals: &Globals) -> Result<u8> {
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    let status = Status::of(&directory, &record);
    output::line(document::listing(&record, status)).map(|()| 0)
}
