//! Writes a BPF program from its end to its start.
//!
//! Classic BPF only jumps forward, so an instruction is written after everything it can lead to. A conditional jump
//! reaches 255 instructions; where a target is farther away, a copy of its return or an unconditional jump to it is put
//! near first. So every program that fits the kernel's limit can be written.

use alloc::{collections::BTreeMap, vec::Vec};

/// One instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped when the comparison holds.
    pub jt: u8,
    /// Instructions skipped when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `A = seccomp_data[k]`, 32 bits.
pub(crate) const LOAD: u16 = 0x20;
/// `A &= k`.
pub(crate) const AND: u16 = 0x54;
/// `pc += k`.
pub(crate) const JUMP: u16 = 0x05;
/// `A == k`.
pub(crate) const JUMP_EQUAL: u16 = 0x15;
/// `A > k`.
pub(crate) const JUMP_ABOVE: u16 = 0x25;
/// `A >= k`.
pub(crate) const JUMP_AT_LEAST: u16 = 0x35;
/// `A & k`.
pub(crate) const JUMP_BITS: u16 = 0x45;
/// The program's answer is `k`.
pub(crate) const RETURN: u16 = 0x06;

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Label(usize);

/// How a conditional jump compares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    Equal,
    Above,
    AtLeast,
}

/// The farthest target of a conditional jump, less the instructions that may be put between.
const REACH: usize = 253;

/// The part of a program written so far, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<Instruction>,
    answers: BTreeMap<u32, Label>,
    /// The nearest stand-in for a target that was out of reach.
    stand_ins: BTreeMap<Label, Label>,
}

impl Assembler {
    /// Returns the place that answers `action`.
    pub(crate) fn answer(&mut self, action: u32) -> Label {
        if let Some(label) = self.answers.get(&action) {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, action);
        self.answers.insert(action, label);
        label
    }

    /// Loads the word at `offset` of `struct seccomp_data`, then goes on at `next`.
    pub(crate) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Keeps the bits in `bits` of the loaded word, then goes on at `next`.
    pub(crate) fn and(&mut self, bits: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(AND, 0, 0, bits)
    }

    /// Goes on at `yes` if the loaded word compares so with `value`, else at `no`.
    pub(crate) fn branch(&mut self, compare: Compare, value: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let code = match compare {
            Compare::Equal => JUMP_EQUAL,
            Compare::Above => JUMP_ABOVE,
            Compare::AtLeast => JUMP_AT_LEAST,
        };
        let (jt, jf) = (self.skip(yes), self.skip(no));
        self.push(code, jt, jf, value)
    }

    /// Returns the program that starts at `entry`.
    pub(crate) fn finish(mut self, entry: Label) -> Vec<Instruction> {
        self.fall_into(entry);
        self.reversed.reverse();
        self.reversed
    }

    /// Makes sure that the instruction written next is followed by what `next` does.
    fn fall_into(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.repeat(next);
        }
    }

    /// Returns a place within reach that does what `target` does.
    fn near(&mut self, target: Label) -> Label {
        let known = self.stand_ins.get(&target).copied().unwrap_or(target);
        if self.distance(known) <= REACH {
            return known;
        }
        let label = self.repeat(target);
        self.stand_ins.insert(target, label);
        label
    }

    /// Writes one instruction that does what `target` does.
    fn repeat(&mut self, target: Label) -> Label {
        let there = self.reversed[target.0];
        if there.code == RETURN {
            return self.push(RETURN, 0, 0, there.k);
        }
        let distance =
            u32::try_from(self.distance(target)).expect("a program has fewer than 2^32 instructions");
        self.push(JUMP, 0, 0, distance)
    }

    /// Counts the instructions between the one written next and `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    fn skip(&self, target: Label) -> u8 {
        u8::try_from(self.distance(target)).expect("near() keeps targets within reach")
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}
