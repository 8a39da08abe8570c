//! The ABIs whose call numbers are known.

use oci_spec::runtime::Arch as Name;

/// An ABI of a kernel: a set of call numbers and a width of the arguments.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 32-bit pointers on 64-bit x86: its calls carry bit 30.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

/// Added to the call numbers of x32 (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// All of them, in the order of the columns of the table of calls.
    pub const ALL: [Self; 6] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm, Self::Riscv64];

    /// The one that this program is built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The one that this program is built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;
    /// The one that this program is built for.
    #[cfg(target_arch = "riscv64")]
    pub const NATIVE: Self = Self::Riscv64;
    /// The one that this program is built for.
    #[cfg(target_arch = "x86")]
    pub const NATIVE: Self = Self::X86;
    /// The one that this program is built for.
    #[cfg(target_arch = "arm")]
    pub const NATIVE: Self = Self::Arm;

    /// Returns the value of `seccomp_data.arch` (`linux/audit.h`); x32 has that of x86_64.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Returns the name in a profile.
    pub fn name(self) -> Name {
        match self {
            Self::X86_64 => Name::ScmpArchX86_64,
            Self::X86 => Name::ScmpArchX86,
            Self::X32 => Name::ScmpArchX32,
            Self::Aarch64 => Name::ScmpArchAarch64,
            Self::Arm => Name::ScmpArchArm,
            Self::Riscv64 => Name::ScmpArchRiscv64,
        }
    }

    /// Returns the ABIs whose calls a kernel that runs this one may receive, this one first; x86_64 stands for x32.
    pub fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::X86 => &[Self::X86, Self::X86_64, Self::X32],
            Self::Aarch64 => &[Self::Aarch64, Self::Arm],
            Self::Arm => &[Self::Arm, Self::Aarch64],
            Self::Riscv64 => &[Self::Riscv64],
        }
    }

    /// Says whether conditions compare 64 bits; else only the low word counts, as in libseccomp.
    pub(crate) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64 | Self::Riscv64)
    }

    /// Returns what is added to a number of the table to get `seccomp_data.nr`.
    pub(crate) fn marker(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }
}
