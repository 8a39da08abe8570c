//! Profiles for tests, from the JSON a user would write.
#![allow(dead_code)]

pub mod chance;

use hull_seccomp::{Arch, Filter, Refusal, compile, evaluate, number_of};
use oci_spec::runtime::LinuxSeccomp;

/// Reads a profile.
pub fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).expect("a profile of the specification's form")
}

/// Compiles a profile that has to be good.
pub fn filter(native: Arch, json: serde_json::Value) -> Filter {
    compile(&profile(json), native).expect("a good profile")
}

/// Compiles a profile that has to be refused.
pub fn refusal(json: serde_json::Value) -> Refusal {
    compile(&profile(json), Arch::X86_64).expect_err("a profile that is refused")
}

/// Answers a call by name.
pub fn answer(filter: &Filter, arch: Arch, name: &str, args: &[u64]) -> u32 {
    let number = number_of(arch, name).unwrap_or_else(|| panic!("{name} exists on {arch:?}"));
    answer_number(filter, arch, number, args)
}

/// Answers a call by number.
pub fn answer_number(filter: &Filter, arch: Arch, number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    evaluate(&filter.program, arch.audit(), number, &all)
}
