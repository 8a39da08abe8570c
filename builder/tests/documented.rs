//! The tables of the builder's pages: each row has a state, what works names a test, and what is named is there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Pages whose last column names tests, with the number of rows that they have at least.
const PAGES: [(&str, usize); 3] =
    [("dockerfile.md", 95), ("builder-commands.md", 70), ("builder-faults.md", 30)];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// What a page may name: cases of the corpus, and tests by the file that they are in.
struct Known {
    cases: BTreeSet<String>,
    tests: BTreeMap<String, BTreeSet<String>>,
    recipes: String,
}

impl Known {
    fn read() -> Self {
        let corpus = top().join("builder/tests/corpus");
        let names = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name());
        let mut tests = BTreeMap::new();
        for part in ["builder", "workspace", "integration"] {
            tests_below(&top(), &top().join(part), &mut tests);
        }
        let cases = names.map(|name| name.into_string().unwrap()).collect();
        Self { cases, tests, recipes: fs::read_to_string(top().join("justfile")).unwrap() }
    }

    fn has(&self, name: &str) -> bool {
        if let Some(start) = name.strip_suffix('*').filter(|start| start.contains('-')) {
            return self.cases.iter().any(|case| case.starts_with(start));
        }
        if let Some(recipe) = name.strip_prefix("just ") {
            let recipe = recipe.split(' ').next().unwrap();
            return self.recipes.lines().any(|line| line.starts_with(recipe));
        }
        self.cases.contains(name) || self.has_test(name)
    }

    /// `[CRATE ][FILE::]*[NAME]`: a test of this name in a file of this path, or any test of a file, a module or a directory.
    fn has_test(&self, name: &str) -> bool {
        let (part, path) = name.split_once(' ').unwrap_or(("", name));
        let part = part.strip_prefix("hull-").unwrap_or(part);
        let mut words: Vec<&str> = path.split("::").filter(|word| !matches!(*word, "*" | "tests")).collect();
        let anything =
            path.ends_with("::*") || path.ends_with("::tests") || !path.contains("_") || name.contains(' ');
        let in_file = |file: &&String, words: &[&str]| {
            let places: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
            (part.is_empty() || part == "build" || places.contains(&part))
                && words.iter().all(|word| places.contains(word))
        };
        if anything && self.tests.keys().any(|file| in_file(&file, &words)) {
            return true;
        }
        let test = words.pop().unwrap_or_default();
        self.tests.iter().any(|(file, tests)| tests.contains(test) && in_file(&file, &words))
    }
}

/// The names of the functions that follow a `#[test]`, by the file's path.
fn tests_below(top: &Path, directory: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(top, &path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.split("#[test]").skip(1).filter_map(|after| after.split_once("fn "));
            let names: BTreeSet<String> =
                functions.filter_map(|(_, rest)| Some(rest.split_once('(')?.0.to_owned())).collect();
            if !names.is_empty() {
                found.insert(path.strip_prefix(top).unwrap().display().to_string(), names);
            }
        }
    }
}

/// The rows of the tables whose last column is about tests, with the column's names.
fn rows(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut rows = Vec::new();
    let mut counts = false;
    let mut before = "";
    for line in page.lines() {
        if line.starts_with("|--") || line.starts_with("| --") {
            let head = before.trim_end_matches('|').rsplit(" | ").next().unwrap().trim();
            counts = head.starts_with("test") || head == "shown by";
        } else if counts && line.starts_with("| ") {
            let cell = line.trim_end_matches('|').rsplit(" | ").next().unwrap();
            rows.push((line, cell.split('`').skip(1).step_by(2).collect()));
        } else if !line.starts_with('|') {
            counts = false;
        }
        before = line;
    }
    // The heads of following tables are no rows.
    rows.retain(|(line, _)| !(line.ends_with("| test |") || line.ends_with("| shown by |")));
    rows
}

#[test]
fn tests_that_the_builders_pages_name_are_there() {
    let known = Known::read();
    assert!(
        !known.has("copy-nothing-of-this-kind")
            && !known.has("builds::no_such_test")
            && !known.has("nofile::*")
    );
    let mut wrong = Vec::new();
    for (page, least) in PAGES {
        let text = fs::read_to_string(top().join("docs").join(page)).unwrap();
        let rows = rows(&text);
        assert!(rows.len() >= least, "{page}: only {} rows were read", rows.len());
        for (line, names) in rows {
            wrong.extend(names.iter().filter(|name| !known.has(name)).map(|name| format!("{page}: {name}")));
            let state = line.rsplit(" | ").nth(1).unwrap_or_default();
            let waits = ["later", "refused", "never"].iter().any(|word| state.starts_with(word));
            if names.is_empty() && !waits && !line.ends_with(": all |") && !line.contains("tried by hand") {
                wrong.push(format!("{page}: no test in {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
