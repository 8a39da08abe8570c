//! Reasons of the types in words of JSON: "expected u32" says little to who wrote the file.

use alloc::format;
use alloc::string::{String, ToString};

/// Longest reason; it may quote a string of the document.
const LONGEST: usize = 300;
/// What the types call what they expect, and what that is in a JSON document.
const EXPECTATIONS: [(&str, &str); 12] = [
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number from 0 to 18446744073709551615"),
    ("usize", "a whole number from 0 to 18446744073709551615"),
    ("i32", "a whole number from -2147483648 to 2147483647"),
    ("i64", "a whole number from -9223372036854775808 to 9223372036854775807"),
    ("a sequence", "a list"),
    ("a map", "an object"),
    ("a boolean", "true or false"),
    ("path string", "a string"),
    ("struct ", "an object"),
    ("enum ", "a string"),
];

/// The reason of an error of the types.
pub(super) fn friendly(reason: &str) -> String {
    let Some((before, expected)) = reason.rsplit_once(", expected ") else { return clip(reason) };
    let known = EXPECTATIONS.iter().find(|(word, _)| match word.strip_suffix(' ') {
        Some(_) => expected.starts_with(word),
        None => expected == *word,
    });
    let expected = known.map_or(expected, |(_, words)| words);
    let before = before
        .replace("invalid type: sequence", "invalid type: a list")
        .replace("invalid type: map", "invalid type: an object");
    format!("{}, expected {expected}", clip(&before))
}

/// `reason`, not longer than what fits in a line or two.
pub(super) fn clip(reason: &str) -> String {
    if reason.len() <= LONGEST {
        return reason.to_string();
    }
    let end = (0..=LONGEST).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &reason[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_what_they_are_in_json() {
        for (reason, words) in [
            (
                "invalid type: string \"x\", expected u32",
                "invalid type: string \"x\", expected a whole number from 0 to 4294967295",
            ),
            ("invalid type: sequence, expected struct Mount", "invalid type: a list, expected an object"),
            ("invalid type: map, expected a sequence", "invalid type: an object, expected a list"),
            ("invalid type: integer `1`, expected enum Arch", "invalid type: integer `1`, expected a string"),
            (
                "unknown variant `x`, expected one of `a`, `b`",
                "unknown variant `x`, expected one of `a`, `b`",
            ),
            (
                "unknown variant `, expected u32`, expected `a` or `b`",
                "unknown variant `, expected u32`, expected `a` or `b`",
            ),
            ("missing field `cwd`", "missing field `cwd`"),
        ] {
            assert_eq!(friendly(reason), words);
        }
    }

    #[test]
    fn a_long_reason_keeps_its_expectation() {
        let reason = friendly(&format!("invalid type: string \"{}\", expected a boolean", "ü".repeat(1000)));
        assert!(reason.len() < 350 && reason.ends_with("..., expected true or false"), "{reason}");
    }
}
