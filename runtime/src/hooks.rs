//! Hooks (config.md "POSIX-platform Hooks"; R17): own environment only, own session, a deadline, bounded output.

use crate::error::{Code, Context, Error, Result};
use hull_plan::Hook;
use hull_sys::fd::{dup_onto, pipe};
use hull_sys::poll::wait_writable;
use hull_sys::process::{
    CStrings, Child, CloneRequest, WaitStatus, execve, exit_now, kill_group, setsid, spawn, wait_until,
};
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a hook may run that has no timeout of its own.
const DEADLINE: Duration = Duration::from_secs(60);

/// How much of a hook's output is kept for the error, in bytes; the rest is read and dropped.
const KEPT_OUTPUT: usize = 64 << 10;

const SIGKILL: i32 = 9;

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

/// What the child executes, made before the clone.
struct Program {
    path: CString,
    argv: CStrings,
    envp: CStrings,
}

impl Program {
    fn of(hook: &Hook) -> Result<Self> {
        let text = |text: &String| {
            CString::new(text.as_str())
                .map_err(|_| Error::new(Code::ConfigInvalid, "a hook's text holds a NUL byte"))
        };
        let args = if hook.args.is_empty() { std::slice::from_ref(&hook.path) } else { &hook.args };
        Ok(Self {
            path: text(&hook.path)?,
            argv: CStrings::new(args.iter().map(text).collect::<Result<_>>()?),
            envp: CStrings::new(hook.env.iter().map(text).collect::<Result<_>>()?),
        })
    }
}

fn run(hook: &Hook, state: &str) -> Result<()> {
    let program = Program::of(hook)?;
    let deadline = Instant::now() + timeout(hook);
    let (input_read, input_write) = pipe().context(|| "make a pipe")?;
    let (output_read, output_write) = pipe().context(|| "make a pipe")?;
    let child = spawn(&CloneRequest::default(), || execute(&program, &input_read, &output_write))
        .context(|| "start the hook")?;
    drop((input_read, output_write));
    let mut running = Running { child, ended: false };
    feed(input_write, state.as_bytes(), deadline)?;
    let output = drain(output_read, &running, deadline)?;
    match running.finish(deadline)? {
        None => Err(Error::new(
            Code::Timeout,
            format!("the hook ran longer than {:?} and was killed", timeout(hook)),
        )),
        Some(WaitStatus::Exited(0)) => Ok(()),
        Some(WaitStatus::Exited(EXEC_FAILED)) if output.starts_with(b"exec: ") => {
            Err(Error::new(Code::Hook, String::from_utf8_lossy(&output).trim_end().to_owned()))
        }
        Some(WaitStatus::Exited(code)) => Err(failed(&format!("exit status {code}"), &output)),
        Some(WaitStatus::Signaled(signal)) => {
            Err(failed(&format!("signal: {}", signal_words(signal)), &output))
        }
    }
}

const EXEC_FAILED: i32 = 127;

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

fn execute(program: &Program, input: &OwnedFd, output: &OwnedFd) -> Infallible {
    let prepare = || -> hull_sys::Result<()> {
        setsid()?;
        dup_onto(input.as_fd(), 0)?;
        dup_onto(output.as_fd(), 1)?;
        dup_onto(output.as_fd(), 2)?;
        // R7: a hook gets 0 to 2 only.
        hull_sys::fd::mark_cloexec_from(3)?;
        hull_sys::signal::reset_dispositions()?;
        hull_sys::signal::unblock_all().map(drop)
    };
    let error = match prepare() {
        Ok(()) => execve(&program.path, &program.argv, &program.envp),
        Err(error) => error,
    };
    let text =
        format!("exec: {}: {}\n", program.path.to_string_lossy(), crate::error::errno_text(error.errno));
    // The exit status alone tells it when the pipe is gone.
    let _unread = hull_sys::io::write_all(output.as_fd(), text.as_bytes());
    exit_now(EXEC_FAILED)
}

/// A hook's session; killed as a whole when it is dropped before its end.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    fn finish(&mut self, deadline: Instant) -> Result<Option<WaitStatus>> {
        let status = wait_until(self.child.pidfd.as_fd(), deadline).context(|| "wait for the hook")?;
        self.ended = status.is_some();
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // Gone already, or killed now: both are what is wanted.
            let _gone = kill_group(self.child.pid, SIGKILL);
            let _reaped = hull_sys::process::wait(self.child.pidfd.as_fd());
        }
    }
}

/// Writes the state document; a hook that does not read it is no error.
fn feed(input: OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<()> {
    hull_sys::fd::set_nonblocking(input.as_fd(), true).context(|| "prepare the hook's input")?;
    let mut input = File::from(input);
    while !bytes.is_empty() {
        match input.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait_writable(input.as_fd(), Some(deadline)).context(|| "wait for the hook")? {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).context(|| "write to the hook"),
        }
    }
    Ok(())
}

/// Reads the output until the hook ends: a process it left behind may hold the pipe open for ever.
fn drain(output: OwnedFd, running: &Running, deadline: Instant) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    hull_sys::fd::set_nonblocking(output.as_fd(), true).context(|| "prepare the hook's output")?;
    let mut file = File::from(output);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(kept),
            Ok(count) => {
                let room = KEPT_OUTPUT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let pipe_first = hull_sys::poll::wait_any_readable(
                    &[file.as_fd(), running.child.pidfd.as_fd()],
                    Some(deadline),
                )
                .context(|| "wait for the hook")?;
                if pipe_first != Some(0) {
                    return Ok(kept);
                }
            }
            Err(error) => return Err(error).context(|| "read from the hook"),
        }
    }
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
