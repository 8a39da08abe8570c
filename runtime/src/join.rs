//! `exec`: a further process in a running container, the parent's and the child's side.
//!
//! A sibling of create.rs and init.rs; they share functions, never a function with a mode.

use crate::console::{Console, Destination};
use crate::conversation::died_as;
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::groups::{self, Remaining, spawn_into};
use crate::init::{give_up, join_keyring};
use crate::last_mile::{Program, Walk, execve_error};
use crate::link::{Link, ToChild, ToParent};
use crate::log::Level;
use crate::oom_score;
use crate::seal::{self, Seal};
use crate::state::{Record, Status, never_executed};
use crate::step::{Step, at};
use crate::{document, pid_file, streams};
use hull_cgroup::{Cgroup, Door, SubPaths};
use hull_plan::{ExecPlan, HostFacts, NamespaceKind, ProcessPlan};
use hull_rooted::{Proc, Root, View};
use hull_sys::namespace::{CloneFlags, setns};
use hull_sys::process::{
    Child, CloneRequest, Pid, Title, execve, exit_now, pidfd_pid, pidfd_send_signal, spawn, wait, wait_until,
};
use hull_sys::scheduling::set_affinity;
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the process may take for one step.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// How long a killed process may take to be gone.
const KILLED_DEADLINE: Duration = Duration::from_secs(2);

const SIGKILL: i32 = 9;

/// What `exec` is asked for, beside the process itself.
#[derive(Debug)]
pub struct Request {
    /// `--console-socket`, connected, or our own.
    pub console: Option<Destination>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--preserve-fds`, with those of socket activation.
    pub preserve_fds: u32,
    /// `--cgroup`.
    pub sub_cgroups: Vec<String>,
}

/// What parent and child know of the container.
struct Target<'a> {
    init: OwnedFd,
    namespaces: CloneFlags,
    plan: &'a ExecPlan,
    facts: &'a HostFacts,
    record: &'a Record,
}

/// What the child takes along.
struct Luggage {
    link: Link,
    console: Option<Destination>,
    /// By which it enters the container's control groups itself; none: the parent puts it there.
    door: Option<Door>,
}

/// Starts the process; it runs its program when this returns.
pub fn join(
    request: Request,
    plan: &ExecPlan,
    record: &Record,
    facts: &HostFacts,
    globals: &Globals,
) -> Result<Child> {
    let init = record.init.as_ref().map(|init| init.open()).transpose()?.flatten();
    let init = init.ok_or_else(|| Error::new(Code::ContainerState, "cannot exec in a stopped container"))?;
    let seal = Seal::of_profile(plan.seccomp.as_ref()).map_err(|error| error.step(Step::CompileSeccomp))?;
    let namespaces = CloneFlags::from_bits(record.namespaces);
    let mut cgroup = Cgroup::open(&record.cgroup);
    let enters_itself = !facts.rootless && request.sub_cgroups.is_empty();
    let door = enters_itself.then(|| cgroup.door()).transpose()?.flatten();
    let target = Target { init, namespaces, plan, facts, record };
    let score = oom_score::lend(plan.process.oom_score_adj)?;
    // From before the first setns: the container's processes can see this one soon, and must not ptrace it or open
    // its descriptors (R12, CVE-2016-9962).
    hull_sys::process::set_dumpable(false).context(|| "become non-dumpable")?;
    let (link, child_link) = Link::pair()?;
    let walk = Walk {
        process: &plan.process,
        memory_policy: plan.memory_policy.as_ref(),
        personality: plan.personality,
        seal: seal.as_ref(),
        preserve_fds: request.preserve_fds,
        rootless: facts.rootless,
        own_root: target.namespaces.contains(CloneFlags::NEWNS),
    };
    let luggage = Luggage { link: child_link, console: request.console, door };
    let (child, remaining) = clone_into(&target, &walk, luggage, &cgroup)?;
    drop(score);
    let (child, settled) = settle(&target, &link, child, &mut cgroup, remaining, &request.sub_cgroups);
    let outcome = settled.and_then(|()| listen(&target, &link, &child, seal.as_ref(), globals));
    let finished = outcome.and_then(|()| finish(&request.pid_file, request.pidfd_socket.as_deref(), &child));
    match finished {
        Ok(()) => {
            let pid = child.pid.as_raw();
            globals.log.write(Level::Debug, &format!("container {}: process {pid} runs", record.id));
            Ok(child)
        }
        Err(error) => {
            // Gone already is as good. One in a container that was paused meanwhile dies when it goes on.
            let _gone = pidfd_send_signal(child.pidfd.as_fd(), SIGKILL);
            let _reaped = wait_until(child.pidfd.as_fd(), Instant::now() + KILLED_DEADLINE);
            Err(explain_silence(error, cgroup.is_frozen().unwrap_or(false)))
        }
    }
}

/// In a container that is paused nobody answers before it is resumed.
fn explain_silence(error: Error, paused: bool) -> Error {
    if !paused || error.code != Code::Timeout {
        return error;
    }
    let text = format!("the container is paused, and was not resumed within {STEP_DEADLINE:?}");
    error.within(text).hint("'resume' lets its processes go on")
}

fn finish(pid_file: &Option<PathBuf>, pidfd_socket: Option<&std::path::Path>, child: &Child) -> Result<()> {
    if let Some(path) = pid_file {
        pid_file::write(path, child.pid)?;
    }
    pidfd_socket.map_or(Ok(()), |path| pid_file::send_pidfd(path, child.pidfd.as_fd()))
}

/// True when the process has to be cloned by a relay inside the container's namespaces: an ordinary user may enter the
/// pid namespace only after the user namespace that owns it.
fn needs_relay(target: &Target<'_>) -> bool {
    target.facts.rootless && has(target, NamespaceKind::Pid)
}

fn has(target: &Target<'_>, kind: NamespaceKind) -> bool {
    target.namespaces.bits() & kind.clone_flag() != 0
}

/// One clone, from the container's pid namespace; the rest is joined by the child.
fn clone_into(
    target: &Target<'_>,
    walk: &Walk<'_>,
    luggage: Luggage,
    cgroup: &Cgroup,
) -> Result<(Child, Remaining)> {
    let visits = has(target, NamespaceKind::Pid) && !needs_relay(target);
    let own = File::open("/proc/self/ns/pid").context(|| "open the runtime's pid namespace")?;
    if visits {
        setns(target.init.as_fd(), CloneFlags::NEWPID).context(|| "enter the container's pid namespace")?;
    }
    let enters_itself = luggage.door.is_some();
    if let Some(init) = target.record.init.as_ref().filter(|_| has(target, NamespaceKind::User)) {
        let map = streams::uid_map_of(init.pid);
        // Or the number is a stranger's by now, and the map with it.
        if init.is_alive() {
            streams::hand_through(&target.plan.process, &map);
        }
    }
    let mut title = Title::take_on(&["hull", "exec", &target.record.id]);
    let mut given = Some(luggage);
    let child = spawn_into(cgroup, enters_itself, &CloneRequest::default(), &mut || match given.take() {
        Some(luggage) => {
            title.keep();
            run_child(target, walk, luggage)
        }
        None => exit_now(1),
    })
    .context(|| "clone the process")
    .map_err(|error| error.step(Step::Clone));
    drop(title);
    if visits {
        setns(own.as_fd(), CloneFlags::NEWPID).context(|| "leave the container's pid namespace")?;
    }
    child
}

fn run_child(target: &Target<'_>, walk: &Walk<'_>, luggage: Luggage) -> Infallible {
    let mut needed = vec![luggage.link.fd().as_raw_fd(), target.init.as_raw_fd()];
    needed.extend(luggage.console.iter().map(|console| console.socket.as_raw_fd()));
    needed.extend(luggage.door.iter().flat_map(Door::descriptors));
    needed.extend((0..walk.preserve_fds).map(|index| 3 + index.cast_signed()));
    if let Err(error) = hull_sys::fd::close_all_but(needed).context(|| "close descriptors") {
        return give_up(&luggage.link, error.step(Step::Enter));
    }
    if needs_relay(target) {
        return relay_into(target, walk, luggage);
    }
    let rest = CloneFlags::from_bits(target.namespaces.bits() & !NamespaceKind::Pid.clone_flag());
    let Luggage { link, console, door } = luggage;
    run(target, rest, walk, &link, (console, door))
}

fn relay_into(target: &Target<'_>, walk: &Walk<'_>, luggage: Luggage) -> Infallible {
    let Luggage { link, console, door } = luggage;
    let cloned = enter(target, target.namespaces).and_then(|()| {
        let request = CloneRequest { as_sibling: true, ..CloneRequest::default() };
        spawn(&request, || run(target, CloneFlags::empty(), walk, &link, (console, door)))
            .context(|| "clone the process inside the container")
    });
    match cloned.and_then(|child| link.tell(&ToParent::InitPid(child.pidfd))) {
        Ok(()) => hull_sys::process::exit_now(0),
        Err(error) => give_up(&link, error.step(Step::Enter)),
    }
}

/// The child's side, to the program.
fn run(
    target: &Target<'_>,
    namespaces: CloneFlags,
    walk: &Walk<'_>,
    link: &Link,
    brought: (Option<Destination>, Option<Door>),
) -> Infallible {
    let error = match prepare(target, namespaces, walk, link, brought) {
        Ok(program) => {
            let cause = execve(&program.path, &program.argv, &program.envp);
            execve_error(&program, cause).step(Step::Exec)
        }
        Err(error) => error,
    };
    give_up(link, error)
}

fn prepare(
    target: &Target<'_>,
    namespaces: CloneFlags,
    walk: &Walk<'_>,
    link: &Link,
    (console, door): (Option<Destination>, Option<Door>),
) -> Result<Program> {
    at(Step::Enter, || link.await_order(ToChild::Proceed))?;
    if let Some(door) = door {
        at(Step::Cgroup, || groups::enter(door))?;
        at(Step::Limits, || set_final_cpus(&target.plan.process, Pid::from_raw(0)))?;
    }
    at(Step::Enter, || enter(target, namespaces))?;
    at(Step::Enter, || hull_sys::process::setsid().context(|| "setsid").map(drop))?;
    let keyring = (!target.record.keeps_keyring).then(|| format!("_ses.{}", target.record.id));
    at(Step::Keyring, || join_keyring(keyring.as_deref()))?;
    let proc = at(Step::Enter, || Proc::open(View::Whole).context(|| "open procfs"))?;
    if walk.process.terminal {
        at(Step::Console, || open_console(walk, console))?;
    }
    walk.to_program(&proc, link)
}

/// All namespaces by one pidfd: no path of the container is looked up.
fn enter(target: &Target<'_>, namespaces: CloneFlags) -> Result<()> {
    if namespaces.is_empty() {
        return Ok(());
    }
    setns(target.init.as_fd(), namespaces).context(|| "join the container's namespaces")?;
    if namespaces.contains(CloneFlags::NEWUSER) {
        crate::enter::become_root_inside()?;
    }
    Ok(())
}

fn open_console(walk: &Walk<'_>, socket: Option<Destination>) -> Result<()> {
    let root = Root::at("/").context(|| "open the container's root")?;
    let console = Console::open(&root, walk.process.uid, walk.process.console_size)?;
    if let Some(socket) = &socket {
        console.hand_over(socket)?;
    }
    console.take_over()
}

/// The parent's side, until the process may go on.
fn settle(
    target: &Target<'_>,
    link: &Link,
    child: Child,
    cgroup: &mut Cgroup,
    remaining: Remaining,
    sub_cgroups: &[String],
) -> (Child, Result<()>) {
    let child = if needs_relay(target) {
        match await_relayed(link, &child) {
            Ok(process) => process,
            Err(error) => return (child, Err(error)),
        }
    } else {
        child
    };
    let outcome =
        place(target, &child, cgroup, remaining, sub_cgroups).and_then(|()| link.order(ToChild::Proceed));
    (child, outcome)
}

fn await_relayed(link: &Link, relay: &Child) -> Result<Child> {
    match link.hear(Instant::now() + STEP_DEADLINE)? {
        Some(ToParent::InitPid(pidfd)) => {
            wait(relay.pidfd.as_fd()).context(|| "reap the relay")?;
            let pid = pidfd_pid(pidfd.as_fd()).context(|| "read the pid of the process")?;
            let pid = pid.ok_or_else(|| Error::new(Code::InitDied, "the process is gone"))?;
            Ok(Child { pid, pidfd })
        }
        Some(ToParent::Failed(error)) => Err(error.of_init()),
        _ => Err(died_as("the relay", relay)),
    }
}

/// CPUs before and after the move into the control groups (P21, P22).
fn place(
    target: &Target<'_>,
    child: &Child,
    cgroup: &mut Cgroup,
    remaining: Remaining,
    sub_cgroups: &[String],
) -> Result<()> {
    let process = &target.plan.process;
    set_cpus(&process.cpu_affinity_initial, child.pid, "/process/execCPUAffinity/initial")?;
    let init = target.record.init.as_ref().map_or(0, |init| init.pid);
    let rootless = target.facts.rootless;
    if sub_cgroups.is_empty() {
        groups::attach_beside(cgroup, child.pid, remaining, init, rootless)?;
    } else {
        let paths = SubPaths::parse(sub_cgroups)?;
        cgroup.join_sub(child.pid.as_raw(), &paths, init, rootless)?;
    }
    target.record.resctrl.join(child.pid.as_raw())?;
    if remaining == Remaining::All { set_final_cpus(process, child.pid) } else { Ok(()) }
}

fn set_final_cpus(process: &ProcessPlan, pid: Pid) -> Result<()> {
    if process.cpu_affinity_final.is_none() && process.cpu_affinity_initial.is_none() {
        groups::allow_all_cpus(pid);
    }
    set_cpus(&process.cpu_affinity_final, pid, "/process/execCPUAffinity/final")
}

fn set_cpus(mask: &Option<Vec<u64>>, pid: Pid, field: &str) -> Result<()> {
    let Some(mask) = mask else { return Ok(()) };
    set_affinity(pid, mask).context(|| "set the CPU affinity").map_err(|error| error.field(field))
}

fn listen(
    target: &Target<'_>,
    link: &Link,
    child: &Child,
    seal: Option<&Seal>,
    globals: &Globals,
) -> Result<()> {
    let mut ready = false;
    loop {
        match link.hear(Instant::now() + STEP_DEADLINE)? {
            None if ready && !never_executed(child.pid) => return Ok(()),
            None => return Err(died_as("the process", child)),
            Some(ToParent::Ready) => ready = true,
            Some(ToParent::Sealed) => {}
            Some(ToParent::Log(level, text)) => globals.log.write(level, &text),
            Some(ToParent::Failed(error)) => return Err(error.of_init()),
            Some(ToParent::SeccompFd(fd)) => {
                let Some(listener) = seal.and_then(|seal| seal.listener.as_ref()) else { continue };
                let state = document::state_value(target.record, Status::Running);
                seal::hand_over(listener, &fd, &state, child.pid.as_raw())?;
            }
            Some(other @ (ToParent::InitPid(_) | ToParent::MapIds(..) | ToParent::RootReady)) => {
                return Err(Error::new(
                    Code::InitDied,
                    format!("the process said {other:?}, which exec does not know"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_in_a_paused_container_is_told_as_such() {
        let late = || Error::new(Code::Timeout, "no answer");
        let told = explain_silence(late(), true);
        assert_eq!(told.message, "the container is paused, and was not resumed within 60s: no answer");
        assert_eq!(explain_silence(late(), false).message, "no answer");
        let dead = explain_silence(Error::new(Code::InitDied, "killed"), true);
        assert_eq!(dead.message, "killed");
    }
}
