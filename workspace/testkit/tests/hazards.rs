//! The tables of hazards and of faults name tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two directories down").to_path_buf()
}

/// The names between backticks in the last column of each table.
fn named(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The names of all functions that follow a `#[test]` below `directory`.
fn tests(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("list a source directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_directory = entry.file_type().expect("an entry has a type").is_dir();
        if is_directory && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
            tests(&path, found);
        } else if !is_directory && path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("read a source file");
            let functions = text.split("#[test]").skip(1).filter_map(|after| after.split_once("fn "));
            found.extend(functions.filter_map(|(_, rest)| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_hazard_names_tests_that_exist() {
    let page = fs::read_to_string(top().join("docs/hazards.md")).expect("read the table of hazards");
    let mut known = BTreeSet::new();
    tests(&top(), &mut known);
    let named = named(&page);
    assert!(named.len() > 20, "the table is read: {named:?}");
    let missing: Vec<_> = named.into_iter().filter(|name| !known.contains(*name)).collect();
    assert_eq!(missing, [""; 0]);
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| hazard "));
    let without: Vec<_> = rows.filter(|row| !row.ends_with("` |")).collect();
    assert_eq!(without, [""; 0], "each row ends in a test");
}

#[test]
fn every_fault_of_the_runtime_has_a_row_and_its_tests_exist() {
    let page = fs::read_to_string(top().join("docs/runtime-faults.md")).expect("read the table of faults");
    let mut known = BTreeSet::new();
    tests(&top(), &mut known);
    let missing: Vec<_> = named(&page).into_iter().filter(|name| !known.contains(*name)).collect();
    assert_eq!(missing, [""; 0]);
    for number in 1..=43 {
        let row = page.lines().find(|line| line.starts_with(&format!("| R-{number:02} |")));
        let row = row.unwrap_or_else(|| panic!("no row R-{number:02}"));
        assert!(row.ends_with("` |") || row.contains("not yet: "), "neither a test nor a reason: {row}");
    }
}
