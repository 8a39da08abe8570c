//! The last steps before the program: limits, labels, identity, working directory, the program's path. Shared by the
//! first process of a container and by `exec`.

use crate::error::{Code, Context, Error, Result, errno_text};
use crate::files::may_execute;
use crate::link::{Link, ToParent};
use crate::log::Level;
use crate::seal::Seal;
use crate::step::{Step, at};
use crate::streams;
use hull_plan::{MemoryPolicyPlan, ProcessPlan};
use hull_rooted::{Entry, Proc, Root};
use hull_sys::capability::{self, CapabilitySets};
use hull_sys::errno::{EACCES, ENOENT, ENOTDIR, EPERM};
use hull_sys::process::CStrings;
use hull_sys::process::Pid;
use hull_sys::{fs, identity, limits, process, scheduling};
use std::ffi::CString;

/// The calling process.
const SELF: Pid = Pid::from_raw(0);

/// The way from the container's root user to the program, and what it depends on.
#[derive(Debug)]
pub struct Walk<'a> {
    /// The program, its user and limits.
    pub process: &'a ProcessPlan,
    /// set_mempolicy(2).
    pub memory_policy: Option<&'a MemoryPolicyPlan>,
    /// personality(2).
    pub personality: Option<u64>,
    /// The compiled profile.
    pub seal: Option<&'a Seal>,
    /// How many descriptors from 3 up reach the program.
    pub preserve_fds: u32,
    /// The caller is an ordinary user: setgroups may be denied.
    pub rootless: bool,
    /// The root is that of a mount namespace of the container's; else it is a directory of the host's.
    pub own_root: bool,
}

impl Walk<'_> {
    /// Goes it; what is left is the exec. Says [`ToParent::Ready`] before the filter is loaded.
    pub fn to_program(&self, proc: &Proc, link: &Link) -> Result<Program> {
        let process = self.process;
        at(Step::Limits, || set_limits(process, self.memory_policy))?;
        at(Step::Limits, || set_personality(self.personality))?;
        at(Step::Labels, || set_labels(process, proc))?;
        if let Some(mask) = process.umask {
            hull_sys::process::umask(mask);
        }
        let inherited = at(Step::Identity, || Inherited::read(proc))?;
        let home = home_of(process, proc);
        // Once as root of the container, since the user may not be able to search the way there; once more as the user,
        // since root may not either (a home on NFS).
        let there = try_cwd(&process.cwd);
        at(Step::Identity, || hand_streams(process, link))?;
        at(Step::Identity, || become_user(process, self.rootless, inherited.bounding))?;
        at(Step::Identity, || take_effective(process))?;
        at(Step::Cwd, || enter_cwd(&process.cwd, there, self.own_root.then_some(proc)))?;
        let program = at(Step::FindProgram, || find_program(&process.args, environment(process, home)))?;
        at(Step::Exec, || reset_signals(inherited.ignored_signals))?;
        at(Step::Exec, || {
            hull_sys::fd::mark_cloexec_from(3 + self.preserve_fds)
                .context(|| "mark descriptors close-on-exec")
        })?;
        at(Step::Seccomp, || link.tell(&ToParent::Ready))?;
        at(Step::Seccomp, || self.drop_privileges(link))?;
        Ok(program)
    }

    /// With no_new_privs the filter comes last; without it, loading it takes a capability that is dropped next.
    fn drop_privileges(&self, link: &Link) -> Result<()> {
        let mut warnings = Vec::new();
        let mut warn = |text: String| warnings.push(text);
        if self.process.no_new_privileges {
            set_capabilities(self.process, &mut warn)?;
            hull_sys::process::set_no_new_privileges().context(|| "set no_new_privs")?;
            tell_warnings(link, &warnings)?;
            return self.seal.map_or(Ok(()), |seal| seal.load(link));
        }
        if let Some(seal) = self.seal {
            regain_effective()?;
            seal.load(link)?;
            // From here on the filter decides which calls are to be had: no more words.
            return set_capabilities(self.process, &mut warn);
        }
        set_capabilities(self.process, &mut warn)?;
        tell_warnings(link, &warnings)
    }
}

/// The capabilities that the program will have, so that its directory and its file are judged as it would see them
/// (CAP_DAC_OVERRIDE counts).
fn take_effective(plan: &ProcessPlan) -> Result<()> {
    let Some(wanted) = &plan.capabilities else { return Ok(()) };
    let take = || {
        let sets = capability::get()?;
        capability::set(&CapabilitySets { effective: wanted.effective & sets.permitted, ..sets })
    };
    take().context(|| "take the effective capabilities")
}

/// The change of user emptied the effective set; the permitted one was kept.
fn regain_effective() -> Result<()> {
    let regain = || {
        let sets = capability::get()?;
        capability::set(&CapabilitySets { effective: sets.permitted, ..sets })
    };
    regain().context(|| "regain capabilities for the filter")
}

fn tell_warnings(link: &Link, warnings: &[String]) -> Result<()> {
    warnings.iter().try_for_each(|text| link.tell(&ToParent::Log(Level::Warning, text.clone())))
}

/// What this process has of its caller, from the status file: one read in place of a call for each capability and each
/// signal.
struct Inherited {
    bounding: u64,
    ignored_signals: u64,
}

impl Inherited {
    fn read(proc: &Proc) -> Result<Self> {
        match proc.read(Entry::OwnThread("status")).ok().as_deref().and_then(Self::parse) {
            Some(found) => Ok(found),
            // A procfs of a pid namespace that this process is not in does not know it.
            None => Self::ask().context(|| "read the bounding set"),
        }
    }

    fn ask() -> hull_sys::Result<Self> {
        let mut bounding = 0;
        for number in 0..=capability::last_capability() {
            bounding |= u64::from(capability::bounding_has(number)?) << number;
        }
        Ok(Self { bounding, ignored_signals: u64::MAX })
    }

    fn parse(status: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(status);
        let bits = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self { bounding: bits("CapBnd:")?, ignored_signals: bits("SigIgn:")? })
    }
}

/// The caller's blocked and ignored signals are not the program's.
fn reset_signals(ignored: u64) -> Result<()> {
    let reset =
        || hull_sys::signal::reset_ignored(ignored).and_then(|()| hull_sys::signal::unblock_all().map(drop));
    reset().context(|| "reset signals")
}

fn set_personality(persona: Option<u64>) -> Result<()> {
    let Some(persona) = persona else { return Ok(()) };
    hull_sys::process::set_personality(persona)
        .context(|| "set the personality")
        .map_err(|error| error.field("/linux/personality"))
}

/// Makes a missing working directory of a container's first process, as the peers do (P4), inside the new root and while that
/// can still be written to. What fails is told when it is entered. For an exec none is made, by nobody.
pub fn provide_cwd(cwd: &str) {
    if try_cwd(cwd) {
        let _stays = fs::chdir("/");
    } else {
        let _told_later = Root::at("/").and_then(|root| root.open_or_create_dir(cwd, 0o755));
    }
}

/// The user's home from the container's passwd, for an environment that names none (what every peer does).
fn home_of(process: &ProcessPlan, proc: &Proc) -> Option<String> {
    if process.env.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        return None;
    }
    let found = Root::at("/").and_then(|root| hull_rooted::accounts::home_of(&root, proc, process.uid));
    // A passwd that cannot be read or believed (CVE-2026-46680) names no home.
    let home = found.ok().flatten().and_then(|home| home.to_str().map(str::to_owned));
    Some(home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned()))
}

fn environment(process: &ProcessPlan, home: Option<String>) -> Vec<String> {
    let Some(home) = home else { return process.env.clone() };
    let mut env: Vec<_> = process.env.iter().filter(|entry| !entry.starts_with("HOME=")).cloned().collect();
    env.push(format!("HOME={home}"));
    env
}

/// What execve(2) takes, prepared before the filter is loaded.
#[derive(Debug)]
pub struct Program {
    /// Path of the executable.
    pub path: CString,
    /// Arguments.
    pub argv: CStrings,
    /// Environment.
    pub envp: CStrings,
}

/// Writes a file of procfs of our own. In a user namespace those belong to its root only while the process is dumpable,
/// which a change of user undoes; for the moment of the write it is so again, and its memory holds no secret.
pub fn dumpable<T>(write: impl FnOnce() -> T) -> T {
    let before = hull_sys::process::is_dumpable();
    // Where this fails the write fails too, and says so.
    let _kept = hull_sys::process::set_dumpable(true);
    let written = write();
    if before == Ok(false) {
        let _kept = hull_sys::process::set_dumpable(false);
    }
    written
}

/// Limits, out-of-memory score and scheduling: while the process is still privileged.
fn set_limits(plan: &ProcessPlan, memory_policy: Option<&MemoryPolicyPlan>) -> Result<()> {
    for limit in &plan.rlimits {
        limits::set_rlimit(limit.resource, limit.soft, limit.hard)
            .map_err(|cause| Error::sys(format!("error setting rlimit type {}", limit.resource), cause))
            .map_err(|error| {
                error.field(limit.field.clone()).hint("a higher hard limit needs CAP_SYS_RESOURCE")
            })?;
    }
    if let Some(attributes) = &plan.scheduler {
        scheduling::set_scheduler(
            SELF,
            &scheduling::SchedulerAttributes {
                policy: attributes.policy,
                flags: attributes.flags,
                nice: attributes.nice,
                priority: attributes.priority,
                runtime: attributes.runtime,
                deadline: attributes.deadline,
                period: attributes.period,
                ..Default::default()
            },
        )
        .context(|| "error setting scheduler")
        .map_err(|error| error.field("/process/scheduler"))?;
    }
    if let Some(priority) = plan.io_priority {
        scheduling::set_io_priority(SELF, priority.into())
            .context(|| "failed to set io priority")
            .map_err(|error| error.field("/process/ioPriority"))?;
    }
    if let Some(policy) = memory_policy {
        scheduling::set_memory_policy(policy.mode, &policy.nodes, 64 * policy.nodes.len() as u64 + 1)
            .context(|| "set memory policy")
            .map_err(|error| error.field("/linux/memoryPolicy"))?;
    }
    Ok(())
}

/// Labels for the coming exec, written through the proved procfs only (R9).
fn set_labels(plan: &ProcessPlan, proc: &Proc) -> Result<()> {
    if let Some(label) = &plan.selinux_label {
        proc.write_only(Entry::OwnThread("attr/exec"), label.as_bytes())
            .context(|| "set the SELinux label")
            .map_err(|error| error.field("/process/selinuxLabel"))?;
    }
    if let Some(profile) = &plan.apparmor_profile {
        let text = format!("exec {profile}");
        proc.write_only(Entry::OwnThread("attr/apparmor/exec"), text.as_bytes())
            .or_else(|_| proc.write_only(Entry::OwnThread("attr/exec"), text.as_bytes()))
            .context(|| format!("apply AppArmor profile {profile}"))
            .map_err(|error| error.field("/process/apparmorProfile"))?;
    }
    Ok(())
}

/// While this process may still give files away.
fn hand_streams(plan: &ProcessPlan, link: &Link) -> Result<()> {
    let refused = streams::hand_to(plan.uid);
    refused.into_iter().try_for_each(|text| link.tell(&ToParent::Log(Level::Debug, text)))
}

/// Drops the bounding set (R10: before the ids change), then takes on user and groups with capabilities kept for the
/// steps that remain.
fn become_user(plan: &ProcessPlan, setgroups_denied: bool, bounding: u64) -> Result<()> {
    if let Some(capabilities) = &plan.capabilities {
        drop_bounding(bounding & !capabilities.bounding).context(|| "drop the bounding set")?;
    }
    process::set_keep_capabilities(true).context(|| "keep capabilities")?;
    // The primary group is always among the supplementary ones (R11).
    let mut groups = vec![plan.gid];
    groups.extend(plan.additional_gids.iter().filter(|&&gid| gid != plan.gid));
    match identity::set_groups(&groups) {
        Err(error) if error.is(EPERM) && setgroups_denied && groups == [plan.gid] => {}
        other => other
            .context(|| "set the supplementary groups")
            .map_err(|error| error.field("/process/user/additionalGids"))?,
    }
    identity::set_gids(plan.gid, plan.gid, plan.gid)
        .context(|| format!("become group {}", plan.gid))
        .map_err(|error| error.field("/process/user/gid"))?;
    identity::set_uids(plan.uid, plan.uid, plan.uid)
        .context(|| format!("become user {}", plan.uid))
        .map_err(|error| error.field("/process/user/uid"))?;
    process::set_keep_capabilities(false).context(|| "keep capabilities no longer")
}

fn drop_bounding(unwanted: u64) -> hull_sys::Result<()> {
    (0..64).filter(|number| unwanted >> number & 1 == 1).try_for_each(capability::bounding_drop)
}

/// The final sets. The ones to be kept survived the change of user; effective ones were lost with it.
fn set_capabilities(plan: &ProcessPlan, warn: &mut dyn FnMut(String)) -> Result<()> {
    let Some(sets) = &plan.capabilities else { return Ok(()) };
    capability::set(&CapabilitySets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
    })
    .context(|| "set the capabilities")
    .map_err(|error| error.code(Code::Syscall).field("/process/capabilities"))?;
    capability::ambient_clear().context(|| "clear the ambient set")?;
    for number in (0..64).filter(|number| sets.ambient >> number & 1 == 1) {
        if let Err(error) = capability::ambient_raise(number) {
            warn(format!("can't raise ambient capability number {number}: {}", errno_text(error.errno)));
        }
    }
    Ok(())
}

/// True when the user can enter `cwd` now.
fn try_cwd(cwd: &str) -> bool {
    fs::chdir(cwd).is_ok()
}

/// Enters the working directory as the user, and proves that it lies inside (R8, CVE-2024-21626).
fn enter_cwd(cwd: &str, already_there: bool, proc: Option<&Proc>) -> Result<()> {
    if !already_there {
        fs::chdir(cwd)
            .context(|| format!("chdir to cwd ({cwd:?}) set in config.json failed"))
            .map_err(|error| error.field("/process/cwd"))?;
    }
    let outside = "current working directory is outside of container mount namespace root -- possible container breakout detected";
    let proved = match proc {
        Some(proc) => hull_rooted::prove_cwd_inside(proc).map(drop).context(|| outside),
        // Below a mere chroot the mount of the root is in nobody's table. What lies outside has no path from the root
        // then, which the kernel marks by a path that is not absolute (getcwd(2), "(unreachable)").
        None => match fs::getcwd().context(|| outside) {
            Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
            Ok(_) => Err(Error::new(Code::Syscall, outside)),
            Err(error) => Err(error),
        },
    };
    proved.map_err(|error| error.field("/process/cwd"))
}

/// Finds the executable as the user that will run it, as execvp(3) does in the PATH of the given environment (P7).
fn find_program(args: &[String], env: Vec<String>) -> Result<Program> {
    let name = args
        .first()
        .ok_or_else(|| Error::new(Code::ConfigInvalid, "args is empty").field("/process/args"))?;
    let path = if name.contains('/') { check_program(name)? } else { search_path(name, &env)? };
    let texts = |texts: &[String]| -> Result<CStrings> {
        let nul = |_| Error::new(Code::ConfigInvalid, "a text of the process holds a NUL byte");
        Ok(CStrings::new(
            texts.iter().map(|text| CString::new(text.as_str()).map_err(nul)).collect::<Result<_>>()?,
        ))
    };
    let path =
        CString::new(path).map_err(|_| Error::new(Code::ConfigInvalid, "the path holds a NUL byte"))?;
    Ok(Program { path, argv: texts(args)?, envp: texts(&env)? })
}

fn check_program(path: &str) -> Result<String> {
    match executable(path) {
        Ok(()) => Ok(path.to_owned()),
        Err(errno) if errno == ENOENT || errno == ENOTDIR => {
            Err(exec_error(Code::ExecNotFound, path, &format!("stat {path}: {}", errno_text(errno))))
        }
        Err(errno) => Err(exec_error(Code::ExecDenied, path, &errno_text(errno))),
    }
}

fn search_path(name: &str, env: &[String]) -> Result<String> {
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for directory in path.split(':') {
        let candidate =
            if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(EACCES) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(exec_error(Code::ExecDenied, name, &errno_text(EACCES)));
    }
    Err(exec_error(Code::ExecNotFound, name, "executable file not found in $PATH")
        .hint("args[0] is looked up in the PATH of process.env, inside the container"))
}

/// A regular file that the effective user may execute; else an errno.
fn executable(path: &str) -> std::result::Result<(), i32> {
    match may_execute(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(EACCES),
        Err(error) => Err(error.errno),
    }
}

fn exec_error(code: Code, name: &str, why: &str) -> Error {
    Error::new(code, format!("exec: {name:?}: {why}")).field("/process/args/0").object(name)
}

/// The error of execve(2) itself.
pub fn execve_error(program: &Program, cause: hull_sys::SysError) -> Error {
    let path = program.path.to_string_lossy();
    let code = match cause.errno {
        ENOENT => Code::ExecNotFound,
        _ => Code::ExecDenied,
    };
    let mut error = Error::sys(format!("exec {path}"), cause).code(code).object(path.clone());
    error.hint = match cause.errno {
        ENOENT => {
            Some("the file exists: its interpreter (#! line or ELF loader) is missing in the image".into())
        }
        8 => Some("the file is no program for this machine, or lacks a #! line".into()),
        7 => Some("arguments and environment together are longer than the kernel takes".into()),
        _ => None,
    };
    error
}

#[cfg(test)]
mod tests {
    use super::Inherited;

    #[test]
    fn the_status_file_names_what_is_inherited() {
        let status = b"Name:\tCapBnd: (x)\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000440\nCapBnd:\t000001ffffffffff\n";
        let found = Inherited::parse(status).expect("both lines");
        assert_eq!((found.bounding, found.ignored_signals), (0x1ff_ffff_ffff, 0x1000));
        assert!(Inherited::parse(b"SigIgn:\t0\n").is_none());
    }
}
