//! Version 1's form of the rules: a default and its exceptions (devices.rst), and the way from one to another.

use super::{Access, Kind, Rule};

/// What happens by default, and the devices for which the opposite holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    allow: bool,
    exceptions: Vec<Rule>,
}

/// A rule would need an exception of an exception.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hole;

impl Policy {
    pub fn deny_all() -> Self {
        Self { allow: false, exceptions: Vec::new() }
    }

    /// Adds a later rule.
    ///
    /// # Errors
    /// It takes a part out of a wider exception; nothing is changed then.
    pub fn apply(&mut self, rule: &Rule) -> Result<(), Hole> {
        if rule.is_total() {
            *self = Self { allow: rule.allow, exceptions: Vec::new() };
            return Ok(());
        }
        let kinds = rule.kind.map_or(vec![Kind::Block, Kind::Character], |kind| vec![kind]);
        let mut after = self.clone();
        for kind in kinds {
            let rule = Rule { kind: Some(kind), ..*rule };
            if rule.allow == self.allow { after.take_back(&rule)? } else { after.except(rule) }
        }
        *self = after;
        Ok(())
    }

    /// Adds an exception, to the one of the same devices if there is one.
    fn except(&mut self, rule: Rule) {
        match self.exceptions.iter_mut().find(|known| same_devices(known, &rule)) {
            Some(known) => known.access = Access(known.access.0 | rule.access.0),
            None => self.exceptions.push(rule),
        }
    }

    /// Takes accesses out of the exceptions that `rule` covers.
    fn take_back(&mut self, rule: &Rule) -> Result<(), Hole> {
        for exception in &mut self.exceptions {
            let shared = exception.access.0 & rule.access.0;
            if shared == 0 || !overlap(exception, rule) {
                continue;
            }
            if !covers(rule, exception) {
                return Err(Hole);
            }
            exception.access = Access(exception.access.0 & !shared);
        }
        self.exceptions.retain(|exception| exception.access.0 != 0);
        Ok(())
    }

    /// The writes, as (file, value), that lead to this policy. `current` is the text of `devices.list`; without it the
    /// group is new and what it inherited counts for nothing.
    pub fn transition(&self, current: Option<&str>) -> Vec<(&'static str, String)> {
        match current.and_then(denying_list) {
            Some(known) if !self.allow => self.difference(&known),
            _ => self.whole(),
        }
    }

    /// Resets, then lists: for the moment between, the default alone holds.
    fn whole(&self) -> Vec<(&'static str, String)> {
        let (same, opposite) = files(self.allow);
        let reset = (same, "a".to_owned());
        std::iter::once(reset).chain(self.exceptions.iter().map(|rule| (opposite, text(rule)))).collect()
    }

    /// Allows what is new, then denies what is left over: what both allow is allowed all the time.
    fn difference(&self, known: &[Rule]) -> Vec<(&'static str, String)> {
        let without = |rules: &[Rule], others: &[Rule]| -> Vec<String> {
            let left = rules.iter().map(|rule| {
                let other =
                    others.iter().find(|other| same_devices(other, rule)).map_or(0, |other| other.access.0);
                Rule { access: Access(rule.access.0 & !other), ..*rule }
            });
            left.filter(|rule| rule.access.0 != 0).map(|rule| text(&rule)).collect()
        };
        let allow = without(&self.exceptions, known).into_iter().map(|text| ("devices.allow", text));
        let deny = without(known, &self.exceptions).into_iter().map(|text| ("devices.deny", text));
        allow.chain(deny).collect()
    }
}

/// The file that makes `allow` the default, and the one that lists exceptions of it.
fn files(allow: bool) -> (&'static str, &'static str) {
    if allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") }
}

/// Reads `devices.list`; `None` for a group that allows by default, as its exceptions are not shown.
fn denying_list(list: &str) -> Option<Vec<Rule>> {
    list.lines().map(parse).collect()
}

fn parse(line: &str) -> Option<Rule> {
    let (kind, rest) = line.split_once(' ')?;
    let (numbers, access) = rest.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let kind = match kind {
        "b" => Kind::Block,
        "c" => Kind::Character,
        _ => return None,
    };
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let (major, minor) = (number(major)?, number(minor)?);
    Some(Rule { allow: true, kind: Some(kind), major, minor, access: Access::parse(access)? })
}

/// The kernel's form of a rule, as in `c 1:3 rwm`.
fn text(rule: &Rule) -> String {
    let kind = match rule.kind {
        Some(Kind::Block) => 'b',
        Some(Kind::Character) => 'c',
        None => 'a',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access.letters())
}

fn same_devices(a: &Rule, b: &Rule) -> bool {
    (a.kind, a.major, a.minor) == (b.kind, b.major, b.minor)
}

fn overlap(a: &Rule, b: &Rule) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    a.kind == b.kind && meet(a.major, b.major) && meet(a.minor, b.minor)
}

fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let holds = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
    holds(wide.major, narrow.major) && holds(wide.minor, narrow.minor)
}
