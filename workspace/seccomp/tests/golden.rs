//! The program of a small profile, instruction by instruction.

mod common;

use common::filter;
use hull_seccomp::{Arch, Instruction};
use serde_json::json;

/// Writes a program as text, a line for each instruction; jumps name the line they go to.
fn listing(program: &[Instruction]) -> String {
    let line = |(at, one): (usize, &Instruction)| {
        let jump = |how| {
            let (yes, no) = (at + 1 + usize::from(one.jt), at + 1 + usize::from(one.jf));
            format!("if {how} {:#x} then {yes} else {no}", one.k)
        };
        let text = match one.code {
            0x20 => format!("load {}", one.k),
            0x54 => format!("and {:#x}", one.k),
            0x05 => format!("go to {}", at + 1 + one.k as usize),
            0x15 => jump("=="),
            0x25 => jump(">"),
            0x35 => jump(">="),
            0x06 => format!("answer {:#x}", one.k),
            other => format!("unknown {other:#x}"),
        };
        format!("{at} {text}\n")
    };
    program.iter().enumerate().map(line).collect()
}

#[test]
fn small_profile_on_two_abis() {
    let filter = filter(
        Arch::X86_64,
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
               "syscalls": [
            {"names": ["read", "write", "open", "close", "exit_group"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}),
    );
    assert_eq!(listing(&filter.program), include_str!("golden/small.txt"));
}
