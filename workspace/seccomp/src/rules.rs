//! What a profile says about each call, resolved: the input of the code generator.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{calls::CallId, words::stricter};

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Above,
    AtLeast,
    Below,
    AtMost,
    /// Only the bits of this mask are compared.
    MaskedEqual(u64),
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u8,
    pub(crate) operator: Operator,
    pub(crate) value: u64,
}

/// An action for the calls that meet all `conditions`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: u32,
}

/// Everything about one call; the default action holds when no rule matches.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct CallRules {
    /// The action that holds whatever the arguments; then `rules` has no effect.
    pub(crate) always: Option<u32>,
    /// Tried in this order.
    pub(crate) rules: Vec<Rule>,
}

impl CallRules {
    /// Returns the strictest action that a call can meet.
    pub(crate) fn strictest(&self, default: u32) -> u32 {
        match self.always {
            Some(action) => action,
            None => self.rules.iter().fold(default, |strictest, rule| stricter(strictest, rule.action)),
        }
    }
}

/// A whole profile, resolved.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) default: u32,
    /// The calls that have a rule.
    pub(crate) calls: BTreeMap<CallId, CallRules>,
    /// Every known call the profile names, those whose rules were dropped too.
    pub(crate) named: Vec<CallId>,
}
