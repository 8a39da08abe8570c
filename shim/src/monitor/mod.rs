//! `hull-monitor`: watches one container (or one exec), logs its output, lets clients attach, reports its exit.
//!
//! It takes conmon's command line and speaks its protocol; `run`, `attach`, `logs` and `wait` are for people.

mod args;
mod attach;
mod by_hand;
mod control;
mod ending;
mod journal;
mod log;
mod notify;
mod oom_score;
mod person;
mod rotation;
mod start;
mod sync;
mod watch;

use std::process::ExitCode;

use args::Args;

/// Managers switch features on by conmon's version: this is the one whose features are here.
const CONMON_VERSION: &str = "2.1.12";

/// Runs the monitor.
pub fn main() -> ExitCode {
    let words = match crate::spawn::own_words() {
        Ok(words) => words,
        Err(text) => return fail(&text),
    };
    if let Some(done) = by_hand::command(&words) {
        return done;
    }
    match Args::parse(words.into_iter()) {
        Ok(args) if args.version => {
            println!("conmon version {CONMON_VERSION}\ncommit: hull-monitor-{}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(args) => match start::start(args) {
            // What is no code of a process (an end for lack of time) is 255, as for conmon.
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
            Err(text) => fail(&text),
        },
        Err(text) => fail(&text),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("hull-monitor: {text}");
    ExitCode::FAILURE
}
