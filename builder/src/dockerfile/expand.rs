//! Word expansion: quotes, escapes, `$name` and every `${...}` form of the Dockerfile's own rules (not a shell's).

use super::pattern::Pattern;

/// What happens to quotes and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They do their work and go.
    Drop,
    /// They do their work and stay in the text.
    Keep,
    /// They are text like any other, as in the lines of a heredoc; escapes go.
    Text,
}

/// Reads words by the rules of one Dockerfile.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The escape character.
    pub escape: char,
    /// Whether quotes stay.
    pub quotes: Quotes,
}

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The text split at unquoted blanks.
    pub words: Vec<String>,
    /// Names that were looked up plainly and not found.
    pub undefined: Vec<String>,
}

/// How deep `${a:-${b:-...}}` may nest.
const MAX_DEPTH: usize = 100;

impl Lexer {
    /// A lexer that drops quotes.
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Drop }
    }

    /// Expands the variables of `text`; the error is a lower-case fragment.
    pub fn expand(&self, text: &str, lookup: Lookup<'_>) -> Result<Expanded, String> {
        self.walk(text, Some(lookup))
    }

    /// Splits `text` at unquoted blanks; a dollar sign is an ordinary character.
    pub fn split(&self, text: &str) -> Result<Vec<String>, String> {
        Ok(self.walk(text, None)?.words)
    }

    /// Takes quotes and escapes away; a dollar sign is an ordinary character.
    pub fn plain(&self, text: &str) -> Result<String, String> {
        Ok(self.walk(text, None)?.text)
    }

    fn walk(&self, text: &str, lookup: Option<Lookup<'_>>) -> Result<Expanded, String> {
        let chars = text.chars().collect();
        let mut walk = Walk { lexer: *self, chars, at: 0, lookup, undefined: Vec::new(), depth: 0 };
        let piece = walk.until(None, false)?;
        Ok(Expanded { text: piece.text, words: piece.words.finish(), undefined: walk.undefined })
    }
}

/// The text read so far and the same text as words.
#[derive(Default)]
struct Piece {
    text: String,
    words: Words,
}

impl Piece {
    /// A character that ends a word when it is a blank.
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.words.push(c);
    }

    /// Quoted text: blanks in it end nothing.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.words.push_quoted(text);
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    open: Option<String>,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.done.extend(self.open.take());
        } else {
            self.open.get_or_insert_default().push(c);
        }
    }

    fn push_quoted(&mut self, text: &str) {
        self.open.get_or_insert_default().push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        self.done.extend(self.open.take());
        self.done
    }
}

struct Walk<'a> {
    lexer: Lexer,
    chars: Vec<char>,
    at: usize,
    lookup: Option<Lookup<'a>>,
    undefined: Vec<String>,
    depth: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads up to `stop` (taken, not kept) or, without one, to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Piece, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("substitutions nest deeper than {MAX_DEPTH}"));
        }
        let mut piece = Piece::default();
        let keep_escapes = keep_escapes || self.lexer.quotes == Quotes::Keep;
        let has_quotes = self.lexer.quotes != Quotes::Text;
        while let Some(c) = self.next() {
            match c {
                _ if Some(c) == stop => {
                    self.depth -= 1;
                    return Ok(piece);
                }
                '\'' if has_quotes => self.single_quoted(&mut piece)?,
                '"' if has_quotes => self.double_quoted(&mut piece, keep_escapes)?,
                '$' if self.lookup.is_some() => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| piece.push(c));
                }
                _ if c == self.lexer.escape => {
                    if keep_escapes {
                        piece.push_quoted(&c.to_string());
                    }
                    if let Some(escaped) = self.next() {
                        piece.push_quoted(&escaped.to_string());
                    }
                }
                _ => piece.push(c),
            }
        }
        self.depth -= 1;
        match stop {
            None => Ok(piece),
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
        }
    }

    fn single_quoted(&mut self, piece: &mut Piece) -> Result<(), String> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        piece.push_quoted(&self.quoted('\'', text));
        Ok(())
    }

    fn double_quoted(&mut self, piece: &mut Piece, keep_escapes: bool) -> Result<(), String> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
                Some('"') => break,
                Some('$') if self.lookup.is_some() => text.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => {
                    let special = self.peek().filter(|next| matches!(next, '"' | '$') || *next == c);
                    // Only these three can be escaped here; before anything else the escape is itself.
                    if keep_escapes || special.is_none() {
                        text.push(c);
                    }
                    if special.is_some() {
                        text.extend(self.next());
                    }
                }
                Some(c) => text.push(c),
            }
        }
        piece.push_quoted(&self.quoted('"', text));
        Ok(())
    }

    fn quoted(&self, quote: char, text: String) -> String {
        match self.lexer.quotes {
            Quotes::Drop | Quotes::Text => text,
            Quotes::Keep => format!("{quote}{text}{quote}"),
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(self.value_or_note(&name));
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(self.value_or_note(&name)),
            Some(':') => match self.next() {
                Some(c @ ('-' | '+' | '?')) => self.defaulted(&name, c, true),
                Some(c) => Err(unsupported(&format!(":{c}"))),
                None => Err("syntax error: missing '}'".into()),
            },
            Some(c @ ('-' | '+' | '?')) => self.defaulted(&name, c, false),
            Some(c @ ('#' | '%')) => self.trimmed(&name, c),
            Some('/') => self.replaced(&name),
            Some(c) => Err(unsupported(&c.to_string())),
            None => Err("syntax error: missing '}'".into()),
        }
    }

    /// A name: letters, digits and underscores; a number; or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.peek() else { return name };
        if first.is_ascii_digit() {
            while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                name.push(c);
                self.at += 1;
            }
            return name;
        }
        if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.at += 1;
            return first.to_string();
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        self.lookup.and_then(|lookup| lookup(name))
    }

    fn value_or_note(&mut self, name: &str) -> String {
        self.value(name).unwrap_or_else(|| {
            self.undefined.push(name.to_owned());
            String::new()
        })
    }

    fn defaulted(&mut self, name: &str, kind: char, empty_is_unset: bool) -> Result<String, String> {
        let word = self.argument()?;
        let value = self.value(name).filter(|value| !(empty_is_unset && value.is_empty()));
        match (kind, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name}: is not allowed to be unset")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    fn argument(&mut self) -> Result<String, String> {
        self.until(Some('}'), false).map(|piece| piece.text).map_err(missing_brace)
    }

    fn trimmed(&mut self, name: &str, end: char) -> Result<String, String> {
        let longest = self.peek() == Some(end);
        if longest {
            self.at += 1;
        }
        let word = self.until(Some('}'), true).map_err(missing_brace)?.text;
        let value = self.value_or_note(name);
        let pattern = Pattern::new(&word, self.lexer.escape);
        Ok(match end {
            '#' => pattern.trim_prefix(&value, longest),
            _ => pattern.trim_suffix(&value, longest),
        })
    }

    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let word = self.until(Some('/'), true).map_err(missing_brace)?.text;
        let replacement = self.argument()?;
        let value = self.value_or_note(name);
        Ok(Pattern::new(&word, self.lexer.escape).replace(&value, &replacement, all))
    }
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn missing_brace(error: String) -> String {
    if error.ends_with('}') || error.ends_with('/') { "syntax error: missing '}'".into() } else { error }
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
