//! One path pattern as a small automaton: `*` and `?` within a segment, classes, escapes and, where allowed, `**`.
//!
//! The rules are Go's `filepath.Match` plus Docker's `**`. Matching takes pattern times path steps, whatever the input;
//! most paths are told apart by the text that every match begins and ends with, before the automaton is asked.

enum Token {
    /// This character.
    Char(char),
    /// Any character but a slash.
    One,
    /// Any run without a slash.
    Star,
    /// Any run.
    Deep,
    /// One of these ranges, or none of them; never a slash.
    Class { ranges: Vec<(char, char)>, negated: bool },
    /// Go on behind this one or `n` tokens further.
    Skip(usize),
}

impl Token {
    /// The one character that it stands for.
    fn text(&self) -> Option<char> {
        match self {
            Self::Char(c) => Some(*c),
            _ => None,
        }
    }
}

/// A compiled pattern.
pub(crate) struct Glob {
    tokens: Vec<Token>,
    /// What every match begins with.
    prefix: String,
    /// What every match ends with.
    suffix: String,
    /// Whether the prefix is all there is.
    literal: bool,
}

/// Why a pattern cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPattern {
    #[error("syntax error in pattern \"{0}\"")]
    Syntax(String),
    #[error("line {0}: \"!\" brings nothing back: no pattern follows it")]
    Lone(usize),
}

impl Glob {
    /// Compiles a pattern; `deep` allows `**` to cross segments, else it is `*`.
    pub(crate) fn new(text: &str, deep: bool) -> Result<Self, BadPattern> {
        let bad = || BadPattern::Syntax(text.to_owned());
        let mut chars = text.chars().peekable();
        let mut tokens = Vec::new();
        // Before this, tokens may be skipped.
        let mut certain = 0;
        while let Some(c) = chars.next() {
            match c {
                '*' if deep && chars.peek() == Some(&'*') => {
                    while chars.next_if_eq(&'*').is_some() {}
                    let slash = chars.next_if_eq(&'/').is_some();
                    match chars.peek() {
                        // `**` at the end: all that is left; `x/**/` and `**/x`: any number of whole segments.
                        None => tokens.push(Token::Deep),
                        Some(_) if slash => tokens.extend([Token::Skip(3), Token::Deep, Token::Char('/')]),
                        Some(_) => tokens.push(Token::Deep),
                    }
                    certain = tokens.len();
                }
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(class(&mut chars).ok_or_else(bad)?),
                '\\' => tokens.push(Token::Char(chars.next().ok_or_else(bad)?)),
                c => tokens.push(Token::Char(c)),
            }
        }
        let prefix: String = tokens.iter().map_while(Token::text).collect();
        let mut suffix: Vec<char> = tokens[certain..].iter().rev().map_while(Token::text).collect();
        suffix.reverse();
        let literal = tokens.iter().all(|token| token.text().is_some());
        Ok(Self { tokens, prefix, suffix: suffix.into_iter().collect(), literal })
    }

    /// The last byte of every path that fits, where it is always the same.
    pub(crate) fn last_byte(&self) -> Option<u8> {
        self.suffix.as_bytes().last().copied()
    }

    /// Whether the whole path fits.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.literal {
            return path == self.prefix;
        }
        path.starts_with(&self.prefix)
            && path.ends_with(&self.suffix)
            && self.run(path.chars()).is_some_and(|states| states[self.tokens.len()])
    }

    /// Whether something below this directory could fit.
    pub(crate) fn may_match_below(&self, directory: &str) -> bool {
        let shorter = directory.len().min(self.prefix.len());
        directory.as_bytes()[..shorter] == self.prefix.as_bytes()[..shorter]
            && self.run(directory.chars().chain(['/'])).is_some()
    }

    /// The live states behind `text`; `None` when none is left.
    fn run(&self, text: impl Iterator<Item = char>) -> Option<Vec<bool>> {
        let mut states = vec![false; self.tokens.len() + 1];
        let mut next = states.clone();
        self.enter(&mut states, 0);
        for c in text {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
                match token {
                    Token::Char(wanted) if *wanted == c => self.enter(&mut next, at + 1),
                    Token::One if c != '/' => self.enter(&mut next, at + 1),
                    Token::Star if c != '/' => self.enter(&mut next, at),
                    Token::Deep => self.enter(&mut next, at),
                    Token::Class { ranges, negated } if c != '/' => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        if inside != *negated {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    _ => {}
                }
            }
            if !next.contains(&true) {
                return None;
            }
            std::mem::swap(&mut states, &mut next);
        }
        Some(states)
    }

    /// Marks a state and those reached from it without a character.
    fn enter(&self, states: &mut [bool], at: usize) {
        if std::mem::replace(&mut states[at], true) {
            return;
        }
        match self.tokens.get(at) {
            Some(Token::Star | Token::Deep) => self.enter(states, at + 1),
            Some(Token::Skip(n)) => {
                self.enter(states, at + 1);
                self.enter(states, at + n);
            }
            _ => {}
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { ranges, negated });
        }
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Whether a text has a character that means something in a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go_and_docker() {
        let rows = [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/bc", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/x/y/c", true),
            ("a/**/c", "a/xc", false),
            ("**/*.go", "x/y.go", true),
            ("a**b", "a/x/b", true),
            ("", "", true),
            ("a[b", "ab", false),
            ("a/**/bc", "a/bc", true),
            ("a/**/bc", "a/xbc", false),
            ("**/bc", "bc", true),
            ("ab*ab", "ab", false),
            ("ab*ab", "abab", true),
            ("ab**ab", "aba", false),
        ];
        for (pattern, path, wanted) in rows {
            let found = Glob::new(pattern, true).is_ok_and(|glob| glob.matches(path));
            assert_eq!(found, wanted, "{pattern} {path}");
        }
        assert!(!Glob::new("**", false).unwrap().matches("a/b"), "shallow: two stars are one");
        for bad in ["[", "[]", "[a", "[-]", "a\\", "[a-]"] {
            assert!(Glob::new(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn directories_are_entered_only_when_something_may_match_below() {
        let rows = [
            ("a/b", "a", true),
            ("a/b", "c", false),
            ("**/x", "c/d", true),
            ("a/*/c", "a/b", true),
            ("a", "a", false),
        ];
        for (pattern, directory, wanted) in rows {
            assert_eq!(
                Glob::new(pattern, true).unwrap().may_match_below(directory),
                wanted,
                "{pattern} {directory}"
            );
        }
    }

    #[test]
    fn hostile_patterns_take_linear_time() {
        let glob = Glob::new(&"*a".repeat(2_000), true).unwrap();
        assert!(!glob.matches(&"b".repeat(1_000)));
    }
}
