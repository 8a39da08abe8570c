//! The little patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` any text, `?` one character, an escape quotes.

enum Part {
    Any,
    One,
    Char(char),
}

/// One pattern.
pub(super) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    pub(super) fn new(text: &str, escape: char) -> Self {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Any,
                '?' => Part::One,
                c if c == escape => Part::Char(chars.next().unwrap_or(c)),
                c => Part::Char(c),
            });
        }
        Self { parts }
    }

    /// Whether the whole of `text` fits: one pass with one place to come back to.
    fn fits(&self, text: &[char]) -> bool {
        let (mut part, mut at, mut back) = (0, 0, None);
        while at < text.len() {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    back = Some((part, at));
                    part += 1;
                    continue;
                }
                Some(Part::One) => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                Some(Part::Char(c)) if *c == text[at] => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                _ => {}
            }
            let Some((star, from)) = back else { return false };
            back = Some((star, from + 1));
            (part, at) = (star + 1, from + 1);
        }
        self.parts[part..].iter().all(|part| matches!(part, Part::Any))
    }

    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        let cut = first_fit(0..=text.len(), longest, |end| self.fits(&text[..end]));
        text[cut.unwrap_or(0)..].iter().collect()
    }

    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        // The longest suffix begins first.
        let cut = first_fit(0..=text.len(), !longest, |start| self.fits(&text[start..]));
        text[..cut.unwrap_or(text.len())].iter().collect()
    }

    /// Replaces the first or every longest match.
    pub(super) fn replace(&self, value: &str, with: &str, all: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at <= text.len() {
            let end =
                if done { None } else { first_fit(at..=text.len(), true, |end| self.fits(&text[at..end])) };
            match end {
                Some(end) => {
                    out.push_str(with);
                    done = !all;
                    if end == at {
                        out.extend(text.get(at));
                    }
                    at = end.max(at + 1);
                    if at >= text.len() && end > 0 {
                        break;
                    }
                }
                None => {
                    out.extend(text.get(at));
                    at += 1;
                }
            }
        }
        out
    }
}

fn first_fit(
    mut places: std::ops::RangeInclusive<usize>,
    from_the_end: bool,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    if from_the_end { places.rev().find(|place| fits(*place)) } else { places.find(|place| fits(*place)) }
}
