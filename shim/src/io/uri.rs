//! The escapes of a URI.

use std::borrow::Cow;

/// Undoes the escapes of a URI's path (RFC 3986 section 2.1); broken ones stay as they are.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        let escaped = || u8::try_from(digit(0)? * 16 + digit(1)?).ok();
        rest = match (first, escaped()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                &tail[2..]
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// The same in a query, where `+` is a blank.
pub fn unescape_query(text: &str) -> String {
    unescape(&text.replace('+', " ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_broken_ones_kept() {
        let cases = [
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ("%2", "%2"),
            ("%+f", "%+f"),
            ("", ""),
        ];
        for (text, plain) in cases {
            assert_eq!(unescape(text), plain);
        }
        assert_eq!(unescape_query("a+b%2Bc"), "a b+c");
    }
}
