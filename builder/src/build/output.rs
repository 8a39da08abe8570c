//! Where a finished image goes: the store has it; files and archives when asked for.

use std::fs;
use std::path::Path;

use hull_image::Store;
use serde_json::json;

use super::describe::Built;
use crate::commands::build::Arguments;
use crate::error::{Error, Result};

/// Writes everything that the command line asks for, and tells the image's id.
pub(crate) fn hand_over(arguments: &Arguments, _store: &Store, built: &Built) -> Result<()> {
    if let Some(output) = arguments.output.first() {
        return Err(Error::fact(format!("--output {output} is not supported yet")));
    }
    let id = built.config.digest.to_string();
    if let Some(path) = &arguments.iidfile {
        write(path, id.as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        let names: Vec<String> = built.names.iter().map(ToString::to_string).collect();
        let metadata = json!({
            "containerimage.config.digest": id,
            "containerimage.digest": built.manifest.digest.to_string(),
            "containerimage.descriptor": built.manifest,
            "image.name": names.join(","),
        });
        write(path, &hull_image::canonical(&metadata))?;
    }
    println!("{id}");
    Ok(())
}

/// Writes a file whole or not at all; what was there is replaced, a link is not followed.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::fact(format!("{} is no file name", path.display())))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    fs::write(&temporary, content).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("rename to", path))
}
