//! Results as TAP, JUnit or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::options::Format;
use crate::runner::{Outcome, Verdict};
use crate::suite::Suite;

/// Writes the outcomes of a run.
#[must_use]
pub fn write(format: Format, suite: &Suite, outcomes: &[Outcome]) -> String {
    match format {
        Format::Tap => tap(outcomes),
        Format::Junit => junit(&suite.version, outcomes),
        Format::Json => format!("{:#}\n", document(suite, outcomes)),
    }
}

/// Passed, failed, skipped.
#[must_use]
pub fn counts(outcomes: &[Outcome]) -> [usize; 3] {
    let count = |fits: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| fits(&outcome.verdict)).count();
    [
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Failed { .. })),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    ]
}

/// <https://testanything.org/tap-version-13-specification.html>
fn tap(outcomes: &[Outcome]) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", outcomes.len());
    for (number, outcome) in outcomes.iter().enumerate() {
        let (row, number) = (&outcome.requirement, number + 1);
        // A # begins a directive.
        let name = format!("{} {} {} ({})", row.id, row.level, row.text, row.section).replace('#', " ");
        let line = match &outcome.verdict {
            Verdict::Passed => format!("ok {number} - {name}\n"),
            Verdict::Skipped(why) => format!("ok {number} - {name} # SKIP {}\n", one_line(why)),
            Verdict::Failed { .. } if outcome.todo => {
                format!("not ok {number} - {name} # TODO known\n{}", details(outcome))
            }
            Verdict::Failed { .. } => format!("not ok {number} - {name}\n{}", details(outcome)),
        };
        text.push_str(&line);
    }
    let [passed, failed, skipped] = counts(outcomes);
    text + &format!("# passed {passed}, failed {failed}, skipped {skipped}\n")
}

/// A block of YAML; a JSON string is one of YAML's.
fn details(outcome: &Outcome) -> String {
    let Verdict::Failed { expected, seen } = &outcome.verdict else { return String::new() };
    let mut text = format!("  ---\n  expected: {}\n  seen: {}\n", json!(expected), json!(seen));
    if let Some(why) = outcome.known {
        text.push_str(&format!("  specification: {}\n", json!(why)));
    }
    text + "  ...\n"
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn junit(runtime: &str, outcomes: &[Outcome]) -> String {
    let [_, failed, skipped] = counts(outcomes);
    let time: f64 = outcomes.iter().map(|outcome| outcome.time.as_secs_f64()).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"OCI runtime specification: {}\" \
         tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{time:.3}\">\n",
        xml(runtime),
        outcomes.len()
    );
    for outcome in outcomes {
        text.push_str(&testcase(outcome));
    }
    text + "</testsuite>\n</testsuites>\n"
}

fn testcase(outcome: &Outcome) -> String {
    let row = &outcome.requirement;
    let (class, name) = (xml(row.section), xml(&format!("{} {}", row.id, row.text)));
    let head =
        format!("<testcase classname=\"{class}\" name=\"{name}\" time=\"{:.3}\"", outcome.time.as_secs_f64());
    match &outcome.verdict {
        Verdict::Passed => format!("{head}/>\n"),
        Verdict::Skipped(why) => format!("{head}><skipped message=\"{}\"/></testcase>\n", xml(why)),
        Verdict::Failed { expected, seen } => {
            let mut body = format!("expected: {expected}\nseen: {seen}");
            if let Some(why) = outcome.known {
                // Writing to a string cannot fail.
                let _ = write!(body, "\nspecification: {why}");
            }
            format!("{head}><failure message=\"{}\">{}</failure></testcase>\n", xml(expected), xml(&body))
        }
    }
}

/// Escapes what XML 1.0 does not take, and drops what it cannot carry at all.
fn xml(text: &str) -> String {
    let allowed = |letter: &char| !letter.is_control() || ['\n', '\t'].contains(letter);
    let escaped = text.chars().filter(allowed).map(|letter| match letter {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        other => other.to_string(),
    });
    escaped.collect()
}

fn document(suite: &Suite, outcomes: &[Outcome]) -> Value {
    let [passed, failed, skipped] = counts(outcomes);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // What a distribution adds to the number says nothing here.
    let kernel: Vec<&str> = kernel.split(['.', '-']).take(2).collect();
    json!({
        "runtime": { "name": suite.version, "arguments": suite.arguments },
        "host": { "kernel": kernel.join("."), "cgroups": suite.layout.to_string() },
        "counts": { "passed": passed, "failed": failed, "skipped": skipped },
        "results": outcomes.iter().map(result).collect::<Vec<_>>(),
    })
}

fn result(outcome: &Outcome) -> Value {
    let row = &outcome.requirement;
    let mut value = json!({
        "id": row.id, "level": row.level.to_string(), "section": row.section, "requirement": row.text,
        "milliseconds": u64::try_from(outcome.time.as_millis()).unwrap_or(u64::MAX),
    });
    match &outcome.verdict {
        Verdict::Passed => value["verdict"] = json!("passed"),
        Verdict::Skipped(why) => {
            value["verdict"] = json!("skipped");
            value["reason"] = json!(why);
        }
        Verdict::Failed { expected, seen } => {
            value["verdict"] = json!("failed");
            value["expected"] = json!(expected);
            value["seen"] = json!(seen);
            value["specification"] = json!(outcome.known);
            value["todo"] = json!(outcome.todo);
        }
    }
    value
}
