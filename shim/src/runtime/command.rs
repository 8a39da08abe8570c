//! Command lines, as go-runc writes them: globals, verb, options, id.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::process::Child;
use rustix::fs::MemfdFlags;

use crate::api::{CheckpointOptions, Options};
use crate::spawn::{Program, find_program};

/// The runtime that is started when the caller names none.
const DEFAULT_BINARY: &str = "hull";
/// Where containerd's clients expect runtime state.
const DEFAULT_ROOT: &str = "/run/containerd/runc";
/// Most bytes of a runtime's output that are read.
pub const OUTPUT_LIMIT: usize = 1 << 20;

/// A runtime program with the options that go before every verb.
#[derive(Debug, Clone)]
pub struct Runtime {
    options: Options,
    root: PathBuf,
}

/// What the container's process gets as its first three descriptors.
#[derive(Debug, Default)]
pub struct Streams<'fd> {
    /// For each of 0, 1 and 2 a descriptor, or `/dev/null`.
    pub fds: [Option<BorrowedFd<'fd>>; 3],
    /// The socket that receives the terminal.
    pub console: Option<PathBuf>,
}

impl Runtime {
    /// The runtime of `options` with the state of `namespace`.
    pub fn new(options: Options, namespace: &str) -> Self {
        let root = if options.root.is_empty() { DEFAULT_ROOT } else { &options.root };
        let root = Path::new(root).join(namespace);
        Self { options, root }
    }

    /// The program's name for messages.
    pub fn name(&self) -> &str {
        if self.options.binary_name.is_empty() { DEFAULT_BINARY } else { &self.options.binary_name }
    }

    /// The options that this runtime was named with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Starts the program with `verb`, logging to `log`. Its descriptors are `streams`.
    pub fn start(&self, log: &Path, verb: Vec<String>, streams: &Streams<'_>) -> Result<Child, String> {
        let path = find_program(self.name())
            .ok_or_else(|| format!("exec: \"{}\": executable file not found in $PATH", self.name()))?;
        let mut args = vec![self.name().to_owned()];
        args.extend(["--root".to_owned(), text(&self.root), "--log".to_owned(), text(log)]);
        args.extend(["--log-format".to_owned(), "json".to_owned()]);
        if self.options.systemd_cgroup {
            args.push("--systemd-cgroup".to_owned());
        }
        if !self.options.criu_path.is_empty() {
            args.extend(["--criu".to_owned(), self.options.criu_path.clone()]);
        }
        args.extend(verb);
        let mut program = Program::new(path, args);
        for (fd, number) in streams.fds.iter().zip(0..) {
            if let Some(fd) = fd {
                program = program.fd(*fd, number);
            }
        }
        program.start().map_err(|error| format!("start {}: {error}", self.name()))
    }

    /// `create`, with the container's streams.
    pub fn create(&self, bundle: &Path, streams: &Streams<'_>, id: &str) -> Vec<String> {
        let mut args = words(&["create", "--bundle"]);
        args.extend([text(bundle), "--pid-file".to_owned(), text(&bundle.join("init.pid"))]);
        self.add_console(&mut args, streams);
        self.add_start_options(&mut args);
        args.push(id.to_owned());
        args
    }

    /// `exec` of the process described in `process`.
    pub fn exec(&self, process: &Path, pid_file: &Path, streams: &Streams<'_>, id: &str) -> Vec<String> {
        let mut args = words(&["exec", "--process"]);
        args.push(text(process));
        self.add_console(&mut args, streams);
        args.extend(["--detach".to_owned(), "--pid-file".to_owned(), text(pid_file), id.to_owned()]);
        args
    }

    /// `restore` from the images at `image`, with the container's streams.
    pub fn restore(&self, bundle: &Path, image: &str, streams: &Streams<'_>, id: &str) -> Vec<String> {
        let mut args = words(&["restore", "--image-path", image, "--work-path"]);
        let work = if self.options.criu_work_path.is_empty() {
            text(&bundle.join("work"))
        } else {
            self.options.criu_work_path.clone()
        };
        args.extend([work, "--detach".to_owned(), "--pid-file".to_owned(), text(&bundle.join("init.pid"))]);
        self.add_console(&mut args, streams);
        if self.options.no_pivot_root {
            args.push("--no-pivot".to_owned());
        }
        args.extend(words(&["--no-subreaper", "--bundle"]));
        args.extend([text(bundle), id.to_owned()]);
        args
    }

    /// `checkpoint` to `path`.
    pub fn checkpoint(
        &self,
        bundle: &Path,
        path: &str,
        options: &CheckpointOptions,
        id: &str,
    ) -> Vec<String> {
        let image = if options.image_path.is_empty() { path } else { &options.image_path };
        let work =
            if options.work_path.is_empty() { text(&bundle.join("work")) } else { options.work_path.clone() };
        let mut args = words(&["checkpoint", "--image-path", image, "--work-path", &work]);
        let flags = [
            (options.open_tcp, "--tcp-established"),
            (options.external_unix_sockets, "--ext-unix-sk"),
            (options.terminal, "--shell-job"),
            (options.file_locks, "--file-locks"),
            (!options.exit, "--leave-running"),
        ];
        args.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()));
        if !options.cgroups_mode.is_empty() {
            args.extend(words(&["--manage-cgroups-mode", &options.cgroups_mode]));
        }
        for namespace in &options.empty_namespaces {
            args.extend(words(&["--empty-ns", namespace]));
        }
        args.push(id.to_owned());
        args
    }

    /// `kill` by number.
    pub fn kill(id: &str, signal: u32, all: bool) -> Vec<String> {
        let mut args = words(&["kill"]);
        if all {
            args.push("--all".to_owned());
        }
        args.extend([id.to_owned(), signal.to_string()]);
        args
    }

    /// `delete`, of a container in any state with `force`.
    pub fn delete(id: &str, force: bool) -> Vec<String> {
        if force { words(&["delete", "--force", id]) } else { words(&["delete", id]) }
    }

    fn add_console(&self, args: &mut Vec<String>, streams: &Streams<'_>) {
        if let Some(console) = &streams.console {
            args.extend(["--console-socket".to_owned(), text(console)]);
        }
    }

    fn add_start_options(&self, args: &mut Vec<String>) {
        if self.options.no_pivot_root {
            args.push("--no-pivot".to_owned());
        }
        if self.options.no_new_keyring {
            args.push("--no-new-keyring".to_owned());
        }
    }
}

/// A place in memory for what a runtime prints; reading it never waits.
pub fn output_file() -> Result<OwnedFd, String> {
    rustix::fs::memfd_create("runtime-output", MemfdFlags::CLOEXEC)
        .map_err(|errno| format!("memfd_create: {errno}"))
}

/// What was printed to [`output_file`], its first [`OUTPUT_LIMIT`] bytes.
pub fn read_output(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; OUTPUT_LIMIT.min(size_of_file(file))];
    let got = rustix::io::pread(file.as_fd(), bytes.as_mut_slice(), 0).unwrap_or(0);
    bytes.truncate(got);
    bytes
}

fn size_of_file(file: &OwnedFd) -> usize {
    rustix::fs::fstat(file).ok().and_then(|stat| usize::try_from(stat.st_size).ok()).unwrap_or(0)
}

/// Words of a command line.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
