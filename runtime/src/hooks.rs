//! Hooks (config.md "POSIX-platform Hooks"; R17): own environment only, own session, a deadline, bounded output.

use crate::errand::{Company, Errand, Program};
use crate::error::{Code, Error, Result};
use hull_plan::Hook;
use hull_sys::process::WaitStatus;
use std::time::{Duration, Instant};

/// How long a hook may run that has no timeout of its own.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much of a hook's output is kept for the error, in bytes; the rest is read and dropped.
const KEPT_OUTPUT: usize = 64 << 10;

/// Runs `hooks` one after another with `state` on their standard input; the first that fails ends it (H17).
pub fn run_all(kind: &str, hooks: &[Hook], state: &str) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(kind, index, hook, state)?;
    }
    Ok(())
}

/// Runs one hook.
pub fn run_one(kind: &str, index: usize, hook: &Hook, state: &str) -> Result<()> {
    run(hook, state).map_err(|error| {
        error
            .code(Code::Hook)
            .within(format!("error running {kind} hook #{index}"))
            .field(hook.field.clone())
            .object(hook.path.clone())
    })
}

/// How long `hooks` may take together.
pub fn longest(hooks: &[Hook]) -> Duration {
    hooks.iter().map(timeout).sum()
}

fn timeout(hook: &Hook) -> Duration {
    hook.timeout_seconds.map_or(DEADLINE, |seconds| Duration::from_secs(seconds.into()))
}

fn run(hook: &Hook, state: &str) -> Result<()> {
    let args = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
    let text = String::as_str;
    let program = Program::new(text(&hook.path), args.iter().map(text), hook.env.iter().map(text))?;
    let errand = Errand {
        program: &program,
        input: state.as_bytes(),
        deadline: Instant::now() + timeout(hook),
        kept: KEPT_OUTPUT,
        company: Company::Apart,
    };
    let ended = errand.run()?;
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

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_own_environment() {
        let script = "read line; [ \"$line\" = state ] && [ \"$ONLY\" = this ] && [ -z \"$HOME\" ]";
        run_one("prestart", 0, &shell(script, None), "state\n").expect("hook");
    }

    #[test]
    fn a_failing_hook_is_named_with_its_output() {
        let error = run_one("poststart", 2, &shell("echo why >&2; exit 7", None), "").expect_err("exit 7");
        assert_eq!(error.to_string(), "error running poststart hook #2: exit status 7, output: why");
        assert_eq!(error.field.as_deref(), Some("/hooks/prestart/0"));
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let error =
            run_one("prestart", 0, &shell("sleep 600 & sleep 600", Some(1)), "").expect_err("timeout");
        assert_eq!(error.code, Code::Hook);
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "the deadline did not hold");
    }

    #[test]
    fn a_flood_of_output_neither_blocks_nor_fills_the_memory() {
        let error = run_one("prestart", 0, &shell("head -c 3000000 /dev/zero; exit 1", None), "")
            .expect_err("exit 1");
        assert!(error.to_string().len() < 3 * KEPT_OUTPUT + 1000);
    }

    #[test]
    fn a_missing_program_says_so() {
        let hook = Hook { path: "/no/such/hook".into(), args: vec![], ..shell("", None) };
        let error = run_one("createRuntime", 0, &hook, "").expect_err("missing");
        assert!(error.to_string().contains("no such file or directory"), "{error}");
    }
}
