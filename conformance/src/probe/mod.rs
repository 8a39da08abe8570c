//! The program inside: the suite's own executable, called by the name `probe`.
//!
//! | words | what it does |
//! |---|---|
//! | `report` | prints everything it sees of itself, as one line of JSON |
//! | `do ACTION + ACTION...` | carries the actions out and prints their answers as a JSON list (see [`act`]) |
//! | `wait FILE` | blocks all signals and appends the name of each that comes; ends at SIGTERM |
//! | `exit N`, `sleep N` | ends with a status, or after some seconds |
//! | `log FILE NAME` | appends what it sees to a file, as hooks do |
//! | `hook FILE NAME [exit N \| sleep N]` | the same, with its standard input |
//! | `hold TYPE...` | makes namespaces and keeps them until its standard input ends |
//! | `enter PATH... -- PROGRAM...` | joins namespaces and becomes the program |
//! | `blind -- PROGRAM...` | becomes the program where `/sys` is empty |

pub mod act;
mod hook;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stdin};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio, id};
use std::thread::sleep;
use std::time::Duration;
use std::{env, io};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};

/// Carries out what the words say.
#[must_use]
pub fn main(words: &[String]) -> ExitCode {
    let Some((verb, rest)) = words.split_first() else { return ExitCode::from(2) };
    let number = |at: usize| rest.get(at).and_then(|word| word.parse::<u8>().ok()).unwrap_or(0);
    match (verb.as_str(), rest) {
        ("report", _) => println!("{}", hull_testkit::probe::look()),
        ("do", actions) => println!("{}", act::all(actions)),
        ("exit", _) => return ExitCode::from(number(0)),
        ("sleep", _) => sleep(Duration::from_secs(number(0).into())),
        ("wait", [file, ..]) => return told(wait(file)),
        ("log", [file, name]) => return told(hook::log(file, name, String::new())),
        ("hook", [file, name, end @ ..]) => return hook::run(file, name, end),
        ("hold", kinds) => return told(hold(kinds)),
        ("blind", words) => return told(blind(words)),
        ("enter", words) => return told(enter(words)),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn told(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A blocked signal is never lost, not even for process 1, which the kernel shields from signals it does not handle.
fn wait(file: &str) -> io::Result<()> {
    let all = SigSet::all();
    all.thread_block()?;
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    loop {
        let signal = all.wait()?;
        writeln!(file, "{signal}")?;
        if signal == Signal::SIGTERM {
            return Ok(());
        }
    }
}

/// Prints the id of the process to look at; for a pid namespace that is its first process.
fn hold(kinds: &[String]) -> io::Result<()> {
    let flags = kinds.iter().filter_map(|kind| flag(kind)).collect();
    if !kinds.is_empty() {
        unshare(flags)?;
    }
    if flags.contains(CloneFlags::CLONE_NEWPID) {
        let mut first = Command::new("/proc/self/exe");
        let mut child =
            first.arg0("probe").arg("hold").stdin(Stdio::inherit()).stdout(Stdio::null()).spawn()?;
        println!("{}", child.id());
        return child.wait().map(drop);
    }
    println!("{}", id());
    io::copy(&mut stdin(), &mut io::sink()).map(drop)
}

fn flag(kind: &str) -> Option<CloneFlags> {
    Some(match kind {
        "net" => CloneFlags::CLONE_NEWNET,
        "uts" => CloneFlags::CLONE_NEWUTS,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "pid" => CloneFlags::CLONE_NEWPID,
        "user" => CloneFlags::CLONE_NEWUSER,
        "mnt" => CloneFlags::CLONE_NEWNS,
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        // CLONE_NEWTIME, which the library has no name for.
        "time" => CloneFlags::from_bits_retain(0x80),
        _ => return None,
    })
}

fn enter(words: &[String]) -> io::Result<()> {
    let (paths, program) = words.split_at(words.iter().position(|word| word == "--").unwrap_or(0));
    for path in paths {
        let namespace = File::open(path)?;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), None)?;
    }
    become_program(program)
}

fn blind(words: &[String]) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", "/sys", "tmpfs", none, Option::<&std::ffi::CStr>::None)?;
    become_program(words)
}

/// The words begin with `--`.
fn become_program(words: &[String]) -> io::Result<()> {
    let [_, program, arguments @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    Err(Command::new(program).args(arguments).exec())
}

/// Whether this process was called as the probe.
#[must_use]
pub fn called() -> bool {
    let name = env::args_os().next().unwrap_or_default();
    std::path::Path::new(&name).file_name().is_some_and(|name| name.to_string_lossy().starts_with("probe"))
}

/// All of standard input.
fn input() -> io::Result<String> {
    let mut text = String::new();
    stdin().read_to_string(&mut text).map(|_| text)
}
