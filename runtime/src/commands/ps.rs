//! `hull ps`.

use super::find;
use crate::cli::PsOptions;
use crate::errand::{Company, Errand, Program, in_path, own_environment};
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::output;
use crate::state::Status;
use hull_cgroup::Cgroup;
use hull_sys::process::WaitStatus;
use hull_sys::signal::signal_name;
use std::time::{Duration, Instant};

/// How long ps(1) may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How much of what it prints is read, in bytes (R19).
const LONGEST: usize = 32 << 20;

/// Lists the container's processes: their ids as JSON, or what ps(1) prints of them.
pub fn run(options: &PsOptions, globals: &Globals) -> Result<u8> {
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    let cgroup = Cgroup::open(&record.cgroup);
    if Status::of(&directory, &record).has_process() {
        cgroup.require_group("list processes")?;
    }
    let mut pids = cgroup.processes(true)?;
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
    let text = listing(ps_options)?;
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

/// What ps(1) prints.
fn listing(ps_options: &[String]) -> Result<String> {
    let path = in_path("ps")
        .and_then(|path| path.into_os_string().into_string().ok())
        .ok_or_else(|| Error::new(Code::Unsupported, "ps: executable file not found in $PATH"))?;
    let args = std::iter::once("ps".to_owned()).chain(ps_options.iter().cloned()).map(String::into_bytes);
    let program = Program::new(path.into_bytes(), args, own_environment())?;
    let deadline = Instant::now() + DEADLINE;
    let errand = Errand { program: &program, input: b"", deadline, kept: LONGEST, company: Company::Beside };
    let ended = errand.run().context(|| "run ps")?;
    match (ended.never_executed(), ended.status) {
        (Some(why), _) => Err(Error::new(Code::Syscall, why)),
        (None, None) => Err(Error::new(Code::Timeout, format!("ps did not end within {DEADLINE:?}"))
            .hint("ps waits for processes that hold their memory locked: --format json asks nobody")),
        (None, Some(_)) if ended.output.len() == LONGEST => {
            Err(Error::new(Code::Unsupported, format!("ps printed more than {LONGEST} bytes")))
        }
        (None, Some(WaitStatus::Exited(0))) => Ok(String::from_utf8_lossy(&ended.output).into_owned()),
        // Why, it has said itself.
        (None, Some(WaitStatus::Exited(code))) => {
            Err(Error::new(Code::Usage, format!("ps ended with exit status {code}")))
        }
        (None, Some(WaitStatus::Signaled(signal))) => {
            Err(Error::new(Code::Syscall, format!("ps was killed by {}", signal_name(signal))))
        }
    }
}
