//! Measures one call of a program.
//!
//! The call happens in a process of its own, this program started again, because the kernel gives the peak memory of
//! children only as a maximum over all of them.

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::call;
use hull_testkit::runtime::LIMIT;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The first argument of the measuring process.
pub const FLAG: &str = "--measure";

/// What one call took. Of a detached container only what ended before the call's end is counted.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From the start of the program to its end.
    pub wall: Duration,
    /// User and system time of the program and of its children that ended.
    pub cpu: Duration,
    /// The largest resident set among them, in kB; never below that of the measuring process itself.
    pub peak: u64,
}

/// Runs a command once and returns its cost, or what it said when it failed.
///
/// # Errors
/// When the command ends with a status other than 0.
pub fn cost(command: &Command) -> Result<Cost, String> {
    cost_within(command, LIMIT)
}

/// The same with another limit of time.
///
/// # Errors
/// When the command ends with a status other than 0, or not in time.
pub fn cost_within(command: &Command, limit: Duration) -> Result<Cost, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let mut measuring = Command::new(own);
    measuring.arg(FLAG).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    // Not through pipes: a created container would keep them open.
    let outcome = call(&mut measuring, limit);
    if outcome.code != 0 {
        return Err(format!("{command:?}: {}", outcome.stderr));
    }
    let text = outcome.stdout;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [wall, cpu, peak] = numbers[..] else { return Err(format!("odd measurement: {text:?}")) };
    Ok(Cost { wall: Duration::from_micros(wall), cpu: Duration::from_micros(cpu), peak })
}

/// The measuring process: prints microseconds, microseconds and kB.
pub fn inside(arguments: &[String]) -> ExitCode {
    let Some((program, rest)) = arguments.split_first() else { return ExitCode::from(2) };
    let start = Instant::now();
    let status = Command::new(program).args(rest).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let wall = start.elapsed().as_micros();
    let (Ok(status), Ok(usage)) = (status, getrusage(UsageWho::RUSAGE_CHILDREN)) else {
        return ExitCode::from(2);
    };
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    println!("{wall} {cpu} {}", usage.max_rss());
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts the system calls of a command and of all processes that it starts; `None` without strace.
pub fn system_calls(command: &Command, scratch: &std::path::Path) -> Option<u64> {
    let summary = scratch.join("strace");
    let mut traced = Command::new(hull_testkit::gate::find("strace")?);
    traced.args(["-f", "-c", "-qq", "-o"]).arg(&summary).arg(command.get_program()).args(command.get_args());
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let text = std::fs::read_to_string(summary).ok()?;
    let total = text.lines().rfind(|line| line.ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}
