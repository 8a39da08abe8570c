//! Hooks (config.md "POSIX-platform Hooks"; R17): own environment only, own session, a deadline, bounded output.

use crate::errand::{Company, Ended, Errand, Program};
use crate::error::{Code, Error, Result};
use crate::log::{Level, Log};
use crate::state::{ProcessIdentity, StateDir};
use hull_plan::{Hook, HookPlan};
use hull_sys::process::{Child, WaitStatus};
use std::time::{Duration, Instant};

/// How long a hook may run that has no timeout of its own.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much of a hook's output is kept for the error, in bytes; the rest is read and dropped.
const KEPT_OUTPUT: usize = 64 << 10;

/// Which process is the hook that runs, in the container's state directory.
const RUNNING: &str = "hook.json";

const SIGKILL: i32 = 9;

/// A moment in a container's life that has hooks.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The member of `hooks`.
    pub kind: &'static str,
    /// What they find on their standard input.
    pub state: &'a str,
    /// The container's, locked, for hooks of the runtime's side: another command can end them there ([`end_by_force`]).
    pub directory: Option<&'a StateDir>,
}

impl Moment<'_> {
    /// Runs the hooks one after another; the first that fails ends it (H17).
    pub fn run_all(&self, hooks: &[Hook]) -> Result<()> {
        hooks.iter().enumerate().try_for_each(|(index, hook)| self.run_one(index, hook))
    }

    /// Runs one hook.
    pub fn run_one(&self, index: usize, hook: &Hook) -> Result<()> {
        self.run(hook).map_err(|error| {
            error
                .code(Code::Hook)
                .within(format!("error running {} hook #{index}", self.kind))
                .field(hook.field.clone())
                .object(hook.path.clone())
        })
    }

    fn run(&self, hook: &Hook) -> Result<()> {
        let args = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
        let text = String::as_str;
        let program = Program::new(text(&hook.path), args.iter().map(text), hook.env.iter().map(text))?;
        let errand = Errand {
            program: &program,
            input: self.state.as_bytes(),
            deadline: Instant::now() + timeout(hook),
            kept: KEPT_OUTPUT,
            company: Company::Apart,
        };
        let ended = errand.run_known(|child| self.write_down(child))?;
        if let Some(directory) = self.directory {
            directory.discard(RUNNING);
        }
        judge(hook, &ended)
    }

    /// Without its note, on a full disk say, a hook cannot be ended early, but it runs.
    fn write_down(&self, child: &Child) {
        let Some(directory) = self.directory else { return };
        let note = ProcessIdentity::of(child.pid).ok().and_then(|process| serde_json::to_vec(&process).ok());
        if let Some(note) = note {
            let _full = directory.replace(RUNNING, &note);
        }
    }
}

/// prestart and createRuntime: the namespaces are there, and nothing of the container's runs yet.
pub fn before_entering(hooks: &HookPlan, state: &str, directory: &StateDir) -> Result<()> {
    let directory = Some(directory);
    Moment { kind: "prestart", state, directory }.run_all(&hooks.prestart)?;
    Moment { kind: "createRuntime", state, directory }.run_all(&hooks.create_runtime)
}

/// poststop: one that fails is a warning, and the others still run (H16).
pub fn after_the_end(hooks: &HookPlan, state: &str, directory: &StateDir, log: &Log) {
    let moment = Moment { kind: "poststop", state, directory: Some(directory) };
    for (index, hook) in hooks.poststop.iter().enumerate() {
        if let Err(error) = moment.run_one(index, hook) {
            log.write(Level::Warning, &error.message);
        }
    }
}

/// Kills the hook that another command runs for a container of this directory, if there is one.
pub fn end_by_force(directory: &StateDir) {
    let note = directory.note(RUNNING);
    if let Some(process) = note.and_then(|note| serde_json::from_slice::<ProcessIdentity>(&note).ok()) {
        // Gone in this moment is as good.
        let _gone = process.signal_session(SIGKILL);
    }
}

/// How long `hooks` may take together.
pub fn longest(hooks: &[Hook]) -> Duration {
    hooks.iter().map(timeout).sum()
}

fn timeout(hook: &Hook) -> Duration {
    hook.timeout_seconds.map_or(DEADLINE, |seconds| Duration::from_secs(seconds.into()))
}

fn judge(hook: &Hook, ended: &Ended) -> Result<()> {
    if let Some(why) = ended.never_executed() {
        return Err(Error::new(Code::Hook, why));
    }
    match ended.status {
        None => Err(Error::new(
            Code::Timeout,
            format!("the hook ran longer than {:?} and was killed", timeout(hook)),
        )),
        Some(WaitStatus::Exited(0)) => Ok(()),
        Some(WaitStatus::Exited(code)) => Err(failed(&format!("exit status {code}"), &ended.output)),
        Some(WaitStatus::Signaled(signal)) => {
            Err(failed(&format!("signal: {}", signal_words(signal)), &ended.output))
        }
    }
}

/// The words that the peers use for the signals that hooks usually die of.
fn signal_words(signal: i32) -> String {
    match signal {
        9 => "killed".into(),
        11 => "segmentation fault".into(),
        15 => "terminated".into(),
        31 => "bad system call".into(),
        other => hull_sys::signal::signal_name(other),
    }
}

fn failed(how: &str, output: &[u8]) -> Error {
    let output = String::from_utf8_lossy(output);
    Error::new(Code::Hook, format!("{how}, output: {}", output.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_seconds: Option<u32>) -> Hook {
        Hook {
            field: "/hooks/prestart/0".into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["ONLY=this".into()],
            timeout_seconds,
        }
    }

    fn prestart(state: &str) -> Moment<'_> {
        Moment { kind: "prestart", state, directory: None }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_own_environment() {
        let script = "read line; [ \"$line\" = state ] && [ \"$ONLY\" = this ] && [ -z \"$HOME\" ]";
        prestart("state\n").run_one(0, &shell(script, None)).expect("hook");
    }

    #[test]
    fn a_failing_hook_is_named_with_its_output() {
        let error = prestart("").run_one(2, &shell("echo why >&2; exit 7", None)).expect_err("exit 7");
        assert_eq!(error.to_string(), "error running prestart hook #2: exit status 7, output: why");
        assert_eq!(error.field.as_deref(), Some("/hooks/prestart/0"));
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let error = prestart("").run_one(0, &shell("sleep 600 & sleep 600", Some(1))).expect_err("timeout");
        assert_eq!(error.code, Code::Hook);
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "the deadline did not hold");
    }

    #[test]
    fn a_hook_that_writes_for_ever_is_killed_and_not_told_that_nobody_reads() {
        for script in ["exec yes", "trap '' PIPE; while echo y; do :; done 2>&-; exit 0"] {
            let error = prestart("").run_one(0, &shell(script, Some(1))).expect_err("timeout");
            assert!(error.to_string().contains("was killed"), "{error}");
        }
    }

    #[test]
    fn a_flood_of_output_neither_blocks_nor_fills_the_memory() {
        let error =
            prestart("").run_one(0, &shell("head -c 3000000 /dev/zero; exit 1", None)).expect_err("exit 1");
        assert!(error.to_string().len() < 3 * KEPT_OUTPUT + 1000);
    }

    /// More than a pipe holds, each way.
    #[test]
    fn a_hook_may_write_before_it_reads_a_long_state() {
        let script = "head -c 300000 /dev/zero; [ $(wc -c) -eq 300000 ]";
        prestart(&"s".repeat(300_000)).run_one(0, &shell(script, Some(30))).expect("hook");
    }

    #[test]
    fn what_a_hook_leaves_behind_is_not_waited_for_with_a_long_state() {
        let scratch = hull_testkit::place::Scratch::new("left");
        let note = scratch.join("pid");
        // It has the hook's input as well.
        let script = format!("exec 3<&0; sleep 600 & echo $! >{}", note.display());
        let start = Instant::now();
        prestart(&"s".repeat(300_000)).run_one(0, &shell(&script, None)).expect("hook");
        let pid = std::fs::read_to_string(note).expect("the pid");
        let ended = std::process::Command::new("kill").arg(pid.trim()).status().expect("kill");
        assert!(ended.success(), "what was left has ended before");
        assert!(start.elapsed() < DEADLINE, "it held the hook up");
    }

    #[test]
    fn a_missing_program_says_so() {
        let hook = Hook { path: "/no/such/hook".into(), args: vec![], ..shell("", None) };
        let error = prestart("").run_one(0, &hook).expect_err("missing");
        assert!(error.to_string().contains("no such file or directory"), "{error}");
    }
}
