//! The table of requirements and the cases fit together.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use hull_conformance::{cases, peers, requirement};

#[test]
fn requirements_have_one_id_each() {
    let all = requirement::all();
    assert_eq!(all.len(), 217);
    let ids: BTreeSet<&str> = all.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), all.len());
}

#[test]
fn cases_reasons_and_peers_name_requirements() {
    let ids: BTreeSet<&str> = requirement::all().iter().map(|row| row.id).collect();
    let named = cases::all()
        .map(|(id, _)| id)
        .chain(requirement::reasons().iter().map(|(id, _)| *id))
        .collect::<Vec<_>>();
    let unknown: Vec<&&str> = named.iter().filter(|id| !ids.contains(**id)).collect();
    assert_eq!(unknown, Vec::<&&str>::new());
    let once: BTreeSet<&&str> = named.iter().collect();
    assert_eq!(once.len(), named.len(), "a requirement has one case or one reason");
    let strangers: Vec<&str> = peers::all().map(|known| known.id).filter(|id| !ids.contains(id)).collect();
    assert_eq!(strangers, Vec::<&str>::new());
}

#[test]
fn what_must_or_should_be_has_a_case_or_a_reason() {
    let optional = requirement::Level::May;
    let reasons: Vec<&str> = requirement::reasons().iter().map(|(id, _)| *id).collect();
    let open = requirement::all().into_iter().filter(|row| row.level != optional).map(|row| row.id);
    let open: Vec<&str> = open.filter(|id| cases::case(id).is_none() && !reasons.contains(id)).collect();
    assert_eq!(open, Vec::<&str>::new());
}
