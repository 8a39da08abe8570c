//! How the text after an instruction's name is cut up: flags, JSON lists, blanks, name=value words.

/// What a list that looks like JSON turned out to be.
pub(super) enum Json {
    Strings(Vec<String>),
    /// A JSON array with something in it that is no string.
    Mixed,
}

/// Reads `rest` as a JSON array; `None` when it is none.
pub(super) fn json_list(rest: &str) -> Option<Json> {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(rest).ok()?;
    let strings: Option<Vec<String>> = values.into_iter().map(|v| v.as_str().map(str::to_owned)).collect();
    Some(strings.map_or(Json::Mixed, Json::Strings))
}

/// The text behind the leading `--flags`.
pub(super) fn skip_flags(rest: &str) -> &str {
    take_flags(rest, '\\').1
}

/// Cuts the leading `--name[=value]` words off, their quotes and escapes resolved. A bare `--` ends them.
pub(super) fn take_flags(rest: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag_word(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

fn flag_word(rest: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &rest[at..]),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape && quote != Some('\'') => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Words between blanks; quotes mean nothing.
pub(super) fn blank_separated(rest: &str) -> Vec<String> {
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Words between blanks that stand outside quotes; quotes and escapes stay in the words.
pub(super) fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '"' || c == '\'') {
            quote = Some(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Name and value pairs, and whether they stood in the old `NAME value` form.
pub(super) struct Pairs {
    pub(super) pairs: Vec<(String, String)>,
    pub(super) legacy: bool,
}

/// `a=b c="d e"`, or the old form `a b c d`. The error names the word without `=`.
pub(super) fn name_values(instruction: &str, rest: &str, escape: char) -> Result<Pairs, (String, String)> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Pairs { pairs: Vec::new(), legacy: false }) };
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if value.trim().is_empty() {
            return Err((first.clone(), format!("{instruction} must have two arguments")));
        }
        return Ok(Pairs { pairs: vec![(name.to_owned(), value.trim_start().to_owned())], legacy: true });
    }
    let mut pairs = Vec::with_capacity(words.len());
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
            None => {
                let text =
                    format!("syntax error: can't find = in \"{word}\"; it must be of the form name=value");
                return Err((word, text));
            }
        }
    }
    Ok(Pairs { pairs, legacy: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let rows: [(&str, &[&str], &str); 6] = [
            ("--a=b --c d --e", &["--a=b", "--c"], "d --e"),
            ("x --a", &[], "x --a"),
            ("--a=\"b c\" d", &["--a=b c"], "d"),
            ("--a=b\\ c d", &["--a=b c"], "d"),
            ("--a -- --b", &["--a"], "--b"),
            ("--a", &["--a"], ""),
        ];
        for (text, flags, rest) in rows {
            let (found, after) = take_flags(text, '\\');
            assert_eq!(
                (found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), after),
                (flags, rest)
            );
        }
    }

    #[test]
    fn only_arrays_of_strings_are_json_lists() {
        assert!(matches!(json_list("[\"a\", \"b\"]"), Some(Json::Strings(list)) if list == ["a", "b"]));
        assert!(matches!(json_list("[1]"), Some(Json::Mixed)));
        for text in ["['a']", "[\"a\"", "a", "[ -f x ] && y", "[\"a\"] b"] {
            assert!(json_list(text).is_none(), "{text}");
        }
    }

    #[test]
    fn pairs_come_in_both_forms() {
        let new = name_values("ENV", "a=1 b=\"x y\" c=d\\ e", '\\').ok().unwrap();
        let wanted = [("a", "1"), ("b", "\"x y\""), ("c", "d\\ e")];
        assert_eq!(new.pairs, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let old = name_values("ENV", "a  b c=d", '\\').ok().unwrap();
        assert!(old.legacy);
        assert_eq!(old.pairs, [("a".to_owned(), "b c=d".to_owned())]);
        assert_eq!(name_values("ENV", "a", '\\').err().unwrap().1, "ENV must have two arguments");
        assert_eq!(name_values("ENV", "a=b c", '\\').err().unwrap().0, "c");
    }
}
