//! The table of several runtimes beside each other, in Markdown.

use serde_json::Value;

use crate::peers::known;
use crate::requirement::Requirement;

/// Subjects by the letter of their ids.
const SUBJECTS: [(char, &str); 11] = [
    ('B', "Bundle and configuration"),
    ('L', "State and lifecycle"),
    ('H', "Hooks"),
    ('R', "Root and mounts"),
    ('P', "Process"),
    ('N', "Namespaces"),
    ('D', "Devices"),
    ('C', "Control groups"),
    ('I', "Intel RDT"),
    ('S', "Seccomp, paths and the rest of the Linux section"),
    ('F', "Features"),
];

/// Writes the table of the given documents of `--format json`: a line for each at the head, a column for each runtime.
#[must_use]
pub fn markdown(requirements: &[Requirement], documents: &[Value]) -> String {
    let runtimes = runtimes(documents);
    let mut text = heading(documents);
    for (letter, subject) in SUBJECTS {
        let rows: Vec<&Requirement> = requirements.iter().filter(|row| row.id.starts_with(letter)).collect();
        let shown: Vec<String> = rows.iter().filter_map(|row| line(row, &runtimes)).collect();
        if !shown.is_empty() {
            text.push_str(&format!("\n## {subject}\n\n{}{}\n", columns(&runtimes), shown.join("\n")));
        }
    }
    text + &failures(&runtimes) + &reasons(documents)
}

/// The documents of one runtime, one for each host that it ran on.
struct Runtime<'a> {
    name: &'a str,
    documents: Vec<&'a Value>,
}

fn runtimes(documents: &[Value]) -> Vec<Runtime<'_>> {
    let mut found: Vec<Runtime> = Vec::new();
    for document in documents {
        match found.iter_mut().find(|runtime| runtime.name == name(document)) {
            Some(runtime) => runtime.documents.push(document),
            None => found.push(Runtime { name: name(document), documents: vec![document] }),
        }
    }
    found
}

impl<'a> Runtime<'a> {
    /// The hosts where the requirement came out as `verdict`.
    fn hosts(&self, id: &str, verdict: &str) -> Vec<&'a Value> {
        let came =
            |document: &&&Value| result(document, id).is_some_and(|result| result["verdict"] == verdict);
        self.documents.iter().filter(came).copied().collect()
    }

    fn mark(&self, id: &str) -> String {
        let [passed, failed, skipped] =
            ["passed", "failed", "skipped"].map(|verdict| self.hosts(id, verdict));
        match (passed.is_empty(), failed.is_empty(), skipped.is_empty()) {
            (_, false, _) => format!("**fail**{}", self.only(id, &failed)),
            (false, ..) => "+".to_owned(),
            (.., false) => "-".to_owned(),
            _ => String::new(),
        }
    }

    /// Names the hosts of a failure that others do not have.
    fn only(&self, id: &str, failed: &[&Value]) -> String {
        if self.hosts(id, "passed").is_empty() {
            return String::new();
        }
        let hosts: Vec<String> = failed.iter().map(|document| groups(document)).collect();
        format!(" on {}", hosts.join(", "))
    }
}

fn heading(documents: &[Value]) -> String {
    let mut text = String::from(
        "# Conformance\n\nWhat the OCI runtime specification asks for and who does it, as `hull-conformance` sees it \
         from outside and from inside. Written by `just conformance-table`; do not edit.\n\n\
         | runtime | host | passed | failed | skipped |\n|---|---|---|---|---|\n",
    );
    for document in documents {
        let counts = &document["counts"];
        text.push_str(&format!(
            "| {} | {}, Linux {} | {} | {} | {} |\n",
            name(document),
            groups(document),
            word(&document["host"]["kernel"]),
            counts["passed"],
            counts["failed"],
            counts["skipped"]
        ));
    }
    text + "\nIn the tables: `+` passed on every host that has what it takes, **fail** (\"on\": it passed on the \
            others), `-` skipped on all (the reasons are at the end), MUST unless another level stands there.\n"
}

fn columns(runtimes: &[Runtime]) -> String {
    let names: Vec<&str> = runtimes.iter().map(|runtime| runtime.name).collect();
    format!("| | requirement | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()))
}

fn line(row: &Requirement, runtimes: &[Runtime]) -> Option<String> {
    let marks: Vec<String> = runtimes.iter().map(|runtime| runtime.mark(row.id)).collect();
    marks.iter().any(|mark| !mark.is_empty()).then(|| {
        let level = row.level.to_string();
        let level = if level == "MUST" { String::new() } else { format!(" ({level})") };
        format!("| {} | {}{level} | {} |", row.id, cell(row.text), marks.join(" | "))
    })
}

/// Each failure with what was expected and first seen, and what the specification says to it.
fn failures(runtimes: &[Runtime]) -> String {
    let mut text = String::from(
        "\n## Failures\n\n| | runtime | expected | seen | why the specification asks for it |\n|---|---|---|---|---|\n",
    );
    for runtime in runtimes {
        let mut told: Vec<&str> = Vec::new();
        for result in runtime.documents.iter().flat_map(|document| results(document)) {
            let id = word(&result["id"]);
            if result["verdict"] == "failed" && !told.contains(&id) {
                told.push(id);
                text.push_str(&failure(runtime, result));
            }
        }
    }
    text
}

fn failure(runtime: &Runtime, result: &Value) -> String {
    let id = word(&result["id"]);
    // A reason may have been found after the run.
    let why = known(id, runtime.name).or(result["specification"].as_str()).unwrap_or("");
    format!(
        "| {} | {}{} | {} | {} | {}{}[{}]({}) |\n",
        id,
        runtime.name,
        runtime.only(id, &runtime.hosts(id, "failed")),
        cell(word(&result["expected"])),
        cell(&short(word(&result["seen"]))),
        cell(why),
        if why.is_empty() { "" } else { " " },
        word(&result["section"]),
        link(word(&result["section"]))
    )
}

/// Each reason with the documents that have it, requirement by requirement.
fn reasons(documents: &[Value]) -> String {
    let mut text = String::from("\n## Skipped\n\n| | where | reason |\n|---|---|---|\n");
    let mut seen: Vec<(&str, &str, Vec<&Value>)> = Vec::new();
    for document in documents {
        for result in results(document).filter(|result| result["verdict"] == "skipped") {
            let (id, why) = (word(&result["id"]), word(&result["reason"]));
            match seen.iter_mut().find(|(of, reason, _)| *of == id && *reason == why) {
                Some((.., of)) => of.push(document),
                None => seen.push((id, why, vec![document])),
            }
        }
    }
    for (id, why, of) in &seen {
        text.push_str(&format!("| {id} | {} | {} |\n", where_of(of, documents), cell(why)));
    }
    text
}

/// Names some of the documents by what they have in common: all of them, all of a host, all of a runtime.
fn where_of(some: &[&Value], documents: &[Value]) -> String {
    let has = |document: &Value| some.iter().any(|one| std::ptr::eq(*one, document));
    let whole = |key: &dyn Fn(&Value) -> String, of: &Value| {
        documents.iter().filter(|document| key(document) == key(of)).all(has)
    };
    if some.len() == documents.len() {
        return "all".to_owned();
    }
    let mut names: Vec<String> = Vec::new();
    for document in some {
        let name = name(document).to_owned();
        let shown = match (whole(&groups, document), whole(&|of| self::name(of).to_owned(), document)) {
            (true, _) => groups(document),
            (_, true) => name,
            _ => format!("{name} on {}", groups(document)),
        };
        if !names.contains(&shown) {
            names.push(shown);
        }
    }
    names.join(", ")
}

/// How the host's control groups are laid out, and who makes them.
fn groups(document: &Value) -> String {
    let arguments = document["runtime"]["arguments"].as_array().into_iter().flatten();
    let systemd =
        arguments.into_iter().any(|word| word.as_str().is_some_and(|word| word.contains("systemd")));
    format!("{}{}", word(&document["host"]["cgroups"]), if systemd { " with systemd" } else { "" })
}

fn name(document: &Value) -> &str {
    word(&document["runtime"]["name"])
}

fn results(document: &Value) -> impl Iterator<Item = &Value> {
    document["results"].as_array().into_iter().flatten()
}

fn result<'a>(document: &'a Value, id: &str) -> Option<&'a Value> {
    results(document).find(|result| result["id"] == id)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Sections in brackets are not in the specification.
fn link(section: &str) -> String {
    format!("https://github.com/opencontainers/runtime-spec/blob/main/{section}")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Long output is shown by its beginning, which has the command, and its end, which has the cause.
fn short(text: &str) -> String {
    const HEAD: usize = 90;
    const TAIL: usize = 130;
    let all: Vec<char> = text.chars().collect();
    if all.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    let (head, tail) = (&all[..HEAD], &all[all.len() - TAIL..]);
    format!("{} ... {}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(name: &str, host: &str, verdicts: [&str; 3]) -> Value {
        let results = ["B1", "B2", "B3"].iter().zip(verdicts).map(|(id, verdict)| {
            json!({ "id": id, "verdict": verdict, "section": "bundle.md", "expected": "this", "seen": "that",
                    "reason": "needs it" })
        });
        json!({
            "runtime": { "name": name, "arguments": [] },
            "host": { "cgroups": host, "kernel": "6.1" },
            "counts": { "passed": 1, "failed": 1, "skipped": 1 },
            "results": results.collect::<Vec<_>>(),
        })
    }

    #[test]
    fn a_failure_that_was_explained_after_the_run_has_its_reason() {
        let mut old = document("runc 1.1.5", "cgroup v1", ["failed", "passed", "skipped"]);
        old["results"][0]["id"] = json!("C22");
        let table = markdown(&crate::requirement::all(), &[old]);
        assert!(table.contains("Each entry MUST have weight or leafWeight"), "{table}");
    }

    #[test]
    fn hosts_of_a_runtime_share_a_column_and_failures_name_the_host() {
        let documents = [
            document("a 1", "cgroup v1", ["passed", "passed", "skipped"]),
            document("a 1", "cgroup v2", ["skipped", "failed", "skipped"]),
            document("b 2", "cgroup v1", ["failed", "passed", "skipped"]),
        ];
        let table = markdown(&crate::requirement::all(), &documents);
        let marks = |id: &str| {
            let line = table.lines().find(|line| line.starts_with(&format!("| {id} |"))).expect("a line");
            line.split(" | ").skip(2).map(|cell| cell.trim_end_matches(" |").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(marks("B1"), ["+", "**fail**"]);
        assert_eq!(marks("B2"), ["**fail** on cgroup v2", "+"]);
        assert_eq!(marks("B3"), ["-", "-"]);
        let failures: Vec<_> = table.lines().filter(|line| line.contains("| this | that |")).collect();
        assert_eq!(failures.len(), 2);
        assert!(failures[0].starts_with("| B2 | a 1 on cgroup v2 |"), "{failures:?}");
        assert!(table.ends_with("| B3 | all | needs it |\n| B1 | cgroup v2 | needs it |\n"), "{table}");
    }
}
