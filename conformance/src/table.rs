//! The table of several runtimes beside each other, in Markdown.

use serde_json::Value;

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

/// Writes the table of the given documents of `--format json`, one column each.
#[must_use]
pub fn markdown(requirements: &[Requirement], documents: &[Value]) -> String {
    let mut text = heading(documents);
    for (letter, subject) in SUBJECTS {
        let rows: Vec<&Requirement> = requirements.iter().filter(|row| row.id.starts_with(letter)).collect();
        let shown: Vec<String> = rows.iter().filter_map(|row| line(row, documents)).collect();
        if !shown.is_empty() {
            text.push_str(&format!("\n## {subject}\n\n{}{}\n", columns(documents), shown.join("\n")));
        }
    }
    text + &failures(documents) + &reasons(documents)
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
            word(&document["host"]["cgroups"]),
            word(&document["host"]["kernel"]),
            counts["passed"],
            counts["failed"],
            counts["skipped"]
        ));
    }
    text + "\nIn the tables: `+` passed, **fail**, `-` skipped (the reasons are at the end), MUST unless another level stands there.\n"
}

fn columns(documents: &[Value]) -> String {
    let names: Vec<&str> = documents.iter().map(name).collect();
    format!("| | requirement | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()))
}

fn line(row: &Requirement, documents: &[Value]) -> Option<String> {
    let found: Vec<Option<&Value>> = documents.iter().map(|document| result(document, row.id)).collect();
    found.iter().any(Option::is_some).then(|| {
        let marks: Vec<&str> = found.iter().map(|result| mark(*result)).collect();
        let level = row.level.to_string();
        let level = if level == "MUST" { String::new() } else { format!(" ({level})") };
        format!("| {} | {}{level} | {} |", row.id, cell(row.text), marks.join(" | "))
    })
}

fn mark(result: Option<&Value>) -> &'static str {
    match result.and_then(|result| result["verdict"].as_str()) {
        Some("passed") => "+",
        Some("failed") => "**fail**",
        Some("skipped") => "-",
        _ => "",
    }
}

/// Each failure with what was expected and seen, and what the specification says to it.
fn failures(documents: &[Value]) -> String {
    let mut text = String::from(
        "\n## Failures\n\n| | runtime | expected | seen | why the specification asks for it |\n|---|---|---|---|---|\n",
    );
    for document in documents {
        for result in results(document).filter(|result| result["verdict"] == "failed") {
            let why = result["specification"].as_str().unwrap_or("");
            text.push_str(&format!(
                "| {} | {} | {} | {} | {}{}[{}]({}) |\n",
                word(&result["id"]),
                name(document),
                cell(word(&result["expected"])),
                cell(&short(word(&result["seen"]))),
                cell(why),
                if why.is_empty() { "" } else { " " },
                word(&result["section"]),
                link(word(&result["section"]))
            ));
        }
    }
    text
}

fn reasons(documents: &[Value]) -> String {
    let mut text = String::from("\n## Skipped\n\n| | runtimes | reason |\n|---|---|---|\n");
    let mut seen: Vec<(String, String, Vec<&str>)> = Vec::new();
    for document in documents {
        for result in results(document).filter(|result| result["verdict"] == "skipped") {
            let (id, why) = (word(&result["id"]).to_owned(), word(&result["reason"]).to_owned());
            match seen.iter_mut().find(|(of, reason, _)| *of == id && *reason == why) {
                Some((_, _, names)) => names.push(name(document)),
                None => seen.push((id, why, vec![name(document)])),
            }
        }
    }
    for (id, why, names) in &seen {
        let who = if names.len() == documents.len() { "all".to_owned() } else { names.join(", ") };
        text.push_str(&format!("| {id} | {who} | {} |\n", cell(why)));
    }
    text
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
