//! Into the namespaces: which clone, which joins, which maps.

use crate::errand::{Company, Errand, Program};
use crate::error::{Code, Context, Error, Result};
use crate::link::{Link, ToParent};
use hull_plan::{EntryScript, HostFacts, IdMap, IdMaps, NamespaceKind, Plan};
use hull_rooted::{Entry as ProcEntry, Proc, View};
use hull_sys::errno::EPERM;
use hull_sys::fs::{OFlags, fstat};
use hull_sys::namespace::{CloneFlags, namespace_type, setns, unshare};
use hull_sys::process::{CloneRequest, Pid, WaitStatus, exit_now, spawn};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A namespace to be joined, opened and checked before the clone.
#[derive(Debug)]
pub struct OpenNamespace {
    kind: NamespaceKind,
    fd: OwnedFd,
    path: String,
    field: String,
}

/// The way in, with everything opened that is looked up outside.
#[derive(Debug)]
pub struct Entry<'a> {
    script: &'a EntryScript,
    joins: Vec<OpenNamespace>,
    route: Route,
}

/// How many clones it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// One clone with every flag.
    Direct,
    /// A relay joins the namespaces and clones the container's process as its sibling: where a joined user namespace has
    /// to own the new namespaces, where a new user namespace would take away the right to join, or where a joined pid
    /// namespace is out of the runtime's own reach.
    Relay,
}

impl<'a> Entry<'a> {
    /// Opens the namespaces of `plan` (N3, N4).
    pub fn open(plan: &'a Plan, rootless: bool) -> Result<Self> {
        let script = &plan.entry;
        let joins = script.join.iter().map(open_namespace).collect::<Result<Vec<_>>>()?;
        let relay = script.joins(NamespaceKind::User)
            || (script.create.has(NamespaceKind::User) && !joins.is_empty())
            || (rootless && script.joins(NamespaceKind::Pid));
        let entry = Self { script, joins, route: if relay { Route::Relay } else { Route::Direct } };
        entry.refuse_own(plan).map(|()| entry)
    }

    /// Refuses what would be done to the host where a namespace that is joined by its path is the runtime's own.
    fn refuse_own(&self, plan: &Plan) -> Result<()> {
        for join in &self.joins {
            let harmless = match join.kind {
                NamespaceKind::Mount => Err(own_mounts(join)),
                kind => plan.refuse_in_hosts(kind).map_err(Error::from),
            };
            if let Err(refusal) = harmless
                && is_own(join)?
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// True when the process has another cgroup namespace than the runtime. What an ordinary user joins counts as another
    /// one: their container is shown nothing that is the user's.
    pub fn has_own_cgroups(&self, facts: &HostFacts) -> Result<bool> {
        match self.joins.iter().find(|join| join.kind == NamespaceKind::Cgroup) {
            Some(join) if !facts.rootless => is_own(join).map(|own| !own),
            _ => Ok(self.script.has_own(NamespaceKind::Cgroup)),
        }
    }

    /// True when the container's process is announced by [`ToParent::InitPid`].
    pub fn uses_relay(&self) -> bool {
        self.route == Route::Relay
    }

    /// True when the process is still who the runtime is, and no ordinary user, until [`Self::finish`]: also in a user
    /// namespace of its own, where it becomes root only then.
    pub fn begins_as_ourselves(&self, facts: &HostFacts) -> bool {
        !facts.rootless && self.route == Route::Direct
    }

    /// Numbers of the opened namespaces.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.joins.iter().map(|join| join.fd.as_raw_fd())
    }

    /// The joined namespace of a kind.
    pub fn joined(&self, kind: NamespaceKind) -> Option<BorrowedFd<'_>> {
        self.joins.iter().find(|join| join.kind == kind).map(|join| join.fd.as_fd())
    }

    /// What the first clone asks for.
    pub fn first_flags(&self) -> CloneFlags {
        match self.route {
            Route::Direct => self.clone_flags(),
            Route::Relay => CloneFlags::empty(),
        }
    }

    /// Cgroup namespaces are made once the process sits in its control groups, or they show the wrong root; the time
    /// namespace once its offsets can be written.
    fn clone_flags(&self) -> CloneFlags {
        let later = self.script.create.without(NamespaceKind::Cgroup).without(NamespaceKind::Time);
        CloneFlags::from_bits(later.0)
    }

    /// Parent: moves into the pid namespace that the child is to be born in; dropping the result moves back.
    pub fn enter_pid_namespace(&self) -> Result<Option<PidNamespaceVisit>> {
        let Some(target) = self.joins.iter().find(|join| join.kind == NamespaceKind::Pid) else {
            return Ok(None);
        };
        if self.route == Route::Relay {
            return Ok(None);
        }
        let own = File::open("/proc/self/ns/pid").context(|| "open the runtime's pid namespace")?;
        setns(target.fd.as_fd(), CloneFlags::NEWPID).map_err(|cause| join_error(target, cause))?;
        Ok(Some(PidNamespaceVisit { own }))
    }

    /// Relay: joins, clones the container's process as the runtime's child, announces it, ends.
    pub fn relay(&self, link: &Link, process: impl FnOnce() -> Infallible) -> Result<Infallible> {
        let joins_user = self.joined(NamespaceKind::User).is_some();
        let mut refused = Vec::new();
        for target in self.joins.iter().filter(|target| target.kind != NamespaceKind::User) {
            match join(target) {
                // Without a right out here: the user namespace that is joined may give it.
                Err(error) if joins_user && error.errno == Some(EPERM) => refused.push(target),
                other => other?,
            }
        }
        for target in self.joins.iter().filter(|target| target.kind == NamespaceKind::User) {
            join(target)?;
            become_root_inside()?;
        }
        refused.into_iter().try_for_each(join)?;
        let request = CloneRequest { flags: self.clone_flags(), as_sibling: true, ..CloneRequest::default() };
        let child = spawn(&request, process).context(|| "clone the container's process")?;
        link.tell(&ToParent::InitPid(child.pidfd))?;
        exit_now(0)
    }

    /// Child, on the direct route: joins what the clone could not bring.
    pub fn join(&self) -> Result<()> {
        if self.route == Route::Relay {
            return Ok(());
        }
        self.joins.iter().filter(|target| target.kind != NamespaceKind::Pid).try_for_each(join)
    }

    /// Child, once the parent has written maps and control groups.
    pub fn finish(&self) -> Result<()> {
        if self.script.create.has(NamespaceKind::User) {
            become_root_inside()?;
        }
        if self.script.create.has(NamespaceKind::Cgroup) {
            unshare(CloneFlags::NEWCGROUP).context(|| "unshare the cgroup namespace")?;
        }
        if self.script.create.has(NamespaceKind::Time) {
            self.make_time_namespace()?;
        }
        Ok(())
    }

    /// clone3 with NEWTIME would fix the offsets at once: unshare, write them, then enter (time_namespaces(7)).
    fn make_time_namespace(&self) -> Result<()> {
        unshare(CloneFlags::NEWTIME).context(|| "unshare the time namespace")?;
        let proc = Proc::open(View::Processes).context(|| "open procfs")?;
        if !self.script.time_offsets.is_empty() {
            let mut text = String::new();
            for offset in &self.script.time_offsets {
                // Writing to a String cannot fail.
                let _never = writeln!(text, "{} {} {}", offset.clock, offset.seconds, offset.nanoseconds);
            }
            crate::last_mile::dumpable(|| proc.write_only(ProcEntry::Own("timens_offsets"), text.as_bytes()))
                .context(|| "write the time offsets")
                .map_err(|error| error.field("/linux/timeOffsets"))?;
        }
        let namespace = proc
            .open_link(ProcEntry::Own("ns/time_for_children"), OFlags::RDONLY)
            .context(|| "open the new time namespace")?;
        setns(namespace.as_fd(), CloneFlags::NEWTIME).context(|| "enter the time namespace")
    }
}

/// The runtime is in another pid namespace (for its children) until this is dropped.
#[derive(Debug)]
pub struct PidNamespaceVisit {
    own: File,
}

impl Drop for PidNamespaceVisit {
    fn drop(&mut self) {
        // Going back to the own namespace needs no right that the visit did not: it cannot fail after it succeeded.
        let _back = setns(self.own.as_fd(), CloneFlags::NEWPID);
    }
}

fn open_namespace(join: &hull_plan::JoinNamespace) -> Result<OpenNamespace> {
    let named = |error: Error| error.field(format!("{}/path", join.field)).object(join.path.clone());
    let fd = File::open(&join.path).context(|| format!("open namespace {}", join.path)).map_err(named)?;
    let wrong = |what: String| named(Error::new(Code::ConfigInvalid, format!("{}: {what}", join.path)));
    let kind = namespace_type(fd.as_fd()).map_err(|_| wrong("not a namespace".into()))?;
    if kind.bits() != join.kind.clone_flag() {
        return Err(wrong(format!("a namespace of another kind, not {}", join.kind.proc_name())));
    }
    Ok(OpenNamespace { kind: join.kind, fd: fd.into(), path: join.path.clone(), field: join.field.clone() })
}

/// The root would be switched in there, under every process of the host.
fn own_mounts(target: &OpenNamespace) -> Error {
    Error::new(Code::ConfigInvalid, "the mount namespace is the runtime's own")
        .field(format!("{}/path", target.field))
        .object(target.path.clone())
        .hint("leave the path out for a new one, or the entry for that of the host")
}

/// The runtime is in this namespace itself.
fn is_own(target: &OpenNamespace) -> Result<bool> {
    let path = format!("/proc/self/ns/{}", target.kind.proc_name());
    let own = File::open(&path).context(|| format!("open {path}"))?;
    let number = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let numbers = number(own.as_fd()).and_then(|own| Ok((own, number(target.fd.as_fd())?)));
    numbers.map(|(own, joined)| own == joined).context(|| format!("look at {path}"))
}

fn join(target: &OpenNamespace) -> Result<()> {
    setns(target.fd.as_fd(), CloneFlags::from_bits(target.kind.clone_flag()))
        .map_err(|cause| join_error(target, cause))
}

fn join_error(target: &OpenNamespace, cause: hull_sys::SysError) -> Error {
    Error::sys(format!("join {} namespace {}", target.kind.proc_name(), target.path), cause)
        .field(format!("{}/path", target.field))
        .object(target.path.clone())
}

/// Ids 0 inside a user namespace; where setgroups is denied the kernel refuses the call, and there is nothing to drop.
pub fn become_root_inside() -> Result<()> {
    match hull_sys::identity::set_groups(&[]) {
        Err(error) if error.is(EPERM) => {}
        other => other.context(|| "drop the groups in the user namespace")?,
    }
    hull_sys::identity::set_gids(0, 0, 0).context(|| "become group 0 in the user namespace")?;
    hull_sys::identity::set_uids(0, 0, 0).context(|| "become user 0 in the user namespace")
}

/// Parent: writes the id mappings of `pid`'s new user namespace.
pub fn write_id_maps(pid: Pid, maps: &IdMaps, facts: &HostFacts) -> Result<()> {
    let proc = Proc::open(View::Processes).context(|| "open procfs")?;
    let write = |file: &str, text: &str, field: &str| {
        proc.write_only(ProcEntry::Of(pid, file), text.as_bytes())
            .context(|| format!("write {file}"))
            .map_err(|error| error.field(field))
    };
    let single = |maps: &[IdMap], own: u32| matches!(maps, [map] if map.size == 1 && map.outside == own);
    if facts.uid == 0 {
        write("uid_map", &map_text(&maps.uid), "/linux/uidMappings")?;
        return write("gid_map", &map_text(&maps.gid), "/linux/gidMappings");
    }
    if single(&maps.uid, facts.uid) {
        write("uid_map", &map_text(&maps.uid), "/linux/uidMappings")?;
    } else {
        run_helper("newuidmap", pid, &maps.uid, "/linux/uidMappings")?;
    }
    if single(&maps.gid, facts.gid) {
        // Or negative group permissions could be dropped (CVE-2014-8989).
        write("setgroups", "deny", "/linux/gidMappings")?;
        write("gid_map", &map_text(&maps.gid), "/linux/gidMappings")
    } else {
        run_helper("newgidmap", pid, &maps.gid, "/linux/gidMappings")
    }
}

fn map_text(maps: &[IdMap]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        // Writing to a String cannot fail.
        let _never = writeln!(text, "{} {} {}", map.inside, map.outside, map.size);
        text
    })
}

/// How long a helper may take.
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// The only privileged helpers: found at fixed places, numbers as arguments, an empty environment (R23).
fn run_helper(name: &str, pid: Pid, maps: &[IdMap], field: &str) -> Result<()> {
    let path = ["/usr/bin/", "/bin/", "/usr/local/bin/", "/usr/sbin/"]
        .iter()
        .map(|directory| format!("{directory}{name}"))
        .find(|path| std::path::Path::new(path).exists())
        .ok_or_else(|| {
            Error::new(Code::Unsupported, format!("{name} is not installed"))
                .field(field)
                .hint("the package 'uidmap' has it; without it one id can be mapped: the caller's own")
        })?;
    write_by(&path, pid, maps, HELPER_DEADLINE).map_err(|error| error.field(field))
}

/// Has the helper at `path` write the maps.
fn write_by(path: &str, pid: Pid, maps: &[IdMap], patience: Duration) -> Result<()> {
    let numbers =
        maps.iter().flat_map(|map| [map.inside, map.outside, map.size]).map(|number| number.to_string());
    let args = [path.to_owned(), pid.as_raw().to_string()].into_iter().chain(numbers);
    let program = Program::new(path.to_owned(), args, [])?;
    let deadline = Instant::now() + patience;
    let errand = Errand { program: &program, input: b"", deadline, kept: 4 << 10, company: Company::Apart };
    let ended = errand.run().context(|| format!("run {path}"))?;
    match ended.status {
        Some(WaitStatus::Exited(0)) => Ok(()),
        None => Err(Error::new(Code::Timeout, format!("{path} did not end within {patience:?}"))
            .object(path)
            .hint("it may wait for the user database of the network (nsswitch.conf)")),
        Some(status) => {
            let said = String::from_utf8_lossy(&ended.output);
            let said = match said.trim_end() {
                "" => format!("it said nothing and ended with status {}", status.code()),
                said => said.to_owned(),
            };
            Err(Error::new(Code::Syscall, format!("{path} failed: {said}"))
                .for_want_of("the ranges must lie within the caller's lines of /etc/subuid and /etc/subgid")
                .hint(format!(
                    "{path} needs its set-user-ID bit as well, or the capability to change ids (setcap)"
                )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a script that stands for the helper, and has it called.
    fn called(script: &str, patience: Duration) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let place = hull_testkit::place::Scratch::new("helper");
        let path = place.join("newuidmap");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let map = IdMap { inside: 0, outside: 100_000, size: 65_536 };
        write_by(path.to_str().expect("UTF-8"), Pid::from_raw(7), &[map], patience)
    }

    #[test]
    fn the_helper_gets_numbers_and_no_environment() {
        let script = "[ \"$*\" = '7 0 100000 65536' ] && [ -z \"$HOME$USER$CARGO\" ]";
        called(script, Duration::from_secs(60)).expect("the helper's arguments");
    }

    #[test]
    fn what_a_helper_says_when_it_fails_is_told() {
        let ending = |said: &str| {
            format!(
                "newuidmap failed: {said} (the ranges must lie within the caller's lines of /etc/subuid and /etc/subgid)"
            )
        };
        let error = called("echo no such range >&2; exit 1", Duration::from_secs(60)).expect_err("exit 1");
        assert!(error.message.ends_with(&ending("no such range")), "{error}");
        // That of the shadow suite, where there is no /etc/subuid.
        let error = called("exit 3", Duration::from_secs(60)).expect_err("exit 3");
        assert!(error.message.ends_with(&ending("it said nothing and ended with status 3")), "{error}");
    }

    #[test]
    fn a_helper_that_hangs_is_given_up() {
        let error = called("sleep 600 & sleep 600", Duration::from_millis(200)).expect_err("late");
        assert_eq!(error.code, Code::Timeout);
        assert!(error.message.ends_with("newuidmap did not end within 200ms"), "{error}");
    }
}
