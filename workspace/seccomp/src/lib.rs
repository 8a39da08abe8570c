//! An OCI seccomp profile becomes a BPF program that the kernel loads.
//!
//! Pure: no file, clock, environment or process is touched here; the crate is `no_std`, so it cannot. Loading the
//! program is the caller's work (`seccomp(2)`, in hull-sys).
//!
//! # What a profile means
//!
//! The reading of runc with libseccomp 2.6, so that a profile does the same thing here as there:
//!
//! | case | rule |
//! |---|---|
//! | two rules without conditions for one call | the first one stands |
//! | a rule without conditions beside rules with them | the one without stands, the others have no effect |
//! | several rules with conditions | the first one in the profile that matches decides (libseccomp: an order of its own) |
//! | conditions on different arguments | all have to hold |
//! | an argument named twice in a rule | every condition of that rule is an alternative |
//! | action equal to the default action | the rule is dropped |
//! | 32-bit ABIs, x32 too | only the low word of an argument and of a value counts |
//! | unknown call name | skipped |
//! | call number above the newest one that the profile names, per ABI | `ENOSYS`, unless the default action is permissive (allow, log, trace) |
//! | ABI not in the profile | the thread is killed |
//! | no `flags` member | `SECCOMP_FILTER_FLAG_SPEC_ALLOW`; an empty list means none |
//! | `SECCOMP_FILTER_FLAG_TSYNC` | accepted, without effect: one thread loads the filter |
//!
//! On 32-bit x86 some calls can be made through `socketcall` and `ipc`, whose arguments lie in memory, out of a
//! filter's sight. A rule for such a call holds for both ways; where it has conditions, the second way gets the
//! strictest of the possible actions (libseccomp: the rule's action, whatever the arguments). A rule that names
//! `socketcall` or `ipc` without conditions stands for all calls made that way.
//!
//! # Why not seccompiler
//!
//! It makes one action and one architecture per filter, chains the calls linearly, knows no flags and no listener, and
//! needs `std`. Its conditions are the oracle of this crate's in the tests.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod arch;
mod assemble;
mod calls;
mod compile;
mod condition;
mod default;
mod dispatch;
mod evaluate;
mod features;
mod multiplex;
mod profile;
mod refusal;
mod rules;
mod words;

pub use arch::Arch;
pub use assemble::Instruction;
pub use calls::{name_of, number_of};
pub use compile::{Filter, Listener, compile, compile_with};
pub use default::{allow_socketcall, default_profile};
pub use evaluate::evaluate;
pub use features::{actions, archs, known_flags, operators};
pub use profile::NEEDED_AFTER_LOAD;
pub use refusal::Refusal;
pub use words::*;
