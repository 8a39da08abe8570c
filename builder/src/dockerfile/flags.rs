//! The `--flags` of one instruction: each asked for by name, the rest refused.

use super::diagnostic::{Diagnostic, Span, did_you_mean};

pub(super) struct Flags {
    span: Span,
    left: Vec<(String, Option<String>)>,
    asked: Vec<String>,
}

impl Flags {
    pub(super) fn new(span: Span, words: Vec<String>) -> Self {
        let cut = |word: String| {
            let word = word.trim_start_matches('-');
            match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }
        };
        Self { span, left: words.into_iter().map(cut).collect(), asked: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn take(&mut self, name: &str) -> Vec<Option<String>> {
        self.asked.push(name.to_owned());
        let (mine, others) = std::mem::take(&mut self.left).into_iter().partition(|(known, _)| known == name);
        self.left = others;
        let mine: Vec<(String, Option<String>)> = mine;
        mine.into_iter().map(|(_, value)| value).collect()
    }

    /// Every value of a flag that may be repeated.
    pub(super) fn all(&mut self, name: &str) -> Result<Vec<String>, Diagnostic> {
        let span = self.span;
        let missing =
            || Diagnostic::new(span, format!("missing a value on flag: {name}")).at(format!("--{name}"));
        self.take(name).into_iter().map(|value| value.ok_or_else(missing)).collect()
    }

    /// The value of a flag given once at most.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, Diagnostic> {
        let mut values = self.all(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(self.duplicate(name)),
        }
    }

    /// A flag that is on, off or absent.
    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, Diagnostic> {
        let mut values = self.take(name);
        if values.len() > 1 {
            return Err(self.duplicate(name));
        }
        match values.pop().map(|value| value.map(|text| text.to_ascii_lowercase())) {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(text)) => match text.as_str() {
                "true" | "1" | "t" => Ok(Some(true)),
                "false" | "0" | "f" => Ok(Some(false)),
                _ => {
                    let message = format!("expecting a boolean value for flag {name}, not: {text}");
                    Err(Diagnostic::new(self.span, message).at(text))
                }
            },
        }
    }

    fn duplicate(&self, name: &str) -> Diagnostic {
        Diagnostic::new(self.span, format!("duplicate flag specified: {name}")).at(format!("--{name}"))
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), Diagnostic> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let hint =
            did_you_mean(name, self.asked.iter().map(String::as_str)).map(|hint| hint.replace('`', "`--"));
        let hint = hint.map(|hint| hint.replacen("`--?", "`?", 1));
        Err(Diagnostic::new(self.span, format!("unknown flag: --{name}")).at(format!("--{name}")).hint(hint))
    }
}
