//! Conditions on arguments become instructions.

use crate::{
    assemble::{Assembler, Compare, Label},
    rules::{CallRules, Condition, Operator},
};

/// Offset of the first argument in `struct seccomp_data`.
const ARGUMENTS: u32 = 16;

/// Writes the rules of one call, tried in their order; `otherwise` is where a call goes that none matches.
pub(crate) fn rules(code: &mut Assembler, call: &CallRules, wide: bool, otherwise: Label) -> Label {
    if let Some(action) = call.always {
        return code.answer(action);
    }
    call.rules.iter().rev().fold(otherwise, |next, rule| {
        let matched = code.answer(rule.action);
        rule.conditions
            .iter()
            .rev()
            .fold(matched, |holds, condition| self::condition(code, condition, wide, holds, next))
    })
}

/// Writes one condition; `wide` compares 64 bits, else the low words.
fn condition(code: &mut Assembler, condition: &Condition, wide: bool, yes: Label, no: Label) -> Label {
    let all = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let value = condition.value & all;
    let word = Words { offset: ARGUMENTS + 8 * u32::from(condition.argument), wide };
    match condition.operator {
        Operator::Equal => word.equal(code, all, value, yes, no),
        Operator::NotEqual => word.equal(code, all, value, no, yes),
        Operator::MaskedEqual(mask) => word.equal(code, mask & all, value & mask, yes, no),
        Operator::Above => word.above(code, value, yes, no),
        Operator::AtMost => word.above(code, value, no, yes),
        // At least n is above n - 1; everything is at least 0.
        Operator::AtLeast => value.checked_sub(1).map_or(yes, |below| word.above(code, below, yes, no)),
        Operator::Below => value.checked_sub(1).map_or(no, |below| word.above(code, below, no, yes)),
    }
}

/// The place of an argument, whose words are little-endian on every ABI hull knows.
#[derive(Clone, Copy)]
struct Words {
    offset: u32,
    wide: bool,
}

impl Words {
    fn equal(self, code: &mut Assembler, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let (mask_high, mask_low) = split(mask);
        let (high, low) = split(value);
        let rest = masked_equal(code, self.offset, mask_low, low, yes, no);
        if !self.wide {
            return rest;
        }
        masked_equal(code, self.offset + 4, mask_high, high, rest, no)
    }

    fn above(self, code: &mut Assembler, value: u64, yes: Label, no: Label) -> Label {
        let (high, low) = split(value);
        let low_above = code.branch(Compare::Above, low, yes, no);
        let rest = code.load(self.offset, low_above);
        if !self.wide {
            return rest;
        }
        let equal = code.branch(Compare::Equal, high, rest, no);
        let above = code.branch(Compare::Above, high, yes, equal);
        code.load(self.offset + 4, above)
    }
}

/// Compares the bits `mask` of the word at `offset` with `value`; without bits to compare there is nothing to write.
fn masked_equal(code: &mut Assembler, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
    if mask == 0 || yes == no {
        return yes;
    }
    let mut next = code.branch(Compare::Equal, value, yes, no);
    if mask != u32::MAX {
        next = code.and(mask, next);
    }
    code.load(offset, next)
}

/// Splits into the high and the low word.
fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, (value & 0xffff_ffff) as u32)
}
