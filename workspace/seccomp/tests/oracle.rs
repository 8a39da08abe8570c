//! The program against those of other compilers: libseccomp, when the machine has it, and seccompiler.
#![cfg(target_arch = "x86_64")]

mod common;

use common::{chance::Chance, profile};
use hull_seccomp::{Arch, Instruction, compile, evaluate, number_of};
use hull_testkit::{gate, needs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    thread,
};

/// Runs libseccomp over the profiles; nothing when there is none.
fn libseccomp(profiles: &[Value]) -> Option<Vec<Option<Vec<Instruction>>>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libseccomp.py");
    let mut python = Command::new(gate::find("python3")?)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start python3");
    let mut input = python.stdin.take().expect("a pipe");
    let lines: String = profiles.iter().map(|profile| format!("{profile}\n")).collect();
    let writer = thread::spawn(move || drop(input.write_all(lines.as_bytes())));
    let output = python.wait_with_output().expect("wait for python3");
    writer.join().expect("the writer ends");
    if output.status.code() == Some(3) {
        return None;
    }
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("hex");
    Some(text.lines().map(|line| (line != "refused").then(|| instructions(line))).collect())
}

fn instructions(hex: &str) -> Vec<Instruction> {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
    let one = |bytes: &[u8]| Instruction {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    bytes.chunks_exact(8).map(one).collect()
}

/// Returns a profile on which the two have to agree: where rules with conditions overlap, they do the same.
fn profile_without_order(chance: &mut Chance) -> Value {
    let architectures: Vec<&str> =
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"][..=chance.below(3)].to_vec();
    // Multiplexed calls with conditions, calls that 2.5 has no number for, and calls above the profile's newest one
    // differ on purpose. With x32, a call that 64-bit x86 lacks makes libseccomp forget to load the number.
    let with_x32 = architectures.contains(&"SCMP_ARCH_X32");
    let comparable = |name: &str, plain: bool| {
        let multiplexed = ["socket", "bind", "recvmsg", "accept", "semget", "semop", "msgsnd", "shmat"];
        // On 32-bit x86, semop is a call of ipc only: libseccomp drops its rules there.
        !["cachestat", "semop"].contains(&name)
            && (plain || !multiplexed.contains(&name))
            && (!with_x32 || number_of(Arch::X86_64, name).is_some())
    };
    let known = |rule: &Value| {
        let plain = rule["args"].is_null();
        rule["names"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|name| comparable(name.as_str().expect("a name"), plain))
    };
    let (default, action) = chance.one(&[("ALLOW", "TRAP"), ("LOG", "ERRNO"), ("TRACE", "ALLOW")]);
    let action = format!("SCMP_ACT_{action}");
    let syscalls: Vec<Value> = (0..chance.below(12))
        .map(|_| chance.rule(&[&action], 3))
        .map(|mut rule| {
            rule.as_object_mut().expect("an object").remove("errnoRet");
            for arg in rule["args"].as_array_mut().into_iter().flatten() {
                // libseccomp is of two minds about bits outside the mask: it ignores those of the low word only.
                let within =
                    arg["value"].as_u64().zip(arg["valueTwo"].as_u64()).map(|(mask, value)| mask & value);
                arg["valueTwo"] = json!(within);
            }
            rule
        })
        .filter(known)
        .collect();
    json!({"defaultAction": format!("SCMP_ACT_{default}"), "architectures": architectures, "syscalls": syscalls})
}

#[test]
fn answers_are_those_of_libseccomp() {
    needs!(gate::program("python3"));
    let profiles: Vec<Value> = (0..600).map(|seed| profile_without_order(&mut Chance::new(seed))).collect();
    let Some(programs) = libseccomp(&profiles) else {
        gate::skipped("needs libseccomp.so.2");
        return;
    };
    assert_eq!(programs.len(), profiles.len());
    let mut compared = 0;
    for (seed, (json, program)) in profiles.iter().zip(&programs).enumerate() {
        let Some(program) = program else { continue };
        let ours = compile(&profile(json.clone()), Arch::X86_64).unwrap().program;
        let mut chance = Chance::new(u64::try_from(seed).unwrap() + 10_000);
        for _ in 0..100 {
            let (arch, number, args) = chance.call(&[Arch::X86_64, Arch::X86, Arch::X32]);
            if arch == Arch::X86 && number == 117 && args[0] > 0xffff {
                // libseccomp looks at the version in the first argument of ipc, the kernel cuts it off.
                continue;
            }
            assert_eq!(
                format!("{:#x}", evaluate(&ours, arch.audit(), number, &args)),
                format!("{:#x}", evaluate(program, arch.audit(), number, &args)),
                "seed {seed}: {arch:?} {number:#x} {args:x?}\n{json}"
            );
            compared += 1;
        }
    }
    assert!(compared > 40_000, "{compared}");
}

/// Compiles with seccompiler: fails call 8 (`lseek`) when its third argument compares so, else logs.
fn seccompiler(operator: SeccompCmpOp, value: u64) -> Vec<Instruction> {
    let condition =
        SeccompCondition::new(2, SeccompCmpArgLen::Qword, operator, value).expect("a good filter");
    let rules = BTreeMap::from([(8, vec![SeccompRule::new(vec![condition]).expect("a good filter")])]);
    let (other, matched) = (SeccompAction::Log, SeccompAction::Errno(1));
    let filter = SeccompFilter::new(rules, other, matched, TargetArch::x86_64).expect("a good filter");
    let program = BpfProgram::try_from(filter).expect("a good filter");
    program.iter().map(|one| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect()
}

#[test]
fn conditions_are_those_of_seccompiler() {
    let mut chance = Chance::new(1);
    for name in hull_seccomp::operators().repeat(60) {
        let (value, second) = (chance.value(), chance.value());
        let theirs = match name {
            "SCMP_CMP_EQ" => seccompiler(SeccompCmpOp::Eq, value),
            "SCMP_CMP_NE" => seccompiler(SeccompCmpOp::Ne, value),
            "SCMP_CMP_GT" => seccompiler(SeccompCmpOp::Gt, value),
            "SCMP_CMP_GE" => seccompiler(SeccompCmpOp::Ge, value),
            "SCMP_CMP_LT" => seccompiler(SeccompCmpOp::Lt, value),
            "SCMP_CMP_LE" => seccompiler(SeccompCmpOp::Le, value),
            _ => seccompiler(SeccompCmpOp::MaskedEq(value), second),
        };
        let ours = compile(
            &profile(json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["lseek"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 2, "value": value, "valueTwo": second, "op": name}]}]})),
            Arch::X86_64,
        );
        let ours = ours.unwrap().program;
        for _ in 0..40 {
            let args = [0, 0, chance.one(&[value, second, value & second, value ^ 1]), 0, 0, 0];
            let word = |program: &[Instruction]| evaluate(program, Arch::X86_64.audit(), 8, &args);
            assert_eq!(word(&ours), word(&theirs), "{name} {value:#x} {second:#x} of {args:x?}");
        }
    }
}
