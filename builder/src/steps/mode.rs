//! PURE: `--chmod`, octal or symbolic.

/// What `--chmod` makes of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeRule {
    /// These bits.
    Set(u32),
    /// These changes, in order.
    Change(Vec<Clause>),
}

/// `who op permissions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

impl ModeRule {
    /// Reads `0755` or `u=rwX,go-w`; `None` when it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.chars().all(|c| c.is_digit(8)) && !text.is_empty() {
            let bits = u32::from_str_radix(text, 8).ok()?;
            return (bits <= 0o7777).then_some(Self::Set(bits));
        }
        text.split(',').map(Clause::parse).collect::<Option<_>>().map(Self::Change)
    }

    /// The new bits of something with these bits.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Set(bits) => *bits,
            Self::Change(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['=', '+', '-'])?;
        let mut who = 0;
        for class in text[..at].chars() {
            who |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let permissions = &text[at + 1..];
        let known =
            permissions.chars().all(|c| "rwxXst".contains(c)) || matches!(permissions, "u" | "g" | "o");
        known.then(|| Self {
            who: if who == 0 { 0o7777 } else { who },
            operator: text.as_bytes()[at] as char,
            permissions: permissions.to_owned(),
        })
    }

    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let copied = |shift: u32| ((mode >> shift) & 7) * 0o111;
        let mut bits = match self.permissions.as_str() {
            "u" => copied(6),
            "g" => copied(3),
            "o" => copied(0),
            _ => 0,
        };
        for permission in self.permissions.chars() {
            bits |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_directory || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                _ => 0,
            };
        }
        match self.operator {
            '+' => mode | (bits & self.who),
            '-' => mode & !(bits & self.who),
            // Without s and t, those of a directory stay.
            _ => (mode & !(self.who & 0o777)) | (bits & self.who),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_chmod() {
        let rows = [
            ("755", 0o600, false, Some(0o755)),
            ("4755", 0o600, false, Some(0o4755)),
            ("u=rwX,go=rX", 0o600, false, Some(0o644)),
            ("u=rwX,go=rX", 0o700, false, Some(0o755)),
            ("u=rwX,go=rX", 0o600, true, Some(0o755)),
            ("+x", 0o644, false, Some(0o755)),
            ("go-rwx", 0o755, false, Some(0o700)),
            ("a+r,u+s", 0o700, false, Some(0o4744)),
            ("g=u", 0o640, false, Some(0o660)),
            ("o+t", 0o777, true, Some(0o1777)),
            ("", 0, false, None),
            ("888", 0, false, None),
            ("u=q", 0, false, None),
            ("77777", 0, false, None),
        ];
        for (text, mode, is_directory, wanted) in rows {
            assert_eq!(
                ModeRule::parse(text).map(|rule| rule.apply(mode, is_directory)),
                wanted,
                "{text} {mode:o}"
            );
        }
    }
}
