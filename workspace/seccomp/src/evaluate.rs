//! What a program answers, without a kernel.

use crate::{
    assemble::{AND, Instruction, JUMP, JUMP_ABOVE, JUMP_AT_LEAST, JUMP_BITS, JUMP_EQUAL, LOAD, RETURN},
    words::KILL_THREAD,
};

/// Interprets `program` for one call and returns the action word.
///
/// A program that the kernel would not take (it jumps past its end, or has an operation that hull never writes) answers
/// [`KILL_THREAD`]; it always ends, since jumps only go forward.
pub fn evaluate(program: &[Instruction], arch: u32, number: u32, args: &[u64; 6]) -> u32 {
    let mut loaded = 0;
    let mut at = 0;
    while let Some(instruction) = program.get(at) {
        let k = instruction.k;
        let holds = match instruction.code {
            RETURN => return k,
            LOAD => {
                loaded = word(arch, number, args, k);
                None
            }
            AND => {
                loaded &= k;
                None
            }
            JUMP => {
                at = at.saturating_add(k as usize);
                None
            }
            JUMP_EQUAL => Some(loaded == k),
            JUMP_ABOVE => Some(loaded > k),
            JUMP_AT_LEAST => Some(loaded >= k),
            JUMP_BITS => Some(loaded & k != 0),
            _ => return KILL_THREAD,
        };
        at = at.saturating_add(1);
        if let Some(holds) = holds {
            at += usize::from(if holds { instruction.jt } else { instruction.jf });
        }
    }
    KILL_THREAD
}

/// Returns the word at `offset` of `struct seccomp_data`, little-endian; the instruction pointer is 0.
fn word(arch: u32, number: u32, args: &[u64; 6], offset: u32) -> u32 {
    match offset {
        0 => number,
        4 => arch,
        16..64 => {
            let arg = args[(offset as usize - 16) / 8];
            let half = if offset.is_multiple_of(8) { arg } else { arg >> 32 };
            (half & 0xffff_ffff) as u32
        }
        _ => 0,
    }
}
