//! From a profile to what `seccomp(2)` takes.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use oci_spec::runtime::{Arch as ArchName, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag as Flag};

use crate::{
    arch::Arch,
    assemble::Instruction,
    calls::{CallId, PRIVATE},
    dispatch::{Dispatch, Table},
    multiplex,
    profile::{self, NEEDED_AFTER_LOAD},
    refusal::Refusal,
    rules::{CallRules, Rules},
    words::{FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, MAX_INSTRUCTIONS},
};

/// A filter ready to be loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// At most [`MAX_INSTRUCTIONS`].
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`; [`FLAG_NEW_LISTENER`] stands in it when [`Filter::listener`] is there.
    pub flags: u32,
    /// Who gets the listener's descriptor; only with a NOTIFY rule.
    pub listener: Option<Listener>,
    /// What the profile says without effect, for the user.
    pub warnings: Vec<String>,
}

/// The agent that answers the notifications.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The path of its stream socket, on the host.
    pub path: String,
    /// Passed on to it unread.
    pub metadata: Option<String>,
}

/// Compiles `profile` for a kernel of the architecture `native`.
///
/// # Errors
/// The first member of the profile that cannot be taken; a NOTIFY rule for a call in [`NEEDED_AFTER_LOAD`] is one.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Filter, Refusal> {
    compile_with(profile, native, NEEDED_AFTER_LOAD)
}

/// Compiles like [`compile`], with the caller's own list of calls that no NOTIFY rule may name.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(profile: &LinuxSeccomp, native: Arch, needed: &[&str]) -> Result<Filter, Refusal> {
    let mut warnings = Vec::new();
    let rules = profile::read(profile, needed, &mut warnings)?;
    let listener = listener(profile)?;
    let flags = flags(profile, listener.is_some(), &mut warnings);
    let tables: Vec<Table> = abis(profile, native, &mut warnings)
        .into_iter()
        .map(|arch| table(arch, &rules, &mut warnings))
        .collect();
    let program = Dispatch::new(&rules).program(&tables);
    if program.len() > MAX_INSTRUCTIONS {
        let reason =
            format!("compiles to {} instructions, the kernel takes {MAX_INSTRUCTIONS}", program.len());
        return Err(Refusal::new("/linux/seccomp/syscalls", reason));
    }
    Ok(Filter { program, flags, listener, warnings })
}

/// Returns the ABIs to write, the native one first. One that this kernel never runs needs no instruction.
fn abis(profile: &LinuxSeccomp, native: Arch, warnings: &mut Vec<String>) -> Vec<Arch> {
    let names: &[ArchName] = profile.architectures().as_deref().unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        let known =
            *name == ArchName::ScmpArchNative || native.family().iter().any(|abi| abi.name() == *name);
        if !known {
            warnings.push(format!(
                "/linux/seccomp/architectures/{index}: {name} has no effect, this machine never runs it"
            ));
        }
    }
    let listed = |abi: &Arch| *abi == native.family()[0] || names.contains(&abi.name());
    native.family().iter().copied().filter(listed).collect()
}

fn table(arch: Arch, rules: &Rules, warnings: &mut Vec<String>) -> Table {
    let numbered = |(call, rules): (&CallId, &CallRules)| Some((call.number(arch)?, rules.clone()));
    let mut found: Vec<_> = rules.calls.iter().filter_map(numbered).collect();
    found.sort_by_key(|(number, _)| *number);
    // Of two names for one number, the first in the alphabet stands.
    found.dedup_by_key(|(number, _)| *number);
    // A map of sorted entries is built at once; one entry after the other costs most of the compilation.
    let mut calls: BTreeMap<_, _> = found.into_iter().collect();
    // A call that the profile names is not too new, even if it lies above the others and its rule was dropped.
    for number in rules.named.iter().filter_map(|call| call.number(arch)).filter(|number| *number >= PRIVATE)
    {
        calls.entry(number).or_default();
    }
    multiplex::add(arch, rules, &mut calls, warnings);
    Table { arch, calls }
}

fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, Refusal> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().as_ref().filter(|metadata| !metadata.is_empty());
    if path.is_none() && metadata.is_some() {
        return Err(Refusal::new("/linux/seccomp/listenerMetadata", "needs a listenerPath"));
    }
    let notifies =
        profile.syscalls().iter().flatten().any(|entry| entry.action() == LinuxSeccompAction::ScmpActNotify);
    if !notifies {
        return Ok(None);
    }
    let field = "/linux/seccomp/listenerPath";
    let path = path.ok_or_else(|| Refusal::new(field, "SCMP_ACT_NOTIFY needs it"))?;
    let path = path.to_str().ok_or_else(|| Refusal::new(field, "is not UTF-8"))?;
    Ok(Some(Listener { path: path.into(), metadata: metadata.cloned() }))
}

fn flags(profile: &LinuxSeccomp, notifies: bool, warnings: &mut Vec<String>) -> u32 {
    let mut flags = if notifies { FLAG_NEW_LISTENER } else { 0 };
    let Some(names) = profile.flags() else { return flags | FLAG_SPEC_ALLOW };
    for (index, name) in names.iter().enumerate() {
        flags |= match name {
            // One thread loads the filter, and the kernel refuses this flag beside a listener.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagLog => FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
            Flag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push(format!(
                    "/linux/seccomp/flags/{index}: {name} has no effect without a NOTIFY rule"
                ));
                0
            }
        };
    }
    flags
}
