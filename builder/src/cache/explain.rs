//! Why a step missed the cache: the parts in which its key differs from the last one at its place.

use std::collections::BTreeMap;

use super::Key;

/// Differences told of one step.
const MOST: usize = 8;

/// What changed between the last key at a place and this one, a line each.
pub(crate) fn reasons(last: Option<&Key>, key: &Key) -> Vec<String> {
    let Some(last) = last else { return vec!["this step was never built here before".into()] };
    let map = |key: &Key| -> BTreeMap<String, String> { key.parts.iter().cloned().collect() };
    let (old, new) = (map(last), map(key));
    let mut lines = Vec::new();
    for (label, value) in &new {
        match old.get(label) {
            None => lines.push(format!("{label}: new ({})", shown(value))),
            Some(was) if was != value => {
                lines.push(format!("{label}: {} became {}", shown(was), shown(value)))
            }
            Some(_) => {}
        }
    }
    lines.extend(old.keys().filter(|label| !new.contains_key(*label)).map(|label| format!("{label}: gone")));
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if lines.is_empty() {
        lines.push("nothing it depends on changed, but its record or layer is gone".into());
    }
    lines
}

/// A value as people can compare it: digests short, texts cut.
fn shown(value: &str) -> String {
    let short =
        |word: &str| match word.len() >= 64 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            true => format!("{}…", &word[word.len() - 64..][..12]),
            false => word.to_owned(),
        };
    let text: Vec<String> =
        value.split(' ').map(|word| short(word.strip_prefix("sha256:").unwrap_or(word))).collect();
    cut(&text.join(" "))
}

/// The beginning of a text on one line, with a mark where more follows.
pub(crate) fn cut(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(&str, &str)]) -> Key {
        let mut key = Key::new();
        parts.iter().for_each(|(label, value)| key.part(*label, *value));
        key
    }

    #[test]
    fn each_difference_is_one_line() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let (one, two) = (format!("file 0644 {a}"), format!("file 0644 {b}"));
        let old = key(&[("base", "x"), ("file main.c", &one), ("env A", "1"), ("env B", "1")]);
        let new = key(&[("base", "x"), ("file main.c", &two), ("env A", "2"), ("env C", "3")]);
        let wanted = [
            "env A: 1 became 2",
            "env C: new (3)",
            "file main.c: file 0644 aaaaaaaaaaaa… became file 0644 bbbbbbbbbbbb…",
            "env B: gone",
        ];
        assert_eq!(reasons(Some(&old), &new), wanted);
        assert_eq!(reasons(None, &new), ["this step was never built here before"]);
        assert_eq!(
            reasons(Some(&new), &new),
            ["nothing it depends on changed, but its record or layer is gone"]
        );
    }
}
