//! Version 2's form of the rules: a BPF program that the kernel asks at each open and mknod of a device
//! (linux/bpf.h, `BPF_PROG_TYPE_CGROUP_DEVICE`). It returns 1 to allow, 0 to deny.
//!
//! The rules are asked from the last to the first: an allow rule takes its accesses off the list of what is still to be
//! allowed, a deny rule that meets one of those ends it.

use super::{Kind, Rule};

const RESULT: u64 = 0;
const CONTEXT: u64 = 1;
const TYPE: u64 = 2;
const ACCESS: u64 = 3;
const MAJOR: u64 = 4;
const MINOR: u64 = 5;

const LOAD_WORD: u64 = 0x61;
const MOVE: u64 = 0xb7;
const MOVE_REGISTER: u64 = 0xbf;
const AND: u64 = 0x57;
const SHIFT_RIGHT: u64 = 0x77;
const JUMP: u64 = 0x05;
/// Comparisons of 32 bits: a device number above 2^31 would be extended by its sign.
const JUMP_NOT_EQUAL: u64 = 0x56;
const JUMP_IF_SET: u64 = 0x46;
const EXIT: u64 = 0x95;

const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// Assembles the program.
pub(crate) fn assemble(rules: &[Rule]) -> Vec<u64> {
    let mut program = vec![
        from_context(TYPE, 0),
        instruction(MOVE_REGISTER, ACCESS, TYPE, 0, 0),
        operate(AND, TYPE, 0xffff),
        operate(SHIFT_RIGHT, ACCESS, 16),
        from_context(MAJOR, 4),
        from_context(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if rule.is_total() {
            // What is left after it cannot be reached, and the kernel refuses such programs.
            program.extend(answer(rule.allow));
            return program;
        }
        let verdict = verdict(rule);
        let tests = tests(rule);
        for (number, (register, value)) in tests.iter().enumerate() {
            let skip = tests.len() - number - 1 + verdict.len();
            program.push(jump(JUMP_NOT_EQUAL, *register, *value, skip));
        }
        program.extend(verdict);
    }
    program.extend(answer(false));
    program
}

/// What the rule compares: (register, value).
fn tests(rule: &Rule) -> Vec<(u64, u32)> {
    let kind = rule.kind.map(|kind| match kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    });
    let all = [(TYPE, kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    all.into_iter().filter_map(|(register, value)| Some((register, value?))).collect()
}

/// What happens when the rule's device is meant.
fn verdict(rule: &Rule) -> Vec<u64> {
    let bits = u32::from(rule.access.bits());
    let end = answer(rule.allow);
    let mut code = if rule.allow {
        vec![operate(AND, ACCESS, !bits & 7), jump(JUMP_NOT_EQUAL, ACCESS, 0, end.len())]
    } else {
        vec![jump(JUMP_IF_SET, ACCESS, bits, 1), jump(JUMP, 0, 0, end.len())]
    };
    code.extend(end);
    code
}

fn answer(allow: bool) -> [u64; 2] {
    [operate(MOVE, RESULT, allow.into()), instruction(EXIT, 0, 0, 0, 0)]
}

/// Loads a word of the context: type and access, major, minor.
fn from_context(register: u64, offset: u16) -> u64 {
    instruction(LOAD_WORD, register, CONTEXT, offset, 0)
}

fn operate(code: u64, register: u64, value: u32) -> u64 {
    instruction(code, register, 0, 0, value)
}

fn jump(code: u64, register: u64, value: u32, skip: usize) -> u64 {
    instruction(code, register, 0, skip as u16, value)
}

/// `struct bpf_insn` as the little-endian number that the kernel reads.
fn instruction(code: u64, to: u64, from: u64, offset: u16, value: u32) -> u64 {
    code | to << 8 | from << 12 | u64::from(offset) << 16 | u64::from(value) << 32
}
