//! The program: who it runs as, with what, and within which limits (config.md, process).

use crate::capabilities;
use crate::cpu_list;
use crate::entry::is_mapped;
use crate::plan::{CapabilityPlan, EntryScript, HostFacts, NamespaceKind, ProcessPlan, Rlimit, Warning};
use crate::refusal::Refusal;
use crate::schedule;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process, User};

/// `(uid_t) -1` means "leave it" to the kernel.
const NO_ID: u32 = u32::MAX;

/// What a process is planned against.
pub(crate) struct Surroundings<'a> {
    /// JSON pointer of the process object: `/process`, or empty for a `process.json`.
    pub pointer: &'a str,
    pub entry: &'a EntryScript,
    pub facts: &'a HostFacts,
    /// `linux.resources.cpu.cpus` is set.
    pub has_cpuset: bool,
}

/// Plans one process.
pub(crate) fn plan(
    process: &Process,
    around: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<ProcessPlan, Refusal> {
    let at = |name: &str| format!("{}/{name}", around.pointer);
    let user = process.user();
    check_ids(user, around)?;
    Ok(ProcessPlan {
        terminal: process.terminal().unwrap_or(false),
        console_size: console_size(process, &at("consoleSize"))?,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: groups(user),
        umask: umask(user, &at("user/umask"))?,
        args: args(process, around.pointer)?,
        env: environment(process.env().as_deref().unwrap_or_default(), &at("env"))?,
        cwd: working_directory(process, &at("cwd"))?,
        capabilities: Some(capability_sets(process, around, warnings)),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default(), &at("rlimits"))?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        apparmor_profile: apparmor_profile(process, around)?,
        selinux_label: selinux_label(process, around)?,
        oom_score_adj: oom_score_adj(process, &at("oomScoreAdj"))?,
        io_priority: process
            .io_priority()
            .as_ref()
            .map(|priority| schedule::io_priority(priority, &at("ioPriority")))
            .transpose()?,
        scheduler: process
            .scheduler()
            .as_ref()
            .map(|scheduler| schedule::scheduler(scheduler, &at("scheduler"), around.has_cpuset))
            .transpose()?,
        cpu_affinity_initial: affinity(process, around.pointer, "initial")?,
        cpu_affinity_final: affinity(process, around.pointer, "final")?,
    })
}

fn check_ids(user: &User, around: &Surroundings) -> Result<(), Refusal> {
    let maps = around.entry.id_maps.as_ref();
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    let additional =
        additional.iter().enumerate().map(|(index, gid)| (*gid, format!("additionalGids/{index}")));
    let gids = [(user.gid(), "gid".to_string())].into_iter().chain(additional);
    let check = |id: u32, name: &str, map: Option<&Vec<_>>, kind: &str| {
        let refuse = |reason: String| Err(Refusal::new(format!("{}/user/{name}", around.pointer), reason));
        match map {
            _ if id == NO_ID => refuse(format!("{id} is no {kind}")),
            Some(map) if !is_mapped(map, id) => {
                refuse(format!("cannot set {kind} to unmapped user in user namespace: {id}"))
            }
            _ => Ok(()),
        }
    };
    check(user.uid(), "uid", maps.map(|maps| &maps.uid), "uid")?;
    for (gid, name) in gids {
        check(gid, &name, maps.map(|maps| &maps.gid), "gid")?;
    }
    Ok(())
}

/// The primary group is always among them: without it, a program could leave the group and gain where the group is
/// denied (CVE-2022-36109).
fn groups(user: &User) -> Vec<u32> {
    let mut groups = Vec::from([user.gid()]);
    for gid in user.additional_gids().as_deref().unwrap_or_default() {
        if !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    groups
}

fn umask(user: &User, field: &str) -> Result<Option<u32>, Refusal> {
    match user.umask() {
        Some(mask) if mask > 0o777 => Err(Refusal::new(field, format!("{mask:#o} has bits beyond 0777"))),
        mask => Ok(mask),
    }
}

fn args(process: &Process, pointer: &str) -> Result<Vec<String>, Refusal> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        let field = if process.args().is_some() { format!("{pointer}/args") } else { pointer.to_string() };
        return Err(Refusal::new(field, "args must not be empty"));
    }
    refuse_nul(&args, &format!("{pointer}/args"))?;
    Ok(args)
}

fn refuse_nul(strings: &[String], pointer: &str) -> Result<(), Refusal> {
    strings
        .iter()
        .position(|text| text.contains('\0'))
        .map_or(Ok(()), |index| Err(Refusal::new(format!("{pointer}/{index}"), "contains a NUL byte")))
}

/// Each name once: the last value, at the place where the name came first.
pub(crate) fn environment(listed: &[String], pointer: &str) -> Result<Vec<String>, Refusal> {
    refuse_nul(listed, pointer)?;
    let mut names = Vec::with_capacity(listed.len());
    for (index, variable) in listed.iter().enumerate() {
        let refuse = |reason: &str| Err(Refusal::new(format!("{pointer}/{index}"), reason.to_string()));
        match variable.split_once('=') {
            Some(("", _)) => return refuse("invalid environment variable: the name is empty"),
            Some((name, _)) => names.push((name, index)),
            None => return refuse("invalid environment variable: '=' is missing"),
        }
    }
    names.sort_unstable();
    let mut chosen: Vec<Option<usize>> = vec![None; listed.len()];
    for same in names.chunk_by(|one, other| one.0 == other.0) {
        let (first, last) = (same[0].1, same[same.len() - 1].1);
        chosen[first] = Some(last);
    }
    Ok(chosen.into_iter().flatten().map(|index| listed[index].clone()).collect())
}

fn working_directory(process: &Process, field: &str) -> Result<String, Refusal> {
    let cwd = process.cwd().to_str().unwrap_or_default();
    if !cwd.starts_with('/') {
        return Err(Refusal::new(field, format!("cwd {cwd:?} is not an absolute path")));
    }
    if cwd.contains('\0') {
        return Err(Refusal::new(field, "contains a NUL byte"));
    }
    Ok(cwd.to_string())
}

fn capability_sets(process: &Process, around: &Surroundings, warnings: &mut Vec<Warning>) -> CapabilityPlan {
    let facts = around.facts;
    let known = u64::MAX >> (63 - facts.last_capability.min(63));
    // Whoever enters a user namespace, new or joined, gets all capabilities in it, the bounding set included.
    let bounding = if around.entry.has_own(NamespaceKind::User) { u64::MAX } else { facts.bounding };
    let configured = capabilities::configured(process.capabilities().as_ref());
    capabilities::attainable(
        configured,
        bounding & known,
        &format!("{}/capabilities", around.pointer),
        warnings,
    )
}

fn rlimits(limits: &[PosixRlimit], pointer: &str) -> Result<Vec<Rlimit>, Refusal> {
    let mut planned: Vec<Rlimit> = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("{pointer}/{index}");
        let resource = resource(limit.typ());
        if planned.iter().any(|other| other.resource == resource) {
            return Err(Refusal::new(field, format!("{} is listed twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Refusal::new(field, "the soft limit is above the hard limit"));
        }
        planned.push(Rlimit { field, resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(planned)
}

/// `RLIMIT_*` numbers (asm-generic/resource.h).
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// A label that is asked for and cannot be applied is never skipped.
fn apparmor_profile(process: &Process, around: &Surroundings) -> Result<Option<String>, Refusal> {
    match process.apparmor_profile().as_deref() {
        None | Some("") => Ok(None),
        Some("unconfined") if !around.facts.apparmor => Ok(None),
        Some(profile) if around.facts.apparmor => Ok(Some(profile.to_string())),
        Some(profile) => Err(Refusal::new(
            format!("{}/apparmorProfile", around.pointer),
            format!("profile {profile:?} is asked for, but AppArmor is not enabled on this host"),
        )),
    }
}

fn selinux_label(process: &Process, around: &Surroundings) -> Result<Option<String>, Refusal> {
    let field = format!("{}/selinuxLabel", around.pointer);
    label(process.selinux_label().as_deref(), around.facts, &field)
}

/// An SELinux label of a process or of the mounts; empty is none.
pub(crate) fn label(label: Option<&str>, facts: &HostFacts, field: &str) -> Result<Option<String>, Refusal> {
    match label {
        None | Some("") => Ok(None),
        Some(label) if facts.selinux => Ok(Some(label.to_string())),
        Some(_) => {
            let reason = "selinux label is specified in config, but selinux is disabled or not supported";
            Err(Refusal::new(field, reason))
        }
    }
}

fn oom_score_adj(process: &Process, field: &str) -> Result<Option<i32>, Refusal> {
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Refusal::new(field, format!("{score} is not in -1000..1000")))
        }
        score => Ok(score),
    }
}

fn console_size(process: &Process, field: &str) -> Result<Option<(u16, u16)>, Refusal> {
    let Some(size) = process.console_size() else { return Ok(None) };
    let fit = |number: u64, name: &str| {
        u16::try_from(number)
            .map_err(|_| Refusal::new(format!("{field}/{name}"), format!("{number} is above 65535")))
    };
    Ok(Some((fit(size.height(), "height")?, fit(size.width(), "width")?)))
}

fn affinity(process: &Process, pointer: &str, which: &str) -> Result<Option<Vec<u64>>, Refusal> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(None) };
    let list = if which == "initial" { affinity.initial() } else { affinity.cpu_affinity_final() };
    let Some(list) = list else { return Ok(None) };
    let mask = cpu_list::parse(list).map_err(|reason| {
        Refusal::new(format!("{pointer}/execCPUAffinity/{which}"), format!("invalid CPU list: {reason}"))
    })?;
    Ok(Some(mask).filter(|mask| !mask.is_empty()))
}
