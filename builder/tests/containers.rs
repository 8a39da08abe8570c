//! The flags of `run`, `exec`, `logs`, `ps`, `stop`, `start` and `rm`: what a container sees of them, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bed::{Bed, program, runtime};
use hull_testkit::call::eventually;
use rustix::process::{Pid, Signal};

const PATIENCE: Duration = Duration::from_secs(20);

/// A store with an image, and the runtime.
struct Yard {
    bed: Bed,
    runtime: String,
}

impl Drop for Yard {
    /// Of a test that fails no container goes on.
    fn drop(&mut self) {
        let left = self.bed.run(&["ps", "-aq", "--no-trunc"]).stdout;
        let left = String::from_utf8(left).unwrap_or_default();
        for id in left.lines() {
            drop(self.bed.run(&["rm", "-f", id]));
        }
    }
}

impl Yard {
    fn new() -> Option<Self> {
        let runtime = runtime()?;
        let bed = Bed::new();
        bed.image("lab/a:1");
        Some(Self { bed, runtime })
    }

    fn command(&self, flags: &[&str], script: &str) -> Command {
        let first = ["run", "--network", "none", "--runtime", &self.runtime];
        self.bed.command(&[&first, flags, &["lab/a:1", "sh", "-c", script]].concat())
    }

    fn output(&self, flags: &[&str], script: &str) -> Output {
        self.command(&[&["--rm"], flags].concat(), script).output().unwrap()
    }

    /// What a script in a container prints.
    fn says(&self, flags: &[&str], script: &str) -> String {
        let output = self.output(flags, script);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{flags:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said.trim_end().to_owned()
    }

    /// Starts a container in the background.
    fn detached(&self, name: &str, flags: &[&str], script: &str) {
        let output = self.command(&[&["-d", "--name", name], flags].concat(), script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts a script in front of the runtime: cases of its arguments, in the directory of the bed.
    fn runs_by(&mut self, cases: &str) {
        let (own, at) = (self.bed.path("runtime"), self.bed.dir.path().display());
        let real = &self.runtime;
        let script =
            format!("#!/bin/sh\nreal={real}\ncd {at}\ncase \" $* \" in\n{cases}\nesac\nexec $real \"$@\"\n");
        fs::write(&own, script).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        self.runtime = own.display().to_string();
    }

    fn names(&self, flags: &[&str]) -> String {
        let text = self.bed.ok(&[&["ps", "--format", "{{.Names}}"], flags].concat());
        text.lines().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn what_run_is_told_of_the_process_is_what_it_sees() {
    let Some(yard) = Yard::new() else { return };
    let file = yard.bed.path("env");
    fs::write(&file, "# a comment\nONE=1\n\nTWO=two words\nHOME_OF_CALLER\nHOME\n").unwrap();
    let file = file.display().to_string();
    let home = yard.bed.dir.path().display().to_string();
    let rows: [(&[&str], &str, &str); 12] = [
        (&["--env-file", &file], "echo $ONE,$TWO,$HOME_OF_CALLER,$HOME", &format!("1,two words,,{home}")),
        (&["-e", "A=2", "--env", "B=3"], "echo $A$B", "23"),
        (&["-w", "/etc"], "busybox pwd", "/etc"),
        (&["-u", "app"], "id -u; echo $HOME", "1000\n/"),
        (&["-u", "1000:50"], "id -u; id -g", "1000\n50"),
        (&["--hostname", "here"], "busybox hostname", "here"),
        (&["--read-only"], "echo x > /etc/x || echo refused", "refused"),
        (&["--read-only=false"], "echo x > /etc/x && echo taken", "taken"),
        (&["--cap-drop", "ALL"], "busybox grep CapEff /proc/self/status", "CapEff:\t0000000000000000"),
        (
            &["--cap-drop", "all", "--cap-add", "chown"],
            "busybox grep CapEff /proc/self/status",
            "CapEff:\t0000000000000001",
        ),
        (&["-it=false"], "busybox test -t 0 || echo none", "none"),
        (&[], "cat; echo end", "end"),
    ];
    for (flags, script, expected) in rows {
        assert_eq!(yard.says(flags, script), expected, "{flags:?}");
    }
    let first = ["run", "--rm", "--network=none", "--runtime", &yard.runtime];
    let words = |more: &[&str]| yard.bed.ok(&[&first, more].concat());
    assert_eq!(
        words(&["--entrypoint", "/bin/echo", "lab/a:1", "--rm", "-e", "x"]),
        "--rm -e x\n",
        "all after the image is its own"
    );
    assert_eq!(words(&["--entrypoint", "", "lab/a:1", "echo", "-n", "-d"]), "-d");
    let refused = yard.bed.run(&["run", "--nonsense", "lab/a:1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("unexpected argument '--nonsense'"), "{said}");
    let close = yard.bed.ok(&[
        "run",
        "--rm",
        "--network=none",
        "--runtime",
        &yard.runtime,
        "-eA=close",
        "-w/etc",
        "lab/a:1",
        "sh",
        "-c",
        "busybox pwd; echo $A",
    ]);
    assert_eq!(close, "/etc\nclose\n");
}

#[test]
fn limits_networks_and_volumes_reach_the_container() {
    let Some(yard) = Yard::new() else { return };
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    assert_eq!(yard.says(&["--memory", "64m"], limit), (64 << 20).to_string());
    let share = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true";
    assert_eq!(yard.says(&["--cpus", "0.5"], share).split(' ').next(), Some("50000"));
    let network = |flags: &[&str]| yard.says(flags, "busybox readlink /proc/self/ns/net");
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_ne!(network(&[]), own);
    assert_eq!(network(&["--network", "host"]), own, "the last one counts");
    let shared = yard.bed.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "host").unwrap();
    let bind = |mode: &str| format!("{}:/shared{mode}", shared.display());
    assert_eq!(
        yard.says(&["-v", &bind(":ro")], "cat /shared/f; echo x > /shared/g || echo refused"),
        "hostrefused"
    );
    yard.says(&["-v", &bind("")], "echo x > /shared/g");
    assert_eq!(fs::read_to_string(shared.join("g")).unwrap(), "x\n");
    assert!(yard.bed.fails(&["run", "--cpus", "0", "lab/a:1"]).contains("--cpus must be at least"));
}

#[test]
fn input_and_a_terminal_are_there_when_asked_for() {
    let Some(yard) = Yard::new() else { return };
    let mut child =
        yard.command(&["--rm", "-i"], "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
    let Some(script) = program("script") else { return };
    let command = yard.command(&["--rm", "-it"], "busybox tty; busybox stty size; exit 4");
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let line = format!("stty rows 33 cols 77; {}", words.join(" "));
    let mut terminal = Command::new(script);
    terminal.args(["-qec", &line, "/dev/null"]).env_clear().stdin(Stdio::null());
    terminal.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = terminal.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("/dev/pts/0") && said.contains("33 77"), "{said}");
    assert_eq!(output.status.code(), Some(4), "{said}");
}

#[test]
fn a_signal_to_a_foreground_run_reaches_its_container_and_nothing_is_left() {
    let Some(yard) = Yard::new() else { return };
    for (signal, code) in [("TERM", 5), ("INT", 6), ("HUP", 7)] {
        let script =
            "trap 'exit 5' TERM; trap 'exit 6' INT; trap 'exit 7' HUP; echo up; while :; do sleep 0.05; done";
        let mut child =
            yard.command(&["--rm", "--name", "fore"], script).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        let done = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(done.success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(yard.names(&["-a"]), "", "{signal}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(yard.bed.dir.path().to_str().unwrap()), "no mount is left");
}

#[test]
fn a_terminal_that_is_hung_up_ends_the_container_of_a_run_that_leads_its_session() {
    let Some(yard) = Yard::new() else { return };
    hull_testkit::needs!(hull_testkit::gate::program("script"));
    let script = "trap 'exit 7' HUP; echo up; while :; do sleep 0.05; done";
    let command = yard.command(&["--rm", "--name", "hung"], script);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> =
        words.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''"))).collect();
    let mut terminal = Command::new("script");
    terminal.args(["-qfec", &format!("exec {}", quoted.join(" ")), "/dev/null"]).env_clear();
    terminal.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    std::io::Read::read_exact(terminal.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"up");
    // Nobody has the other end of the terminal any more.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let gone = || yard.names(&["-a"]).is_empty();
    assert!(
        hull_testkit::call::eventually(std::time::Duration::from_secs(20), gone),
        "the container lives on"
    );
}

#[test]
fn exec_has_the_users_groups_home_and_what_its_flags_say() {
    let Some(yard) = Yard::new() else { return };
    yard.detached("e", &["-e", "FROM_RUN=1"], "while :; do sleep 0.1; done");
    let file = yard.bed.path("env");
    fs::write(&file, "FILE=f\n").unwrap();
    let file = file.display().to_string();
    let rows: [(&[&str], &str, &str); 6] = [
        (&["-u", "app"], "id; echo $HOME", "uid=1000(app) gid=1000(app) groups=50(extra),1000(app)\n/\n"),
        (&["-u", "app", "-e", "HOME=/x"], "echo $HOME", "/x\n"),
        (&[], "id -u; echo $HOME $FROM_RUN", "0\n/root 1\n"),
        (&["-w", "/tmp", "-e", "A=7"], "busybox pwd; echo $A", "/tmp\n7\n"),
        (&["--env-file", &file, "-e", "PATH"], "echo $FILE", "f\n"),
        (&["-u", "1000:50"], "id -g", "50\n"),
    ];
    for (flags, script, expected) in rows {
        assert_eq!(
            yard.bed.ok(&[&["exec"], flags, &["e", "sh", "-c", script]].concat()),
            expected,
            "{flags:?}"
        );
    }
    assert!(yard.bed.fails(&["exec", "-u", "nobody", "e", "id"]).contains("unable to find user nobody"));
    for (words, code) in [(&["/none"][..], 127), (&["/etc/passwd"], 126), (&["sh", "-c", "exit 3"], 3)] {
        let output = yard.bed.run(&[&["exec", "e"], words].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
    let mut child = yard.bed.command(&["exec", "-i", "e", "cat"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
    yard.bed.ok(&["exec", "-d", "e", "sh", "-c", "echo done > /tmp/done"]);
    assert!(eventually(PATIENCE, || yard.bed.run(&["exec", "e", "cat", "/tmp/done"]).stdout == b"done\n"));
    yard.bed.ok(&["rm", "-f", "e"]);
    assert!(yard.bed.fails(&["exec", "e", "id"]).contains("no container e"));
}

/// Files below a directory that hold these bytes.
fn holding(dir: &std::path::Path, bytes: &str) -> Vec<std::path::PathBuf> {
    let found = Command::new("grep").args(["-rlsF", "--devices=skip", bytes]).arg(dir).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(Into::into).collect()
}

#[test]
fn exec_hands_signals_on_and_leaves_no_secret_on_the_disk() {
    let Some(yard) = Yard::new() else { return };
    yard.detached("e", &[], "while :; do sleep 0.1; done");
    let start = || {
        let script = "trap 'exit 5' TERM; trap 'exit 6' INT; echo up; while :; do sleep 0.05; done";
        let mut command = yard.bed.command(&["exec", "-e", "WORD=very-secret", "e", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        child
    };
    for (signal, code) in [("TERM", 5), ("INT", 6)] {
        let mut child = start();
        let done = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(done.success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
    let mut child = start();
    let dir = fs::read_dir(yard.bed.path("store/containers")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(holding(&dir.join("container.json"), "while").len(), 1, "what is there is found");
    assert_eq!(holding(&yard.bed.path("store"), "very-secret"), [] as [std::path::PathBuf; 0]);
    child.kill().unwrap();
    child.wait().unwrap();
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with("exec")), "{names:?}");
    // One with a terminal is held by a monitor, and so is its terminal.
    yard.bed.ok(&[
        "exec",
        "-dt",
        "e",
        "sh",
        "-c",
        "busybox tty > /tmp/tty; trap 'echo hung > /tmp/hung' HUP; while :; do sleep 0.1; done",
    ]);
    let tty = || yard.bed.run(&["exec", "e", "cat", "/tmp/tty"]).stdout;
    assert!(eventually(PATIENCE, || tty().starts_with(b"/dev/")), "{:?}", tty());
    assert!(!yard.bed.run(&["exec", "e", "cat", "/tmp/hung"]).status.success());
    let said = yard.bed.fails(&["exec", "-dt", "e", "/none"]);
    assert!(said.contains("/none"), "{said}");
    let is_own = |name: std::ffi::OsString| name.to_str().unwrap().starts_with("exec-");
    assert!(!fs::read_dir(&dir).unwrap().any(|entry| is_own(entry.unwrap().file_name())));
    // A detached process has no output, and what keeps it from running is told.
    let output = yard.bed.run(&["exec", "-d", "e", "/none"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(127) && said.contains("/none"), "{said}");
}

#[test]
fn logs_are_cut_by_lines_and_times_and_followed_to_the_end() {
    let Some(yard) = Yard::new() else { return };
    yard.detached("l", &[], "echo one; echo two >&2; echo three; sleep 2; echo four");
    let followed = yard.bed.run(&["logs", "-f", "l"]);
    assert_eq!(followed.stdout, b"one\nthree\nfour\n");
    assert_eq!(followed.stderr, b"two\n");
    assert_eq!(yard.bed.ok(&["logs", "-n", "1", "l"]), "four\n");
    assert_eq!(yard.bed.ok(&["logs", "--tail", "all", "l"]), "one\nthree\nfour\n");
    assert_eq!(yard.bed.ok(&["logs", "-n", "0", "l"]), "");
    let timed = yard.bed.ok(&["logs", "-t", "-n", "1", "l"]);
    let (time, text) = timed.split_once(' ').unwrap();
    assert_eq!(text, "four\n");
    // The last line came two seconds after the others, by its own time.
    assert_eq!(yard.bed.ok(&["logs", "--since", time, "l"]), "four\n");
    assert_eq!(yard.bed.ok(&["logs", "--until", time, "l"]), "one\nthree\n");
    assert_eq!(yard.bed.ok(&["logs", "--since", "1h", "--until", "1h", "l"]), "");
    assert!(yard.bed.fails(&["logs", "--since", "soon", "l"]).contains("neither a moment nor a span"));
    assert!(yard.bed.fails(&["logs", "-n", "x", "l"]).contains("is no number"));
}

#[test]
fn what_comes_while_the_end_is_looked_for_is_followed_too() {
    let Some(mut yard) = Yard::new() else { return };
    yard.runs_by("*' state '*) [ ! -e late ] || cat late >> $(ls store/containers/*/log); rm -f late;;");
    yard.detached("l", &[], "echo one");
    let log = || yard.bed.ok(&["logs", "l"]);
    assert!(eventually(PATIENCE, || log() == "one\n" && yard.names(&[]).is_empty()));
    fs::write(yard.bed.path("late"), "2026-01-01T00:00:00Z stdout F late\n").unwrap();
    assert_eq!(yard.bed.ok(&["logs", "-f", "l"]), "one\nlate\n");
}

#[test]
fn ps_shows_those_that_its_flags_ask_for() {
    let Some(yard) = Yard::new() else { return };
    for name in ["first", "second"] {
        yard.command(&["--name", name], "exit 3").status().unwrap();
    }
    yard.detached("third", &[], "while :; do sleep 0.1; done");
    assert_eq!(yard.names(&[]), "third");
    assert_eq!(yard.names(&["-l"]), "third");
    for (flags, count) in [(&["-a"][..], 3), (&["-n", "2"], 2), (&["--last=9"], 3), (&["-a=false"], 1)] {
        assert_eq!(yard.names(flags).split(' ').count(), count, "{flags:?}");
    }
    assert_eq!(yard.names(&["-f", "name=sec", "-a"]), "second");
    assert_eq!(yard.names(&["-f", "status=running"]), "third");
    assert_eq!(yard.names(&["--filter", "status=exited"]).split(' ').count(), 2);
    assert_eq!(yard.names(&["-a", "-f", "ancestor=lab/a:1", "-f", "name=first"]), "first");
    assert!(yard.bed.fails(&["ps", "-f", "x=y"]).contains("filter x is not known"));
    let id = yard.bed.ok(&["ps", "-q"]);
    let full = yard.bed.ok(&["ps", "-q", "--no-trunc"]);
    assert!(id.trim().len() == 12 && full.trim().len() == 64 && full.starts_with(id.trim()));
    let table = yard.bed.ok(&["container", "ls", "-a"]);
    assert!(table.starts_with("CONTAINER ID") && table.matches("Exited (3)").count() == 2, "{table}");
    assert!(yard.bed.fails(&["run", "--name", "first", "lab/a:1"]).contains("the name first is in use"));
    yard.bed.ok(&["rm", "-f", "third", "first", "second"]);
}

#[test]
fn one_name_that_fails_does_not_keep_the_others_from_their_turn() {
    let Some(yard) = Yard::new() else { return };
    let stubborn = "trap 'echo asked' TERM; trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done";
    for name in ["a", "b"] {
        yard.detached(name, &[], stubborn);
        assert!(eventually(PATIENCE, || yard.bed.ok(&["logs", name]).contains("up")));
    }
    let exit =
        |name: &str| yard.bed.ok(&["ps", "-a", "-f", &format!("name={name}"), "--format", "{{.Status}}"]);
    let said = yard.bed.run(&["stop", "-s", "USR1", "none", "a"]);
    let (out, error) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!((said.status.code(), &*out), (Some(1), "a\n"), "{error}");
    assert!(error.contains("stop none: no container none"), "{error}");
    assert_eq!(exit("a"), "Exited (9)\n");
    assert!(yard.bed.fails(&["stop", "-s", "NONE", "b"]).contains("NONE"));
    assert_eq!(yard.names(&[]), "b");
    yard.bed.ok(&["stop", "--timeout", "0", "b"]);
    assert_eq!(exit("b"), "Exited (137)\n");
    yard.bed.ok(&["start", "b"]);
    let said = yard.bed.run(&["rm", "b", "none", "a"]);
    let (out, error) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!((said.status.code(), &*out), (Some(1), "a\n"), "{error}");
    assert!(error.contains("rm b: it is running") && error.contains("rm none: no container none"), "{error}");
    assert_eq!(yard.bed.ok(&["rm", "-f", "none", "b"]), "b\n");
    assert_eq!(yard.names(&["-a"]), "");
}

#[test]
fn longer_names_are_the_same_commands() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    // Nothing that shows an age: that may be another from one call to the next.
    for (long, short) in [
        (
            &["image", "ls", "--format", "{{.ID}} {{.Tag}}"][..],
            &["images", "--format", "{{.ID}} {{.Tag}}"][..],
        ),
        (&["image", "list", "-q"], &["images", "-q"]),
        (&["image", "inspect", "lab/a:1"], &["inspect", "lab/a:1"]),
        (&["image", "history", "-q", "lab/a:1"], &["history", "-q", "lab/a:1"]),
        (&["system", "df"], &["df"]),
        (&["buildx", "du"], &["df"]),
        (&["container", "ps", "-a"], &["ps", "-a"]),
        (&["image", "prune", "-f"], &["prune", "-f"]),
        (&["builder", "prune", "--force=true"], &["prune", "-f"]),
        (&["system", "prune"], &["prune"]),
    ] {
        assert_eq!(bed.ok(long), bed.ok(short), "{long:?}");
    }
    bed.ok(&["image", "tag", "lab/a:1", "lab/b:1"]);
    assert_eq!(bed.ok(&["image", "rm", "lab/b:1"]), "Untagged: lab/b:1\n");
    assert_eq!(bed.ok(&["image", "rm", "--force=1", "lab/none"]), "");
    for words in [&["imagetools", "inspect", "lab/a:1"][..], &["buildx", "imagetools", "inspect", "lab/a:1"]]
    {
        assert_eq!(bed.ok(words), bed.ok(&["manifest", "inspect", "lab/a:1"]), "{words:?}");
    }
    let help = bed.ok(&["build", "--help"]);
    assert!(help.contains("--no-cache\n") && !help.contains("--no-cache[="), "{help}");
}

#[test]
fn a_run_that_is_interrupted_before_the_container_runs_leaves_none() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    // Somebody reads from it until somebody writes.
    let pipe = bed.path("variables");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe_name = pipe.display().to_string();
    for flag in ["-i", "-d"] {
        let run = ["run", flag, "--network", "none", "--runtime", &runtime, "--env-file", &pipe_name];
        let mut child = bed.command(&[&run[..], &["lab/a:1", "sleep", "1000"]].concat()).spawn().unwrap();
        let made = || fs::read_dir(bed.path("store/containers")).is_ok_and(|all| all.count() == 1);
        assert!(hull_testkit::call::eventually(Duration::from_secs(30), made), "{flag}");
        let writer = fs::File::options().write(true).open(&pipe).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        drop(writer);
        assert_eq!(child.wait().unwrap().code(), Some(143), "{flag}");
        assert_eq!(fs::read_dir(bed.path("store/containers")).unwrap().count(), 0, "{flag}");
    }
}

/// Commits a container by a runtime that does more when it pauses or resumes; gives how `commit` ended, what it said, and
/// the container's state after it.
fn committed(
    pause: &str,
    resume: &str,
    meanwhile: impl Fn(&Bed, &Child),
) -> Option<(Option<i32>, String, String)> {
    let mut yard = Yard::new()?;
    yard.runs_by(&format!("*' pause '*) $real \"$@\" || exit; {pause}; exit;;\n*' resume '*) {resume};;"));
    yard.detached("c", &[], "sleep 1000");
    let mut commit = yard.bed.command(&["commit", "c", "lab/b:1"]);
    let child = commit.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    meanwhile(&yard.bed, &child);
    let output = child.wait_with_output().unwrap();
    let state = yard.bed.ok(&["ps", "--format", "{{.State}}"]);
    Some((output.status.code(), String::from_utf8(output.stderr).unwrap(), state.trim().to_owned()))
}

#[test]
fn a_signal_leaves_no_container_paused() {
    let wait = "touch paused; until [ -e go ]; do sleep 0.01; done";
    let interrupt = |bed: &Bed, child: &Child| {
        assert!(eventually(PATIENCE, || bed.path("paused").exists()));
        rustix::process::kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        fs::write(bed.path("go"), "").unwrap();
    };
    let Some((code, said, state)) = committed(wait, "true", interrupt) else { return };
    assert_eq!((code, state.as_str()), (Some(143), "running"), "{said}");
    assert!(said.contains("ended by SIGTERM"), "{said}");
}

#[test]
fn a_container_that_stays_paused_is_told() {
    let stuck = "echo no way on >&2; exit 1";
    let Some((code, said, state)) = committed("true", stuck, |_, _| {}) else { return };
    assert_eq!((code, state.as_str()), (Some(1), "paused"), "{said}");
    assert!(said.contains("commit: the container stays paused: no way on"), "{said}");
}

#[test]
fn a_run_that_unpacks_is_ended_at_once() {
    let Some(yard) = Yard::new() else { return };
    let layer = yard.bed.ok(&["inspect", "-f", "{{join .RootFS.Layers \",\"}}", "lab/a:1"]);
    let store = hull_image::Store::open(&yard.bed.path("store")).unwrap();
    // Who unpacks waits for whoever seems to unpack the same.
    let lock = store.lock(&format!("layer-{}", layer.trim().trim_start_matches("sha256:"))).unwrap();
    let mut child = yard.command(&[], "true").spawn().unwrap();
    let threads = format!("/proc/{}/task", child.id());
    assert!(eventually(PATIENCE, || fs::read_dir(&threads).is_ok_and(|threads| threads.count() > 1)));
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = eventually(PATIENCE, || child.try_wait().unwrap().is_some());
    drop(lock);
    child.wait().unwrap();
    assert!(ended);
    assert_eq!(yard.names(&["-a"]), "");
}
