//! conmon's command line (conmon(8)).

use std::path::PathBuf;

/// What a manager asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the options")]
pub struct Args {
    pub version: bool,
    pub api_version: u32,
    pub container: String,
    pub uuid: String,
    pub name: String,
    pub runtime: PathBuf,
    pub runtime_args: Vec<String>,
    pub runtime_opts: Vec<String>,
    pub bundle: PathBuf,
    pub container_pid_file: Option<PathBuf>,
    pub own_pid_file: Option<PathBuf>,
    pub logs: Vec<String>,
    pub log_size_max: u64,
    pub log_size_total: u64,
    pub log_rotate: bool,
    pub log_max_files: u32,
    pub log_tag: String,
    pub log_labels: Vec<String>,
    pub exit_dir: Option<PathBuf>,
    pub persist_dir: Option<PathBuf>,
    pub exit_command: Option<String>,
    pub exit_command_args: Vec<String>,
    pub exit_delay: u64,
    pub socket_dir: Option<PathBuf>,
    pub full_attach: bool,
    pub sdnotify_socket: Option<PathBuf>,
    pub restore: Option<String>,
    pub exec: bool,
    pub exec_attach: bool,
    pub exec_process: Option<PathBuf>,
    pub terminal: bool,
    pub stdin: bool,
    pub leave_stdin_open: bool,
    pub systemd_cgroup: bool,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub no_sync_log: bool,
    pub sync: bool,
    pub replace_listen_pid: bool,
    pub timeout: u64,
    pub partial_flag: bool,
    /// Start the container too, once it is created (by hand; managers do it themselves).
    pub start: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { partial_flag: true, ..Self::default() };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            if args.take_flag(&word) {
                continue;
            }
            if word == "--api-version" {
                // A flag to conmon's parser; podman gives a number after it.
                let number = words.next_if(|next| next.parse::<u32>().is_ok());
                args.api_version = number.and_then(|number| number.parse().ok()).unwrap_or(1);
                continue;
            }
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word.clone(), None),
            };
            let value =
                inline.or_else(|| words.next()).ok_or_else(|| format!("missing argument for {name}"))?;
            args.take_value(&name, value)?;
        }
        args.check()
    }

    /// Takes a flag without a value; false when `word` is none.
    fn take_flag(&mut self, word: &str) -> bool {
        let place = match word {
            "--version" => &mut self.version,
            "-e" | "--exec" => &mut self.exec,
            "--exec-attach" => &mut self.exec_attach,
            "-t" | "--terminal" => &mut self.terminal,
            "-i" | "--stdin" => &mut self.stdin,
            "--leave-stdin-open" => &mut self.leave_stdin_open,
            "-s" | "--systemd-cgroup" => &mut self.systemd_cgroup,
            "--no-pivot" => &mut self.no_pivot,
            "--no-new-keyring" => &mut self.no_new_keyring,
            "--no-sync-log" => &mut self.no_sync_log,
            "--full-attach" => &mut self.full_attach,
            "--log-rotate" => &mut self.log_rotate,
            "--sync" => &mut self.sync,
            "--replace-listen-pid" => &mut self.replace_listen_pid,
            "--start" => &mut self.start,
            "--no-container-partial-message" => {
                self.partial_flag = false;
                return true;
            }
            // Its log is the container's and nothing else: what conmon sends to syslog goes to the sync pipe here.
            "--syslog" => return true,
            _ => return false,
        };
        *place = true;
        true
    }

    fn take_value(&mut self, name: &str, value: String) -> Result<(), String> {
        let number = |value: &str| value.parse::<i64>().map_err(|_| format!("{name} needs a number"));
        let positive = |value: &str| number(value).map(|number| u64::try_from(number).unwrap_or(0));
        let path = || Some(PathBuf::from(&value));
        match name {
            "-c" | "--cid" => self.container = value,
            "-u" | "--cuuid" => self.uuid = value,
            "-n" | "--name" => self.name = value,
            "-r" | "--runtime" => self.runtime = PathBuf::from(value),
            "--runtime-arg" => self.runtime_args.push(value),
            "--runtime-opt" | "--restore-arg" => self.runtime_opts.push(value),
            "-b" | "--bundle" => self.bundle = PathBuf::from(value),
            "-p" | "--container-pidfile" | "--pidfile" => self.container_pid_file = path(),
            "-P" | "--conmon-pidfile" => self.own_pid_file = path(),
            "-l" | "--log-path" => self.logs.push(value),
            "--log-size-max" => self.log_size_max = positive(&value)?,
            "--log-global-size-max" => self.log_size_total = positive(&value)?,
            "--log-max-files" => self.log_max_files = u32::try_from(positive(&value)?).unwrap_or(u32::MAX),
            "--log-tag" => self.log_tag = value,
            "--log-label" => self.log_labels.push(value),
            "--exit-dir" => self.exit_dir = path(),
            "-0" | "--persist-dir" => self.persist_dir = path(),
            "--exit-command" => self.exit_command = Some(value),
            "--exit-command-arg" => self.exit_command_args.push(value),
            "--exit-delay" => self.exit_delay = positive(&value)?,
            "--socket-dir-path" => self.socket_dir = path(),
            "--sdnotify-socket" => self.sdnotify_socket = path(),
            "--restore" => self.restore = Some(value),
            "--exec-process-spec" => self.exec_process = path(),
            "-T" | "--timeout" => self.timeout = positive(&value)?,
            "--api-version" => self.api_version = u32::try_from(positive(&value)?).unwrap_or(1),
            "--log-level"
            | "--log-allowlist-dir"
            | "--seccomp-notify-socket"
            | "--seccomp-notify-plugins" => {}
            other => return Err(format!("Unknown option {other}")),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, String> {
        if self.version {
            return Ok(self);
        }
        if self.container.is_empty() {
            return Err("Container ID not provided. Use --cid".to_owned());
        }
        if self.runtime.as_os_str().is_empty() {
            return Err("Runtime path not provided. Use --runtime".to_owned());
        }
        if self.exec && self.bundle.as_os_str().is_empty() && self.container_pid_file.is_none() {
            return Err("Container PID file not provided. Use --container-pidfile".to_owned());
        }
        if self.exec && self.exec_process.is_none() {
            return Err("Exec process spec path not provided. Use --exec-process-spec".to_owned());
        }
        // CRI-O names no bundle for an exec.
        let needs_bundle = !self.exec || !self.bundle.as_os_str().is_empty();
        if needs_bundle && !self.bundle.is_absolute() {
            return Err("Bundle path must be absolute. Use --bundle".to_owned());
        }
        Ok(self)
    }

    /// Our variable that shall hold the runtime's process id: without it the runtime takes no descriptor for one of socket
    /// activation (sd_listen_fds(3)).
    pub fn pid_variable(&self) -> Option<&'static str> {
        let name = "LISTEN_PID";
        (self.replace_listen_pid && std::env::var_os(name).is_some()).then_some(name)
    }

    /// How many descriptors from 3 on the runtime shall have: those of socket activation first.
    pub fn runtime_fds(&self) -> i32 {
        let activated: Option<i32> =
            self.pid_variable().and_then(|_| std::env::var("LISTEN_FDS").ok()?.parse().ok());
        activated.unwrap_or(0).max(0).saturating_add(self.preserved_fds().max(0))
    }

    fn preserved_fds(&self) -> i32 {
        let mut opts = self.runtime_opts.iter();
        while let Some(opt) = opts.next() {
            let value = match opt.strip_prefix("--preserve-fds") {
                Some("") => opts.next().map(String::as_str),
                Some(rest) => rest.strip_prefix('='),
                None => continue,
            };
            return value.and_then(|value| value.parse().ok()).unwrap_or(0);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args, String> {
        Args::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn podmans_command_line_is_understood() {
        let args = parse(
            "--api-version 1 -c abc -u def -r /usr/bin/hull -b /b -p /b/pidfile -n web --exit-dir /x --full-attach -s \
             -l k8s-file:/b/ctr.log --log-level=error --syslog --conmon-pidfile /b/conmon.pid --exit-command /podman \
             --exit-command-arg --root --exit-command-arg /r -t -i --log-size-max 100 --runtime-arg --log-format=json",
        )
        .unwrap();
        assert_eq!((args.api_version, args.container.as_str(), args.log_size_max), (1, "abc", 100));
        assert_eq!(args.exit_command_args, ["--root", "/r"]);
        assert_eq!(args.runtime_args, ["--log-format=json"]);
        assert!(args.terminal && args.stdin && args.systemd_cgroup && args.full_attach && args.partial_flag);
    }

    #[test]
    fn command_lines_of_cri_o_are_understood() {
        let create = parse(
            "-b /run/b -c abc --exit-dir /var/run/crio/exits -l /var/log/pods/p/c/0.log --log-level info -n k8s_c_p \
             -P /run/b/conmon-pidfile -p /run/b/pidfile --persist-dir /var/lib/c/userdata -r /usr/bin/hull \
             --runtime-arg --root=/run/hull --socket-dir-path /var/run/crio --syslog -u abc -s --log-size-max 16384 \
             --no-sync-log --log-path journald: --no-pivot --leave-stdin-open -i --restore /var/lib/c/checkpoint \
             --runtime-opt --lsm-profile=selinux:a:b:c",
        )
        .unwrap();
        assert_eq!(create.logs, ["/var/log/pods/p/c/0.log", "journald:"]);
        assert_eq!((create.api_version, create.log_size_max), (0, 16384));
        assert_eq!(create.exit_dir, Some("/var/run/crio/exits".into()));
        assert_eq!(create.persist_dir, Some("/var/lib/c/userdata".into()));
        assert_eq!(create.own_pid_file, Some("/run/b/conmon-pidfile".into()));
        assert_eq!(create.container_pid_file, Some("/run/b/pidfile".into()));
        assert_eq!(create.socket_dir, Some("/var/run/crio".into()));
        assert_eq!(create.runtime_args, ["--root=/run/hull"]);
        assert_eq!(create.runtime_opts, ["--lsm-profile=selinux:a:b:c"]);
        assert_eq!(create.restore.as_deref(), Some("/var/lib/c/checkpoint"));
        assert!(create.systemd_cgroup && create.no_sync_log && create.no_pivot);
        assert!(create.leave_stdin_open && create.stdin && !create.terminal);

        let exec = parse(
            "-c abc -n k8s_c_p -r /usr/bin/hull -p /tmp/pidfile1 -e -l /tmp/crio-log-abc1 --socket-dir-path /var/run/crio \
             --log-level info --sync --log-global-size-max 16777216 -t -T 5 -s --exec-process-spec /tmp/exec-1 \
             --runtime-arg --root=/run/hull",
        )
        .unwrap();
        assert!(exec.exec && exec.sync && exec.terminal && exec.systemd_cgroup);
        assert_eq!((exec.timeout, exec.log_size_total), (5, 16_777_216));
        assert_eq!(exec.exec_process, Some("/tmp/exec-1".into()));
    }

    #[test]
    fn version_of_the_protocol_is_a_flag_with_or_without_a_number() {
        for (text, version) in [("--api-version 1", 1), ("--api-version", 1), ("--api-version=1", 1), ("", 0)]
        {
            let args = parse(&format!("{text} -c abc -r /r -b /b")).unwrap();
            assert_eq!((args.api_version, args.container.as_str()), (version, "abc"), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(parse("-r /r -b /b").unwrap_err().contains("--cid"));
        assert!(parse("-c a -b /b").unwrap_err().contains("--runtime"));
        assert!(parse("-c a -r /r -b b").unwrap_err().contains("absolute"));
        assert!(parse("-c a -r /r -b /b -e").unwrap_err().contains("--exec-process-spec"));
        assert!(parse("-c a -r /r -e --exec-process-spec /s").unwrap_err().contains("--container-pidfile"));
        assert!(parse("-c a --nonsense 1").unwrap_err().contains("Unknown option"));
        assert!(parse("--version").unwrap().version);
    }

    #[test]
    fn preserved_fds_come_from_the_runtimes_options() {
        let args = |opts: &[&str]| Args {
            runtime_opts: opts.iter().map(|opt| (*opt).to_owned()).collect(),
            ..Args::default()
        };
        assert_eq!(args(&["--preserve-fds", "2"]).preserved_fds(), 2);
        assert_eq!(args(&["--x", "--preserve-fds=3"]).preserved_fds(), 3);
        assert_eq!(args(&[]).preserved_fds(), 0);
    }
}
