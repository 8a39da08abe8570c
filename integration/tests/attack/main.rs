//! Hostile images, configurations and containers: what happened to other runtimes must not happen here.
//!
//! Each attack has a positive control: a runtime or a program that is hit by it, or the same set-up with the defence
//! taken away. A test that has never seen its attack succeed proves nothing.
#![forbid(unsafe_code)]

mod host;
mod image;
mod process;
mod races;

use hull_testkit::call::quick;
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::{Runtime, gate};
use serde_json::Value;

fn busybox() -> Gate {
    root().and(program("busybox"))
}

/// Debian's runc 1.1.5, which several of these attacks hit.
fn victim() -> Option<Runtime> {
    let runc = gate::find("runc")?;
    quick(runc.to_str()?, &["--version"]).stdout.starts_with("runc version 1.1.5").then(|| Runtime::at(runc))
}

fn without_mount(config: &mut Value, below: &str) {
    config["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with(below)));
}
