//! Calls of the runtime: its words, and the descriptors that become the container's streams.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use hull_sys::event::EventFlags;
use hull_sys::{fd, process};

use crate::io::ConsoleSocket;
use crate::runtime::{output_file, read_output};
use crate::spawn::Program;

use super::{CONSOLE, OVERDUE, RUNTIME_LIMIT, STDERR, STDOUT, Watch};

impl Watch<'_> {
    pub(super) fn start_runtime(&mut self) -> Result<(), String> {
        let text = |error: hull_sys::SysError| error.to_string();
        let mut fds = self.open_streams()?;
        let preserved =
            (3..self.args.runtime_fds().saturating_add(3)).map(|number| Ok((fd::adopt(number)?, number)));
        fds.extend(preserved.collect::<hull_sys::Result<Vec<_>>>().map_err(text)?);
        let mut program = Program::new(self.args.runtime.clone(), self.runtime_words());
        program.pid_variable = self.args.pid_variable();
        program.fds = fds.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
        let child =
            program.start().map_err(|error| format!("start {}: {error}", self.args.runtime.display()))?;
        self.runtime = Some(child.pid.as_raw());
        Ok(())
    }

    /// The runtime's ends of the streams, by number.
    fn open_streams(&mut self) -> Result<Vec<(OwnedFd, i32)>, String> {
        let text = |error: hull_sys::SysError| error.to_string();
        let mut fds: Vec<(OwnedFd, i32)> = Vec::new();
        if self.args.terminal {
            let name = if self.args.exec { "exec" } else { "init" };
            let socket = ConsoleSocket::new(&self.args.bundle, name)
                .map_err(|error| format!("console socket: {error}"))?;
            self.poll.add(socket.readable(), CONSOLE, EventFlags::IN).map_err(text)?;
            self.console = Some(socket);
            let (read, write) = fd::pipe().map_err(text)?;
            self.keep_output(1, read)?;
            fds.push((write, 2));
        } else if !self.logs.passthrough {
            if self.args.stdin {
                let (read, write) = fd::pipe().map_err(text)?;
                fd::set_nonblocking(write.as_fd(), true).map_err(text)?;
                self.stdin = Some(write);
                fds.push((read, 0));
            }
            for index in 0..2 {
                let (read, write) = fd::pipe().map_err(text)?;
                self.keep_output(index, read)?;
                fds.push((write, i32::from(index == 1) + 1));
            }
        } else {
            let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            for (own, number) in [(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)] {
                fds.push((fd::dup_above(own, 3).map_err(text)?, number));
            }
        }
        Ok(fds)
    }

    fn keep_output(&mut self, index: usize, read: OwnedFd) -> Result<(), String> {
        let text = |error: hull_sys::SysError| error.to_string();
        fd::set_nonblocking(read.as_fd(), true).map_err(text)?;
        let token = if index == 0 { STDOUT } else { STDERR };
        self.poll.add(read.as_fd(), token, EventFlags::IN).map_err(text)?;
        self.outputs[index] = Some(read);
        self.reading = true;
        Ok(())
    }

    fn runtime_words(&self) -> Vec<String> {
        let args = self.args;
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut words = vec![path(&args.runtime)];
        words.extend(args.runtime_args.iter().cloned());
        if args.systemd_cgroup {
            words.push("--systemd-cgroup".to_owned());
        }
        let pid_file = args.container_pid_file.clone().unwrap_or_else(|| args.bundle.join("pidfile"));
        let mut add = |all: &[&str]| words.extend(all.iter().map(|word| (*word).to_owned()));
        if args.exec {
            let process = args.exec_process.as_deref().map(path).unwrap_or_default();
            add(&["exec", "--pid-file", &path(&pid_file), "--process", &process, "--detach"]);
        } else if let Some(image) = &args.restore {
            add(&["restore", "--bundle", &path(&args.bundle), "--pid-file", &path(&pid_file), "--detach"]);
            add(&["--image-path", image, "--work-path", &path(&args.bundle)]);
        } else {
            add(&["create", "--bundle", &path(&args.bundle), "--pid-file", &path(&pid_file)]);
        }
        if args.no_pivot && !args.exec {
            add(&["--no-pivot"]);
        }
        if args.no_new_keyring && !args.exec {
            add(&["--no-new-keyring"]);
        }
        if let Some(console) = &self.console {
            add(&["--console-socket", &path(&console.path())]);
        }
        words.extend(args.runtime_opts.iter().cloned());
        words.push(args.container.clone());
        words
    }

    /// Creates the container and gives its pid. By hand nobody else clears up after a runtime that was killed half way.
    pub fn create(&mut self) -> Result<u32, String> {
        let created = self.run_runtime();
        // One that failed by itself has cleared up, or refused a container that is another's.
        let was_killed = self.runtime.is_some() || self.runtime_ended.is_some_and(|code| code > 128);
        if created.is_err() && was_killed && self.args.start {
            // Why it was not created is what is told.
            let _ = self.call_runtime(&["delete", "--force"]);
        }
        created
    }

    /// By hand nobody else starts it, and nobody else clears up when it does not start.
    pub fn start_container(&mut self) -> Result<(), String> {
        let started = self.call_runtime(&["start"]);
        if started.is_err() {
            // Why it did not start is what is told.
            let _ = self.call_runtime(&["delete", "--force"]);
        }
        started
    }

    /// Calls the runtime for the container; the error is what it said.
    fn call_runtime(&mut self, verb: &[&str]) -> Result<(), String> {
        let mut words = vec![self.args.runtime.to_string_lossy().into_owned()];
        words.extend(self.args.runtime_args.iter().cloned());
        words.extend(verb.iter().map(|word| (*word).to_owned()));
        words.push(self.args.container.clone());
        let said = output_file()?;
        let program = Program::new(self.args.runtime.clone(), words).fd(said.as_fd(), 2);
        let child =
            program.start().map_err(|error| format!("start {}: {error}", self.args.runtime.display()))?;
        (self.runtime, self.runtime_ended) = (Some(child.pid.as_raw()), None);
        let deadline = Instant::now() + RUNTIME_LIMIT;
        while self.runtime_ended.is_none() && Instant::now() < deadline {
            self.step(Some(deadline))?;
        }
        let Some(status) = self.runtime_ended else {
            // It may have ended just now; then nothing of that number is there.
            let _ = process::kill_group(child.pid, 9);
            return Err(OVERDUE.to_owned());
        };
        let said = String::from_utf8_lossy(&read_output(&said)).trim_end().to_owned();
        match (status, said.is_empty()) {
            (0, _) => Ok(()),
            (_, true) => Err(format!("runtime failed with exit code {status}")),
            (_, false) => Err(said),
        }
    }
}
