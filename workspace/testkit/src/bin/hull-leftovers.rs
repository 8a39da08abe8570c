//! Compares the machine before and after a test run.
//!
//! `hull-leftovers FILE` writes the present state to FILE when it does not exist; else it lists what came since then
//! and ends with 1 when there is anything.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::{env, fs};

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::leftovers;

fn main() -> ExitCode {
    let Some(path) = env::args().nth(1) else {
        eprintln!("usage: hull-leftovers FILE");
        return ExitCode::from(2);
    };
    let Ok(before) = fs::read_to_string(&path) else { return record(&path, &leftovers::snapshot()) };
    let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
    let mut new: Vec<String> = Vec::new();
    // What was told to end may still be on its way.
    eventually(PATIENCE / 12, || {
        new = leftovers::snapshot().difference(&before).cloned().collect();
        new.is_empty()
    });
    for line in &new {
        println!("left behind: {line}");
    }
    ExitCode::from(u8::from(!new.is_empty()))
}

fn record(path: &str, now: &BTreeSet<String>) -> ExitCode {
    let text: String = now.iter().map(|line| format!("{line}\n")).collect();
    match fs::write(path, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {path}: {error}");
            ExitCode::from(2)
        }
    }
}
