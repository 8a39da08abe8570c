//! `WWW-Authenticate`: schemes and their parameters (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme in lower case, such as `bearer`.
    pub(crate) scheme: String,
    /// Parameters by lower-case name.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Reads a header's value; what cannot be read ends it.
pub(crate) fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (name, after) = token(rest);
        if name.is_empty() {
            break;
        }
        let after_blank = after.trim_start();
        match (after_blank.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(last)) => {
                let Some((value, tail)) = parameter(value.trim_start()) else { break };
                last.parameters.insert(name.to_lowercase(), value);
                rest = tail;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push(Challenge { scheme: name.to_lowercase(), parameters: BTreeMap::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token or a quoted string, with commas in it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_quoted_commas() {
        let found = parse(
            r#"Bearer realm="https://a/token",service="s",scope="repository:x:pull,push", Basic realm="r \"q\"""#,
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].parameters["scope"], "repository:x:pull,push");
        assert_eq!(found[1].parameters["realm"], "r \"q\"");
        assert_eq!(parse("Basic")[0].scheme, "basic");
        assert_eq!(parse("Negotiate, Basic realm=x").len(), 2);
    }

    #[test]
    fn what_cannot_be_read_ends_the_header_quietly() {
        for (text, count) in
            [("", 0), ("=", 0), ("realm=x", 0), ("Bearer realm=\"open", 1), ("Bearer \u{e9}", 1), (",,,", 0)]
        {
            assert_eq!(parse(text).len(), count, "{text}");
        }
    }
}
