//! Random profiles and calls, the same ones in every run.

use hull_seccomp::{Arch, number_of};
use serde_json::{Value, json};

/// A small generator (xorshift64*): it has to be varied, not unpredictable.
pub struct Chance(u64);

/// Calls that a random profile names: with holes, multiplexed ones, private ones, ones that some ABIs lack.
pub const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "mkdir",
    "dup3",
    "getrandom",
    "clone",
    "clone3",
    "socket",
    "bind",
    "accept",
    "socketcall",
    "ipc",
    "semget",
    "semop",
    "msgsnd",
    "mmap",
    "mmap2",
    "openat2",
    "statx",
    "io_uring_setup",
    "cachestat",
    "set_tls",
    "cacheflush",
    "breakpoint",
    "ioctl",
    "personality",
    "no_such_call",
    "exit_group",
    "preadv2",
    "recvmsg",
    "shmat",
    "waitpid",
    "getdents64",
    "riscv_flush_icache",
    "arch_prctl",
    "_llseek",
];

/// Values that comparisons trip over.
const VALUES: &[u64] = &[
    0,
    1,
    2,
    7,
    40,
    0xff,
    0xffff,
    0x1_0001,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x7e02_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

impl Chance {
    /// Starts the sequence `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % end
    }

    /// Returns one of `all`.
    pub fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Returns a value at or beside one that matters.
    pub fn value(&mut self) -> u64 {
        let near = [0, 1, u64::MAX];
        self.one(VALUES).wrapping_add(self.one(&near))
    }

    /// Returns a profile's rule; `actions` are what it may do, `plain` of 8 have no conditions.
    pub fn rule(&mut self, actions: &[&str], plain: usize) -> Value {
        let names: Vec<&str> = (0..=self.below(3)).map(|_| self.one(NAMES)).collect();
        let action = self.one(actions);
        let mut rule = json!({"names": names, "action": action});
        if action == "SCMP_ACT_ERRNO" || action == "SCMP_ACT_TRACE" {
            rule["errnoRet"] = json!(self.below(50));
        }
        if self.below(8) >= plain {
            rule["args"] = (0..=self.below(3)).map(|_| self.condition()).collect();
        }
        rule
    }

    fn condition(&mut self) -> Value {
        let op = self.one(hull_seccomp::operators());
        json!({"index": self.below(6), "value": self.value(), "valueTwo": self.value(), "op": op})
    }

    /// Returns a profile with up to `rules` rules for a machine of the architecture `native`; `plain` of 8 rules have no
    /// conditions.
    pub fn profile(&mut self, native: Arch, rules: usize, plain: usize) -> Value {
        let mut architectures: Vec<String> = Vec::new();
        for arch in native.family() {
            if self.below(2) == 0 {
                architectures.push(arch.name().to_string());
            }
        }
        let syscalls: Vec<Value> = (0..self.below(rules + 1)).map(|_| self.rule(ACTIONS, plain)).collect();
        json!({"defaultAction": self.one(ACTIONS), "architectures": architectures, "syscalls": syscalls})
    }

    /// Returns a call of one of the ABIs in `archs`: its ABI, number and arguments.
    pub fn call(&mut self, archs: &[Arch]) -> (Arch, u32, [u64; 6]) {
        let arch = self.one(archs);
        let named = number_of(arch, self.one(NAMES));
        let number = match (self.below(8), named) {
            (0, _) => self.one(&[
                0,
                449,
                600,
                0x3fff_ffff,
                0x4000_0000,
                0x4000_0300,
                0xf_0003,
                0xffff_fffe,
                u32::MAX,
            ]),
            (1, Some(number)) => number.wrapping_add(1),
            (2, Some(number)) => number.wrapping_sub(1),
            (_, Some(number)) => number,
            (_, None) => u32::try_from(self.below(500)).expect("a small number"),
        };
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = if self.below(3) == 0 { self.value() } else { self.below(30) as u64 };
        }
        (arch, number, args)
    }
}
