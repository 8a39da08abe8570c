//! `hull ps`.

use super::find;
use crate::cli::PsOptions;
use crate::create::cgroup_error;
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::output;
use hull_cgroup::Cgroup;
use std::process::{Command, Stdio};

/// Lists the container's processes: their ids as JSON, or what ps(1) prints of them.
pub fn run(options: &PsOptions, globals: &Globals) -> Result<u8> {
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    let mut pids = Cgroup::open(&record.cgroup).processes(true).map_err(cgroup_error)?;
    pids.sort_unstable();
    match options.format.as_str() {
        "json" => output::line(serde_json::to_string(&pids).unwrap_or_default())?,
        "table" => print_table(&pids, &options.ps_options)?,
        _ => return Err(Error::new(Code::Usage, "invalid format option")),
    }
    Ok(0)
}

/// The heading and the lines of the container's processes.
fn print_table(pids: &[i32], ps_options: &[String]) -> Result<()> {
    let default = ["-ef".to_owned()];
    let ps_options = if ps_options.is_empty() { &default } else { ps_options };
    let output =
        Command::new("ps").args(ps_options).stderr(Stdio::inherit()).output().context(|| "run ps")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::new(Code::Usage, "couldn't find PID field in ps output"))?;
    output::line(heading)?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.binary_search(&pid).is_ok()) {
            output::line(line)?;
        }
    }
    Ok(())
}
