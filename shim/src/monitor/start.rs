//! From the command line to the loop: what the manager must see before anything else happens, then the background.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::fd;
use hull_sys::process::{self, CloneRequest};

use super::args::Args;
use super::ending;
use super::oom_score::OomScore;
use super::sync::Pipes;
use super::watch::{End, Watch};

/// The text by which callers know that an exec took too long.
const TIMED_OUT: &str = "command timed out";

/// Starts the monitor; comes back in the caller's process once the background one is on its way, with 0, or with the
/// monitor's own exit status if it is to stay in the foreground.
pub fn start(args: Args) -> Result<i32, String> {
    process::umask(0o022);
    let mut pipes = Pipes::from_environment()?;
    let inherited = inherited(&args)?;
    pipes.wait_for_start()?;
    if args.sync {
        return monitor(&args, pipes, inherited);
    }
    to_the_background(&args, pipes, inherited)?;
    Ok(0)
}

/// Starts the monitor in the background and gives the container's pid, or why there is none.
pub fn start_and_listen(args: Args) -> Result<i64, String> {
    #[derive(serde::Deserialize)]
    struct Report {
        data: i64,
        #[serde(default)]
        message: String,
    }
    let inherited = inherited(&args)?;
    let (read, write) = fd::pipe().map_err(|error| error.to_string())?;
    to_the_background(&args, Pipes::to(write), inherited)?;
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(std::fs::File::from(read));
    std::io::BufRead::read_line(&mut reader, &mut line).map_err(|error| error.to_string())?;
    let report: Report =
        serde_json::from_str(&line).map_err(|_| "the monitor ended without a word".to_owned())?;
    if report.data < 0 {
        // Until the monitor has gone its container is taken for one that is still there; what it says no more is of no use.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        return Err(report.message);
    }
    Ok(report.data)
}

/// What the caller left open beside the pipes and what the runtime shall have. podman keeps a container's ports busy so.
fn inherited(args: &Args) -> Result<Vec<OwnedFd>, String> {
    fd::adopt_inherited(args.runtime_fds().saturating_add(3))
        .map_err(|error| format!("take over what was left open: {error}"))
}

fn to_the_background(args: &Args, pipes: Pipes, inherited: Vec<OwnedFd>) -> Result<(), String> {
    let child = process::spawn(&CloneRequest::default(), || {
        // Whoever runs podman as a service sees how this process ends (MAINPID), not the container.
        process::exit_now(monitor(args, pipes, inherited).unwrap_or(1))
    });
    let child = child.map_err(|error| format!("go to the background: {error}"))?;
    if let Some(file) = &args.own_pid_file {
        crate::bundle::write_private(file, child.pid.as_raw().to_string().as_bytes())
            .map_err(|error| format!("write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// Gives the exit status: the container's.
fn monitor(args: &Args, mut pipes: Pipes, inherited: Vec<OwnedFd>) -> Result<i32, String> {
    let passthrough = args.logs.iter().any(|log| log.starts_with("passthrough"));
    if !args.sync {
        process::setsid().map_err(|error| error.to_string())?;
        if !passthrough {
            close_own_streams()?;
        }
    }
    let score = OomScore::of_caller();
    let watched = watch(args, &mut pipes, inherited, &score);
    match watched {
        Ok(end) => {
            if args.exec {
                let text = (end == End::TimedOut).then_some(TIMED_OUT);
                pipes.report(key(args), i64::from(end.code()), text);
            }
            drop(pipes);
            score.give_back();
            ending::run_exit_command(args)?;
            Ok(end.code())
        }
        Err(text) => {
            // The one place where a failure before the container's start is told.
            pipes.report(key(args), -1, Some(&text));
            Err(text)
        }
    }
}

/// What a caller looks for the last number under; the older form has a name for each.
fn key(args: &Args) -> &'static str {
    match (args.api_version > 0, args.exec) {
        (true, _) => "data",
        (false, true) => "exit_code",
        (false, false) => "pid",
    }
}

fn watch(args: &Args, pipes: &mut Pipes, inherited: Vec<OwnedFd>, score: &OomScore) -> Result<End, String> {
    let mut watch = Watch::new(args, inherited)?;
    pipes.attach_is_ready()?;
    let pid = watch.create()?;
    if args.start {
        watch.start_container()?;
    }
    if args.api_version > 0 || !args.exec {
        pipes.report(if args.api_version > 0 { "data" } else { "pid" }, i64::from(pid), None);
    }
    if watch.is_passthrough() && !args.sync {
        // They are the container's now. Its readers wait for its end, not ours, and the exit command has nothing to add;
        // if they cannot be closed it has.
        let _ = close_own_streams();
    }
    score.spare();
    watch.until_the_end()
}

fn close_own_streams() -> Result<(), String> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| error.to_string())?;
    for number in 0..=2 {
        fd::dup_onto(null.as_fd(), number).map_err(|error| error.to_string())?;
    }
    Ok(())
}
