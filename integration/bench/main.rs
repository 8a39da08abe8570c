//! Compares runtimes side by side: wall time, processor time, peak memory and system calls of each command.
//!
//! `just bench [ROUNDS]`. The peers are `runc` and `crun` of the machine, or the programs named by RUNC and CRUN. All
//! run in one private mount namespace that shows version 1 cgroups only, because crun refuses anything else here. Each
//! round takes every runtime in turn, so that a busy moment of the machine hits all of them alike. Never run in CI:
//! a number means something only on a quiet machine.
#![forbid(unsafe_code)]

mod life;
mod measure;
mod table;

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use hull_testkit::{gate, place};

/// A program to measure.
#[derive(Debug, Clone)]
pub struct Peer {
    /// How the table calls it.
    pub name: String,
    /// Where it is.
    pub program: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::FLAG) {
        return measure::inside(&arguments[1..]);
    }
    if env::var_os("HULL_BENCH_INSIDE").is_none() {
        return enter(&arguments);
    }
    let rounds = arguments.first().and_then(|word| word.parse().ok()).unwrap_or(20);
    let peers = peers();
    println!("{rounds} rounds of {}", peers.iter().map(describe).collect::<Vec<_>>().join(", "));
    table::print(&peers, &life::rounds(&peers, rounds));
    ExitCode::SUCCESS
}

/// Starts itself again where the cgroups look like version 1 only.
fn enter(arguments: &[String]) -> ExitCode {
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/pure-v1.sh");
    let own = env::current_exe().expect("a process knows its executable");
    let error = Command::new(wrapper).arg(own).args(arguments).env("HULL_BENCH_INSIDE", "1").exec();
    eprintln!("cannot start {wrapper}: {error}");
    ExitCode::FAILURE
}

/// hull and those of its peers that are installed.
fn peers() -> Vec<Peer> {
    let named = |name: &str, variable: &str| {
        let program = env::var_os(variable).map(PathBuf::from).or_else(|| gate::find(name))?;
        Some(Peer { name: name.to_owned(), program })
    };
    let hull = env::var_os("HULL").map_or_else(|| place::program("hull"), PathBuf::from);
    let hull = Peer { name: "hull".to_owned(), program: hull };
    [Some(hull), named("runc", "RUNC"), named("crun", "CRUN")].into_iter().flatten().collect()
}

fn describe(peer: &Peer) -> String {
    let version =
        Command::new(&peer.program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    let line = version.lines().next().unwrap_or("no version").to_owned();
    format!("{} ({line})", peer.name)
}
