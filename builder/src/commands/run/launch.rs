//! How a container of `run` is started: in the foreground, or under a monitor.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use hull_image::Lock;
use serde_json::{Value, json};

use super::super::Outcome;
use super::super::containers::{self, Place};
use super::Arguments;
use crate::signals::{self, Held};
use crate::{host, rootless};

type Failure = Box<dyn std::error::Error>;

/// Runs the runtime with our own input and output, and ends with the container's code.
pub(super) fn foreground(place: &Place, arguments: &Arguments, signals: Held) -> Outcome {
    let bundle = place.dir.display().to_string();
    let log = runtime_log(place);
    let options = ["--log", &log, "--log-format", "json"];
    let mut command = place.runtime(&options);
    command.args(["run", "--bundle", &bundle, &place.container.id]);
    if !arguments.interactive && !arguments.tty {
        command.stdin(Stdio::null());
    }
    let child = signals.spawn(&mut command);
    let mut child = child.map_err(|e| format!("start {}: {e}", place.container.runtime.display()))?;
    signals::pass_on(signals, &child)?;
    // Should this process be killed, the runtime stays where the container's root is mounted. Without the note nothing else is
    // lost.
    drop(rootless::shared::is_held_by(&host::store_dir(), child.id()));
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    // The runtime has told its error on our standard error, and the code 1 is also the container's to use.
    let code = complaint(Path::new(&log)).filter(|_| code == 1).map_or(code, |said| refusal_code(&said));
    // Whoever has removed the container by force meanwhile has no use for the note, nor a place for it.
    drop(fs::write(place.exits().join(&place.container.id), code.to_string()));
    place.clean_up(&host::open_store()?)?;
    Ok(ExitCode::from(code as u8))
}

/// Starts a detached container; one that cannot run is removed.
pub(super) fn background(place: &Place, lock: Lock) -> Outcome {
    let held = hold(place);
    drop(lock);
    match held {
        Ok(()) => println!("{}", place.container.id),
        Err(reason) => {
            eprintln!("hull-build: run: {reason}");
            discard(place);
            return Ok(ExitCode::from(refusal_code(&reason) as u8));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a monitor, which creates the container and holds its output; then starts the container.
///
/// # Errors
/// Why it did not start.
pub(crate) fn hold(place: &Place) -> Result<(), String> {
    let said = |reason: String| complaint(Path::new(&runtime_log(place))).unwrap_or(reason);
    watched(monitor_command(place).map_err(|e| e.to_string())?).map_err(said)?;
    // It is who stays where the container's root is mounted.
    place
        .monitor()
        .map_or(Ok(()), |pid| rootless::shared::is_held_by(&host::store_dir(), pid))
        .map_err(|e| crate::error::chain(&e))?;
    let output = place.ask(&["start", &place.container.id]).map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(said(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Starts a monitor that holds the terminal of one more process of a running container, which is told in the file
/// `process`; what the runtime complains of comes to `log`.
///
/// # Errors
/// Why it did not start.
pub(crate) fn hold_exec(place: &Place, process: &str, log: &str) -> Result<(), String> {
    let id = containers::new_id().map_err(|e| e.to_string())?;
    // The monitor's own files, which nobody asks for; beside those of the container's monitor.
    let own = place.dir.join(format!("exec-{}", &id[..8]));
    fs::create_dir(&own).map_err(|e| format!("make {}: {e}", own.display()))?;
    let command = monitor(place, &id, log, &own).map(|mut command| {
        command.args(["--exec", "--exec-process-spec", process, "--terminal", "--log-path", "none"]);
        command
    });
    let started = command.map_err(|e| e.to_string()).and_then(watched);
    // They go with the container's directory at the latest.
    let _ = hull_image::remove(&own);
    started.map_err(|reason| complaint(Path::new(log)).unwrap_or(reason))
}

/// Starts a monitor and waits until it has created what it watches.
fn watched(mut command: Command) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().map_err(|e| format!("make a pipe: {e}"))?;
    // The monitor writes to this pipe once the process is created: it must inherit it.
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).map_err(|e| e.to_string())?;
    command.env("_OCI_SYNCPIPE", writer.as_raw_fd().to_string());
    let status = command.status();
    drop(writer);
    let name = command.get_program().display();
    if !status.map_err(|e| format!("start {name}: {e}"))?.success() {
        return Err("the monitor could not be started".into());
    }
    created(reader)
}

fn runtime_log(place: &Place) -> String {
    place.dir.join("runtime.log").display().to_string()
}

/// The last error that the runtime noted in a log.
pub(crate) fn complaint(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let last: Value = serde_json::from_str(text.lines().last()?).ok()?;
    (last["level"] == "error").then(|| last["msg"].as_str().map(str::to_owned))?
}

/// The code that Docker ends with: 127 where there is no such program, 126 where it cannot be run, else 125.
pub(crate) fn refusal_code(said: &str) -> i32 {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match has(&["exec", "executable"]) {
        true if has(&["no such file", "not found", "No such file"]) => 127,
        true if has(&["ermission denied", "is a directory", "format error"]) => 126,
        _ => 125,
    }
}

/// Removes a container that never ran; the error that led here is the one to tell.
fn discard(place: &Place) {
    if let Ok(store) = host::open_store() {
        let _ = place.remove(&store);
    }
}

/// A call of a monitor for a process of the container that has this id, with its files in `dir`.
fn monitor(place: &Place, id: &str, log: &str, dir: &Path) -> Result<Command, Failure> {
    let program = containers::program("hull-monitor").or_else(|| containers::program("conmon"));
    let program = program.ok_or("there is neither hull-monitor nor conmon to hold a detached container")?;
    let mut command = Command::new(program);
    let container = &place.container;
    command.args(["--api-version", "1", "--cid", &container.id, "--cuuid", id, "--name", &container.name]);
    command.arg("--runtime").arg(&container.runtime);
    let root = format!("--root={}", place.runtime_root.display());
    for argument in [root.as_str(), "--log", log, "--log-format", "json"] {
        command.arg(format!("--runtime-arg={argument}"));
    }
    command.arg("--bundle").arg(dir).arg("--container-pidfile").arg(dir.join("pid"));
    command.arg("--socket-dir-path").arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn monitor_command(place: &Place) -> Result<Command, Failure> {
    let id = &place.container.id;
    let mut command = monitor(place, id, &runtime_log(place), &place.dir)?;
    command.arg("--conmon-pidfile").arg(place.dir.join("monitor"));
    command.arg("--exit-dir").arg(place.exits()).arg("--persist-dir").arg(&place.dir);
    command.args(["--log-path", &format!("k8s-file:{}", place.dir.join("log").display())]);
    let config: Value = serde_json::from_slice(&fs::read(place.dir.join("config.json"))?)?;
    if config["process"]["terminal"] == true {
        command.arg("--terminal");
    }
    command.arg("--exit-command").arg(std::env::current_exe()?);
    let (store, run) = (host::store_dir().display().to_string(), place.container.run.to_string());
    for argument in ["--root", &store, "after-exit", id, &run] {
        command.args(["--exit-command-arg", argument]);
    }
    Ok(command)
}

/// Reads the monitor's line: the container's pid, or why there is none.
fn created(reader: impl Read) -> Result<(), String> {
    // The monitor keeps the pipe for what comes later: its first line is the answer.
    let mut line = String::new();
    let read = BufReader::new(reader.take(64 << 10)).read_line(&mut line);
    read.map_err(|e| format!("read the monitor's answer: {e}"))?;
    let answer: Value = serde_json::from_str(&line).unwrap_or(json!({}));
    let pid = answer["data"].as_i64().or(answer["pid"].as_i64()).unwrap_or(-1);
    match pid > 0 {
        true => Ok(()),
        false => {
            Err(answer["message"].as_str().unwrap_or("the container could not be created").trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_refuses_has_dockers_codes() {
        for (said, code) in [
            ("hull run failed: exec: \"/x\": stat /x: no such file or directory", 127),
            ("runc: exec: \"x\": executable file not found in $PATH", 127),
            ("executable file `x` not found: No such file or directory", 127),
            ("exec: \"/etc\": permission denied", 126),
            ("mount /x: no such file or directory", 125),
        ] {
            assert_eq!(refusal_code(said), code, "{said}");
        }
    }

    #[test]
    fn the_monitor_tells_a_pid_or_a_reason() {
        assert_eq!(created(&b"{\"data\": 12}\n"[..]), Ok(()));
        assert_eq!(
            created(&b"{\"data\": -1, \"message\": \"no such file\"}\n"[..]),
            Err("no such file".to_owned())
        );
        assert!(created(&b""[..]).is_err());
    }
}
