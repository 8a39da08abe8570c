//! `hull list`.

use crate::cli::ListOptions;
use crate::document::Listing;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::log::Level;
use crate::output;
use crate::state::{Record, StateRoot, Status};

/// Lists the containers below the state root; one that cannot be read is a warning, never a failure.
pub fn run(options: &ListOptions, globals: &Globals) -> Result<u8> {
    if !options.quiet && !matches!(options.format.as_str(), "table" | "json") {
        return Err(Error::new(Code::Usage, "invalid format option"));
    }
    let state = globals.state()?;
    if globals.explicit_root && !state.path().exists() {
        let path = state.path().display().to_string();
        return Err(Error::new(Code::Usage, format!("{path}: no such file or directory")).object(path));
    }
    let containers = read_all(state, globals)?;
    if options.quiet {
        containers.iter().try_for_each(|(record, _)| output::line(&record.id))?;
        return Ok(0);
    }
    let listings: Vec<_> = containers.iter().map(|(record, status)| Listing::of(record, *status)).collect();
    match options.format.as_str() {
        "json" if listings.is_empty() => output::line("null")?,
        "json" => output::line(serde_json::to_string(&listings).unwrap_or_default())?,
        _ => print_table(&listings)?,
    }
    Ok(0)
}

fn read_all(state: &StateRoot, globals: &Globals) -> Result<Vec<(Record, Status)>> {
    let mut found = Vec::new();
    for id in state.ids()? {
        // A container that is deleted in this moment is not there any more.
        let Ok(directory) = state.find(&id) else { continue };
        match directory.read() {
            Ok(record) => {
                let status = Status::of(&directory, &record);
                found.push((record, status));
            }
            Err(error) if directory.path().exists() => {
                // The one text of a read that does not name it.
                let nameless = error.code == Code::ContainerNotFound;
                let error = if nameless { error.within(&id) } else { error };
                globals.log.write(Level::Warning, &error.message);
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Columns as wide as their widest entry, at least 12, three blanks between, as runc's tabwriter makes them.
fn print_table(listings: &[Listing<'_>]) -> Result<()> {
    const LEAST: usize = 12;
    const GAP: usize = 1;
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(listings.iter().map(Listing::columns));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count() + GAP).max().unwrap_or(0).max(LEAST))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let width = if index + 1 == row.len() { 0 } else { widths[index] };
            line.push_str(&format!("{cell:<width$}"));
        }
        output::line(line)?;
    }
    Ok(())
}
