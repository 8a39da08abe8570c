//! The suite against the runtime of this repository.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::runtime::{ours, under_test};
use hull_testkit::{call, gate, needs};

#[test]
fn hull_passes_but_for_what_it_does_as_runc() {
    needs!(gate::root(), ours());
    let suite = Path::new(env!("CARGO_BIN_EXE_hull-conformance"));
    let mut command = Command::new(suite);
    // Managers delete created containers, so every runtime allows it.
    command.arg("--runtime").arg(under_test()).args(["--filter", "runtime.md", "--todo", "L21"]);
    let outcome = call(command.stdin(Stdio::null()), Duration::from_secs(300));
    let failed: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("not ok")).collect();
    println!("{}", outcome.stdout);
    assert_eq!(outcome.code, 0, "{failed:#?}\n{}", outcome.stderr);
}
