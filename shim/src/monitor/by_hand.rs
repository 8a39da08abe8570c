//! For people: `run`, `attach`, `logs`, `wait`, `rm`. What they need to find each other is in one directory a container.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hull_sys::event::{self, WatchFlags};
use hull_sys::fs::is_in_place;
use hull_sys::{CWD, poll};

use super::args::Args;
use super::person::{self, Left};
use super::start;

const USAGE: &str = "usage: hull-monitor run [--runtime FILE] [--bundle DIR] [--log FILE] [-t] [-i] ID
       hull-monitor attach ID        leave with ctrl-p ctrl-q
       hull-monitor logs [-f] ID
       hull-monitor wait ID          prints and returns the exit code
       hull-monitor rm ID            forgets an ended container's log and exit code";
/// How often what should come by itself is looked for all the same.
const LOOK: Duration = Duration::from_secs(1);
/// Exit code for what went wrong here, not in the container.
const FAILURE: u8 = 125;

/// Runs a command for people; `None` when the words are conmon's.
pub fn command(words: &[String]) -> Option<ExitCode> {
    let (verb, rest) = words.split_first()?;
    let done = match verb.as_str() {
        "run" => run(rest),
        "attach" => attach(rest),
        "logs" => logs(rest),
        "wait" => wait(rest),
        "rm" => forget(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(0)
        }
        _ => return None,
    };
    Some(match done {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            eprintln!("hull-monitor: {text}");
            ExitCode::from(FAILURE)
        }
    })
}

/// The directory of a container: 0700, under the user's own run directory.
fn home(id: &str) -> Result<PathBuf, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(allowed) {
        return Err(format!("{id:?} is no container id\n{USAGE}"));
    }
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if hull_sys::identity::effective_uid() != 0 => PathBuf::from(directory),
        _ => PathBuf::from("/run"),
    };
    Ok(base.join("hull-monitor").join(id))
}

fn one_id(words: &[String]) -> Result<&str, String> {
    match words {
        [id] => Ok(id),
        _ => Err(USAGE.to_owned()),
    }
}

/// Starts a container in the background and prints its pid.
fn run(words: &[String]) -> Result<u8, String> {
    let mut args = Args {
        runtime: PathBuf::from("hull"),
        partial_flag: true,
        start: true,
        api_version: 1,
        ..Args::default()
    };
    let mut bundle = PathBuf::from(".");
    let mut log = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("missing argument for {word}"));
        match word.as_str() {
            "--runtime" | "-r" => args.runtime = PathBuf::from(value()?),
            "--bundle" | "-b" => bundle = PathBuf::from(value()?),
            "--log" | "-l" => log = Some(value()?),
            "--systemd-cgroup" => args.systemd_cgroup = true,
            "-t" | "--tty" => args.terminal = true,
            "-i" | "--interactive" => args.stdin = true,
            id if !id.starts_with('-') && args.container.is_empty() => args.container = id.to_owned(),
            other => return Err(format!("unknown word {other:?}\n{USAGE}")),
        }
    }
    let runtime = args.runtime.to_string_lossy().into_owned();
    args.runtime = crate::spawn::find_program(&runtime).ok_or_else(|| format!("{runtime} is not in PATH"))?;
    args.bundle = bundle.canonicalize().map_err(|error| format!("bundle {}: {error}", bundle.display()))?;
    let (home, held) = make_home(&args.container, &args.bundle)?;
    let own_log = home.join("log");
    if let Some(log) = log {
        // `logs` finds it there.
        let log = std::path::absolute(&log).map_err(|error| format!("log {log}: {error}"))?;
        std::os::unix::fs::symlink(log, &own_log).map_err(|error| format!("log: {error}"))?;
    }
    args.logs = vec![format!("k8s-file:{}", own_log.display())];
    args.uuid.clone_from(&args.container);
    args.full_attach = true;
    args.container_pid_file = Some(home.join("pid"));
    args.own_pid_file = Some(home.join("monitor.pid"));
    args.persist_dir = Some(home);
    let started = start::start_and_listen(args);
    // The monitor has it, too, and lives on.
    let _ = rustix::fs::flock(&held, rustix::fs::FlockOperation::Unlock);
    println!("{}", started?);
    Ok(0)
}

/// Makes the directory anew; one whose container has not ended, or is being started, is in use. It is locked until the
/// file that comes with it is closed.
fn make_home(id: &str, bundle: &Path) -> Result<(PathBuf, fs::File), String> {
    let home = home(id)?;
    let failed = |error: std::io::Error| format!("make {}: {error}", home.display());
    if home.exists() {
        let _held = lock(&home, id)?;
        if !has_ended(&home) {
            return Err(format!("{id} is running already"));
        }
        fs::remove_dir_all(&home).map_err(failed)?;
    }
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private.recursive(true).create(home.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    private.recursive(false).create(&home).map_err(failed)?;
    let held = lock(&home, id)?;
    std::os::unix::fs::symlink(bundle, home.join("bundle")).map_err(failed)?;
    Ok((home, held))
}

/// Locks the directory of a container that is to be started; who comes second must not take it from the first, whose
/// monitor is not known yet.
fn lock(home: &Path, id: &str) -> Result<fs::File, String> {
    let failed = |error: std::io::Error| format!("lock {}: {error}", home.display());
    let directory = fs::File::open(home).map_err(failed)?;
    let is_free = rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
    let is_there = is_in_place(directory.as_fd(), CWD, home);
    if is_free && is_there { Ok(directory) } else { Err(format!("{id} is being started already")) }
}

/// True when the container's exit code is known, or nobody is there any more to learn it.
fn has_ended(home: &Path) -> bool {
    home.join("exit").exists() || !is_watched(home)
}

/// True while the monitor of this container lives. Its number may have become another process's.
fn is_watched(home: &Path) -> bool {
    let monitor = fs::read_to_string(home.join("monitor.pid")).unwrap_or_default();
    let words = fs::read(Path::new("/proc").join(monitor.trim()).join("cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).skip(1);
    let id = home.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes);
    words.next() == Some(b"run") && words.any(|word| Some(word) == id)
}

fn exit_code(home: &Path) -> Option<i32> {
    fs::read_to_string(home.join("exit")).ok()?.trim().parse().ok()
}

fn existing(id: &str) -> Result<PathBuf, String> {
    let home = home(id)?;
    if home.exists() { Ok(home) } else { Err(format!("{id} does not exist")) }
}

/// Waits for the end; prints and returns the exit code.
fn wait(words: &[String]) -> Result<u8, String> {
    let id = one_id(words)?;
    let home = existing(id)?;
    let changes = watch(&home)?;
    loop {
        // Looked at before the code is: if nobody lives after it was missing, it will never come.
        let ended = has_ended(&home);
        if let Some(code) = exit_code(&home) {
            println!("{code}");
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
        if ended {
            return Err(format!("the monitor of {id} ended without an exit code"));
        }
        next_change(&changes)?;
    }
}

fn watch(path: &Path) -> Result<std::os::fd::OwnedFd, String> {
    let text = |error: hull_sys::SysError| format!("watch {}: {error}", path.display());
    let changes = event::inotify_fd().map_err(text)?;
    let flags = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE;
    event::add_watch(changes.as_fd(), path, flags).map_err(text)?;
    Ok(changes)
}

fn next_change(changes: &std::os::fd::OwnedFd) -> Result<(), String> {
    let text = |error: hull_sys::SysError| error.to_string();
    if poll::wait_readable(changes.as_fd(), Some(Instant::now() + LOOK)).map_err(text)? {
        event::read_changes(changes.as_fd()).map_err(text)?;
    }
    Ok(())
}

/// Prints the log, with `-f` until the container has ended.
fn logs(words: &[String]) -> Result<u8, String> {
    let (follow, rest) = match words {
        [flag, rest @ ..] if flag == "-f" || flag == "--follow" => (true, rest),
        rest => (false, rest),
    };
    let home = existing(one_id(rest)?)?;
    let changes = watch(&home)?;
    let file = fs::File::open(home.join("log")).map_err(|error| format!("open log: {error}"))?;
    let mut reader = BufReader::new(file);
    loop {
        let ended = has_ended(&home);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(|error| format!("read log: {error}"))? > 0 {
            if !line.ends_with(b"\n") {
                // The rest of it is being written.
                let back = -i64::try_from(line.len()).unwrap_or(0);
                reader.seek_relative(back).map_err(|error| format!("read log: {error}"))?;
                break;
            }
            print_line(&line)?;
            line.clear();
        }
        if !follow || ended {
            return Ok(0);
        }
        next_change(&changes)?;
    }
}

/// Prints one line of the log to the stream that it came from.
fn print_line(line: &[u8]) -> Result<(), String> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (stream, mark, text) = (fields.nth(1), fields.next(), fields.next().unwrap_or_default());
    let text = if mark == Some(b"P") { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    let printed = if stream == Some(b"stderr") {
        std::io::stderr().write_all(text)
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(text).and_then(|()| out.flush())
    };
    printed.map_err(|error| format!("print: {error}"))
}

fn forget(words: &[String]) -> Result<u8, String> {
    let id = one_id(words)?;
    let home = existing(id)?;
    let _started_by_nobody = lock(&home, id)?;
    if !has_ended(&home) {
        return Err(format!("{id} is running"));
    }
    fs::remove_dir_all(&home).map_err(|error| format!("remove {}: {error}", home.display()))?;
    Ok(0)
}

/// Connects this terminal to the container until it ends or the keys are pressed.
fn attach(words: &[String]) -> Result<u8, String> {
    let id = one_id(words)?;
    let home = existing(id)?;
    match person::attach(&home).map_err(|error| format!("attach to {id}: {error}"))? {
        Left::Keys => Ok(0),
        Left::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(FAILURE)),
        // The exit file is there before the connection ends; a monitor that was killed leaves none.
        Left::Ended => Ok(exit_code(&home).map_or(FAILURE, |code| u8::try_from(code).unwrap_or(u8::MAX))),
    }
}
