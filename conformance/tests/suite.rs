//! The suite against the runtime of this repository.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_conformance::requirement::reasons;
use hull_testkit::runtime::{ours, under_test};
use hull_testkit::{call, gate, needs};
use serde_json::Value;

/// Every requirement, on this machine's control groups; those that it cannot show are counted as `conformance ID`.
#[test]
fn hull_passes_but_for_what_it_does_as_runc() {
    needs!(gate::root(), ours());
    let suite = Path::new(env!("CARGO_BIN_EXE_hull-conformance"));
    let mut command = Command::new(suite);
    // Managers delete created containers, so every runtime allows it.
    command.arg("--runtime").arg(under_test()).args(["--format", "json", "--todo", "L21"]);
    let outcome = call(command.stdin(Stdio::null()), Duration::from_secs(300));
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:?}"));
    let results = document["results"].as_array().expect("a list of results");
    let of = |verdict: &'static str| results.iter().filter(move |result| result["verdict"] == verdict);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let unexpected: Vec<_> = of("failed").filter(|result| result["id"] != "L21").collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let reasons = reasons();
    for result in of("skipped") {
        let id = text(&result["id"]);
        // What no machine can show has its reason in the suite.
        if !reasons.iter().any(|(reasoned, _)| *reasoned == id) {
            gate::skipped_part(&format!("conformance {id}"), &text(&result["reason"]));
        }
    }
    println!("passed {}, skipped {}", of("passed").count(), of("skipped").count());
    assert!(of("passed").count() > results.len() / 2, "{:#}", document["counts"]);
}
