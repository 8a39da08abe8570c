//! The program against a slow reading of the profile, on random profiles and calls.

mod common;

use common::{chance::Chance, profile};
use hull_seccomp::{ALLOW, Arch, ERRNO, KILL_THREAD, LOG, TRACE, compile, evaluate, number_of};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall};

/// Enough rules with conditions that jumps get longer than 255 instructions.
const MANY_RULES: (usize, usize) = (110, 0);

/// Answers one call by reading the profile, rule by rule.
struct Model<'a> {
    profile: &'a LinuxSeccomp,
    native: Arch,
}

impl Model<'_> {
    fn answer(&self, arch: Arch, number: u32, args: &[u64; 6]) -> u32 {
        let Some(arch) = self.abi(arch, number) else { return KILL_THREAD };
        if arch.audit() == Arch::X86_64.audit() && number == u32::MAX {
            return self.default();
        }
        self.rule(arch, number, args).unwrap_or_else(|| self.unmatched(arch, number, args))
    }

    /// Returns the ABI the kernel sees, if the profile has it.
    fn abi(&self, arch: Arch, number: u32) -> Option<Arch> {
        let seen = match arch {
            Arch::X86_64 | Arch::X32 if number >= 0x4000_0000 && number != u32::MAX => Arch::X32,
            Arch::X32 => Arch::X86_64,
            other => other,
        };
        let listed = self.profile.architectures().iter().flatten().any(|name| *name == seen.name());
        (seen == self.native || listed).then_some(seen)
    }

    fn default(&self) -> u32 {
        self.profile.default_action().as_u32(self.profile.default_errno_ret())
    }

    /// Returns the entries that say something about `name`.
    fn entries(&self, name: &str) -> impl Iterator<Item = &LinuxSyscall> {
        let default = self.default();
        self.profile
            .syscalls()
            .iter()
            .flatten()
            .filter(move |entry| entry.names().iter().any(|one| one == name) && word(entry) != default)
    }

    fn rule(&self, arch: Arch, number: u32, args: &[u64; 6]) -> Option<u32> {
        let name = self.named().find(|name| number_of(arch, name) == Some(number))?;
        let always = self.entries(name).find(|entry| entry.args().iter().flatten().next().is_none());
        always.or_else(|| self.entries(name).find(|entry| matches(entry, arch, args))).map(word)
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.profile.syscalls().iter().flatten().flat_map(|entry| entry.names()).map(String::as_str)
    }

    fn unmatched(&self, arch: Arch, number: u32, args: &[u64; 6]) -> u32 {
        if let Some(word) = self.multiplexed(arch, number, args) {
            return word;
        }
        let marker = if arch == Arch::X32 { 0x4000_0000 } else { 0 };
        let numbers = self.named().filter_map(|name| number_of(arch, name)).map(|number| number - marker);
        let newest = numbers.filter(|number| *number < 0xf_0000).max();
        let permissive = [ALLOW, LOG, TRACE].contains(&(self.default() & 0xffff_0000));
        let named = self.named().any(|name| number_of(arch, name) == Some(number));
        if !permissive && !named && newest.is_some_and(|newest| number - marker > newest) {
            return ERRNO | 38;
        }
        self.default()
    }

    /// Answers a call made through `socketcall` or `ipc`; only those that random profiles name.
    fn multiplexed(&self, arch: Arch, number: u32, args: &[u64; 6]) -> Option<u32> {
        let selector = if number == 117 { args[0] & 0xffff } else { args[0] & 0xffff_ffff };
        let name = match (arch, number, selector) {
            (Arch::X86, 102, 1) => "socket",
            (Arch::X86, 102, 2) => "bind",
            (Arch::X86, 102, 5) => "accept",
            (Arch::X86, 102, 17) => "recvmsg",
            (Arch::X86, 117, 1) => "semop",
            (Arch::X86, 117, 2) => "semget",
            (Arch::X86, 117, 11) => "msgsnd",
            (Arch::X86, 117, 21) => "shmat",
            _ => return None,
        };
        let always = self.entries(name).find(|entry| entry.args().iter().flatten().next().is_none());
        let rank = |word: &u32| (word & 0xffff_0000).cast_signed();
        let strictest = || {
            let words = self.entries(name).map(word);
            words.fold(self.default(), |least, word| if rank(&word) < rank(&least) { word } else { least })
        };
        Some(always.map_or_else(strictest, word))
    }
}

fn word(entry: &LinuxSyscall) -> u32 {
    entry.action().as_u32(entry.errno_ret())
}

fn matches(entry: &LinuxSyscall, arch: Arch, args: &[u64; 6]) -> bool {
    let conditions: Vec<&LinuxSeccompArg> = entry.args().iter().flatten().collect();
    let mut indexes: Vec<usize> = conditions.iter().map(|one| one.index()).collect();
    indexes.sort_unstable();
    let repeated = indexes.windows(2).any(|pair| pair[0] == pair[1]);
    let mut holds = conditions.iter().map(|one| holds(one, arch, args));
    if repeated { holds.any(|one| one) } else { holds.all(|one| one) }
}

fn holds(condition: &LinuxSeccompArg, arch: Arch, args: &[u64; 6]) -> bool {
    let narrow = matches!(arch, Arch::X86 | Arch::X32 | Arch::Arm);
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (arg, value) = (cut(args[condition.index()]), cut(condition.value()));
    match condition.op() {
        Op::ScmpCmpEq => arg == value,
        Op::ScmpCmpNe => arg != value,
        Op::ScmpCmpGt => arg > value,
        Op::ScmpCmpGe => arg >= value,
        Op::ScmpCmpLt => arg < value,
        Op::ScmpCmpLe => arg <= value,
        Op::ScmpCmpMaskedEq => arg & value == cut(condition.value_two().unwrap_or(0)) & value,
    }
}

fn compare(seed: u64, native: Arch, (rules, plain): (usize, usize), calls: usize) {
    let mut chance = Chance::new(seed);
    let json = chance.profile(native, rules, plain);
    let profile = profile(json.clone());
    let filter = compile(&profile, native).expect("a good profile");
    let model = Model { profile: &profile, native };
    for _ in 0..calls {
        let (arch, number, args) = chance.call(&Arch::ALL);
        assert_eq!(
            format!("{:#x}", evaluate(&filter.program, arch.audit(), number, &args)),
            format!("{:#x}", model.answer(arch, number, &args)),
            "seed {seed}: {arch:?} {number:#x} {args:x?}\n{json}"
        );
    }
}

#[test]
fn program_answers_as_the_profile_reads() {
    for seed in 0..400 {
        for native in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
            compare(seed, native, (12, 4), 60);
        }
    }
}

#[test]
fn program_with_far_jumps_answers_as_the_profile_reads() {
    for seed in 0..60 {
        compare(seed, Arch::X86_64, MANY_RULES, 800);
    }
}

#[test]
fn same_profile_gives_the_same_program() {
    for seed in 0..50 {
        let profile = profile(Chance::new(seed).profile(Arch::X86_64, 30, 4));
        assert_eq!(compile(&profile, Arch::X86_64), compile(&profile, Arch::X86_64));
    }
}

#[test]
fn random_profiles_reach_beyond_a_jump() {
    let length = |seed| {
        let profile = profile(Chance::new(seed).profile(Arch::X86_64, MANY_RULES.0, MANY_RULES.1));
        compile(&profile, Arch::X86_64).unwrap().program.len()
    };
    assert!((0..60).filter(|seed| length(*seed) > 600).count() > 10);
}
