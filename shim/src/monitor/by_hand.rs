//! For people: `run`, `attach`, `logs`, `wait`, `rm`. What they need to find each other is in one directory a container.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hull_sys::errno::{EAGAIN, ECONNRESET, EPIPE};
use hull_sys::event::{self, WatchFlags};
use hull_sys::fs::is_in_place;
use hull_sys::{CWD, fd, poll, signal, socket, tty};

use super::args::Args;
use super::attach::{INPUT, MESSAGE};
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
    let text = |error: hull_sys::SysError| format!("attach to {id}: {error}");
    let directory = fs::File::open(home.join("bundle")).map_err(|error| format!("open bundle: {error}"))?;
    let connection = socket::connect_seqpacket_at(directory.as_fd(), "attach").map_err(text)?;
    let stdin = std::io::stdin();
    let terminal = tty::is_tty(stdin.as_fd());
    let raw = if terminal { Some(tty::raw_mode(stdin.as_fd()).map_err(text)?) } else { None };
    if terminal {
        send_size(&home);
    }
    let detached = copy(&connection, terminal).map_err(|error| format!("attach to {id}: {error}"))?;
    drop(raw);
    if detached {
        // What the container shows stays on its own line.
        println!();
        return Ok(0);
    }
    // The exit file is there before the connection ends; a monitor that was killed leaves none.
    Ok(exit_code(&home).map_or(FAILURE, |code| u8::try_from(code).unwrap_or(u8::MAX)))
}

fn send_size(home: &Path) {
    if let Ok(size) = tty::window_size(std::io::stdin().as_fd())
        && let Ok(mut fifo) = fs::File::options().write(true).open(home.join("bundle/ctl"))
    {
        // Without a size the terminal keeps the one it has.
        let _ = fifo.write_all(format!("1 {} {}\n", size.rows, size.columns).as_bytes());
    }
}

/// Copies both ways; true when the keys were pressed.
///
/// What the monitor does not take yet is kept, and output read meanwhile: it may be waiting for that.
fn copy(connection: &std::os::fd::OwnedFd, terminal: bool) -> Result<bool, std::io::Error> {
    use rustix::event::{PollFd, PollFlags};
    // A closed output ends the copy by an error, not this process by a signal.
    let _ = signal::block(&signal::SignalSet::empty().with(13));
    fd::set_nonblocking(connection.as_fd(), true)?;
    let stdin = std::io::stdin();
    let (mut input_open, mut last, mut unsent) = (true, 0, Vec::new());
    loop {
        let room = if unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let wanted = PollFd::new(connection, PollFlags::IN | room);
        let mut both = vec![wanted, PollFd::new(&stdin, PollFlags::IN)];
        both.truncate(if input_open && unsent.is_empty() { 2 } else { 1 });
        rustix::event::poll(&mut both, None)?;
        if both.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            let mut bytes = vec![0; INPUT / 4];
            let got = stdin.lock().read(&mut bytes)?;
            let keys: Vec<u8> = std::iter::once(last).chain(bytes[..got].iter().copied()).collect();
            if terminal && keys.windows(2).any(|pair| pair == [16, 17]) {
                return Ok(true);
            }
            last = *keys.last().unwrap_or(&0);
            bytes.truncate(got);
            unsent = bytes;
            if got == 0 {
                input_open = false;
                rustix::net::shutdown(connection, rustix::net::Shutdown::Write)?;
            }
        }
        send_kept(connection, &mut unsent)?;
        if both[0].revents().intersects(!PollFlags::OUT) && !print_message(connection)? {
            return Ok(false);
        }
    }
}

/// Sends what is kept, which is one message, if there is room for it.
fn send_kept(connection: &std::os::fd::OwnedFd, unsent: &mut Vec<u8>) -> Result<(), std::io::Error> {
    if unsent.is_empty() {
        return Ok(());
    }
    match hull_sys::io::write(connection.as_fd(), unsent) {
        Ok(_) => unsent.clear(),
        Err(error) if error.is(EAGAIN) => {}
        // The container has ended without it; what it said last is still to be read.
        Err(error) if error.is(EPIPE) || error.is(ECONNRESET) => unsent.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Prints a message to the stream that it came from; false when there will be no more.
fn print_message(connection: &std::os::fd::OwnedFd) -> Result<bool, std::io::Error> {
    let mut message = [0; MESSAGE + 1];
    match hull_sys::io::read(connection.as_fd(), &mut message) {
        Err(error) if error.is(EAGAIN) => {}
        // Told once, before what is in the queue: some of our input was not read.
        Err(error) if error.is(ECONNRESET) => {}
        Ok(0) | Err(_) => return Ok(false),
        Ok(got) if message[0] == 3 => std::io::stderr().write_all(&message[1..got])?,
        Ok(got) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&message[1..got])?;
            out.flush()?;
        }
    }
    Ok(true)
}
