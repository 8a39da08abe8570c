//! The monitor by conmon's command line and by hand, without a manager.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{cgroup_v1, program, root};
use hull_testkit::{Bundle, Outcome, Scratch, call, needs, place, runtime};
use task_client::{Disk, LIMIT};

/// A container under a monitor that is driven as CRI-O and podman do it.
struct Held {
    bundle: Bundle,
    place: Scratch,
}

impl Held {
    /// Creates the container; `options` go to the monitor, whose log is the file `log` unless they name others.
    fn create(bundle: Bundle, options: &[&str]) -> Self {
        let held = Self { bundle, place: Scratch::new("held") };
        for name in ["exits", "persist"] {
            fs::create_dir(held.place.join(name)).unwrap();
        }
        let done = held.monitor(options);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(eventually(LIMIT, || held.read("sync").contains('\n')), "the caller is told nothing");
        held
    }

    fn monitor(&self, options: &[&str]) -> Outcome {
        let id = &self.bundle.id;
        let mut command = self.program("sync");
        command.args(["--api-version", "1", "-c", id, "-u", id, "-n", "name", "-b"]).arg(self.bundle.path());
        command.arg("-r").arg(runtime::under_test()).arg("--full-attach");
        let files =
            [("-p", "pid"), ("-P", "monitor.pid"), ("--exit-dir", "exits"), ("--persist-dir", "persist")];
        for (option, name) in files {
            command.arg(option).arg(self.place.join(name));
        }
        command.args(["--runtime-arg", "--root", "--runtime-arg"]).arg(self.place.join("state"));
        if !options.contains(&"-l") {
            command.arg("-l").arg(format!("k8s-file:{}", self.place.join("log").display()));
        }
        call(command.args(options).stdin(Stdio::null()), LIMIT)
    }

    /// The monitor with the pipe on which the caller is told something, which is a file here.
    fn program(&self, sync: &str) -> Command {
        let script = format!("exec 3>{sync}; export _OCI_SYNCPIPE=3; exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .current_dir(self.place.path())
            .args(["-c", &script, "sh"])
            .arg(place::program("hull-monitor"));
        command
    }

    /// Creates a container as CRI-O does: the older form of the protocol, and a log that names no driver.
    fn create_for_cri_o(bundle: Bundle) -> Self {
        let held = Self { bundle, place: Scratch::new("held") };
        for name in ["exits", "persist", "sockets"] {
            fs::create_dir(held.place.join(name)).unwrap();
        }
        let mut command = held.program("sync");
        command.arg("-b").arg(held.bundle.path()).args(["-c", &held.bundle.id, "-u", &held.bundle.id]);
        let files = [
            ("--exit-dir", "exits"),
            ("-l", "log"),
            ("-P", "monitor.pid"),
            ("-p", "pid"),
            ("--persist-dir", "persist"),
            ("--socket-dir-path", "sockets"),
        ];
        for (option, name) in files {
            command.arg(option).arg(held.place.join(name));
        }
        command.arg("-r").arg(runtime::under_test()).arg("--runtime-arg").arg(held.root());
        command.args(["--log-level", "info", "-n", "k8s_c_p", "--syslog", "--log-size-max", "16384"]);
        call(command.stdin(Stdio::null()), LIMIT).done();
        assert!(eventually(LIMIT, || held.read("sync").contains('\n')), "the caller is told nothing");
        held
    }

    fn root(&self) -> String {
        format!("--root={}", self.place.join("state").display())
    }

    /// An exec as CRI-O makes one, without a bundle: what it is told, and the log.
    fn exec_for_cri_o(&self, name: &str, words: &[&str], options: &[&str]) -> (serde_json::Value, String) {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = serde_json::json!(words);
        process["terminal"] = options.contains(&"-t").into();
        let file = |kind: &str| self.place.join(format!("{name}.{kind}"));
        fs::write(file("json"), process.to_string()).unwrap();
        let mut command = self.program(&format!("{name}.sync"));
        command.args(["-c", &self.bundle.id, "-n", "k8s_c_p", "-r"]).arg(runtime::under_test());
        command.arg("-p").arg(file("pid")).args(["-e", "-l"]).arg(file("log"));
        command.arg("--socket-dir-path").arg(self.place.join("sockets")).args(["--log-level", "info"]);
        command.args(["--sync", "--log-global-size-max", "16777216"]).args(options);
        command.arg("--exec-process-spec").arg(file("json")).arg("--runtime-arg").arg(self.root());
        // How it ends tells nothing: what the caller is told does.
        call(command.stdin(Stdio::null()), LIMIT);
        let told = serde_json::from_str(&self.read(&format!("{name}.sync"))).unwrap();
        (told, self.read(&format!("{name}.log")))
    }

    fn runtime(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(runtime::under_test());
        call(command.arg("--root").arg(self.place.join("state")).args(words), LIMIT)
    }

    fn start(&self) {
        self.runtime(&["start", &self.bundle.id]).done();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.join(name)).unwrap_or_default()
    }

    /// Waits for the exit file.
    #[track_caller]
    fn ends_with(&self, code: &str) {
        let file = format!("exits/{}", self.bundle.id);
        assert!(eventually(LIMIT, || !self.read(&file).is_empty()), "no exit file");
        assert_eq!(self.read(&file), code);
        assert_eq!(self.read("persist/exit"), code);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.bundle.id]);
        let pid = self.read("monitor.pid");
        eventually(LIMIT, || !Path::new(&format!("/proc/{}/exe", pid.trim())).exists());
    }
}

/// The lines of a k8s-file log without their times, which are checked.
#[track_caller]
fn without_times(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.len() == 30 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
            rest
        })
        .collect()
}

#[test]
fn caller_is_told_the_pid_and_logs_are_whole_when_the_exit_file_shows() {
    needs!(root());
    let script = "echo out; sleep 0.2; echo err >&2; sleep 0.2; printf part; exit 5";
    let beside = Scratch::new("json");
    let json = beside.join("log");
    let json_option = format!("json-file:{}", json.display());
    let held = Held::create(Bundle::shell(script), &["--log-path", &json_option]);
    let told: serde_json::Value = serde_json::from_str(held.read("sync").trim()).unwrap();
    assert_eq!(told["data"].to_string(), held.read("pid").trim());
    held.start();
    held.ends_with("5");
    assert_eq!(without_times(&held.read("log")), ["stdout F out", "stderr F err", "stdout P part"]);
    let lines = fs::read_to_string(json).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<(String, String)> = lines
        .map(|line| (line["stream"].as_str().unwrap().into(), line["log"].as_str().unwrap().into()))
        .collect();
    let wanted = [("stdout", "out\n"), ("stderr", "err\n"), ("stdout", "part")];
    assert_eq!(lines, wanted.map(|(stream, text)| (stream.to_owned(), text.to_owned())));
}

#[test]
fn failed_creation_is_told_in_the_runtimes_words() {
    needs!(root());
    let bundle = Bundle::shell("exit 5").with(|config| config["root"]["path"] = "missing".into());
    let held = Held { bundle, place: Scratch::new("held") };
    held.monitor(&[]);
    assert!(eventually(LIMIT, || held.read("sync").contains('\n')));
    let told: serde_json::Value = serde_json::from_str(held.read("sync").trim()).unwrap();
    assert!(told["data"].as_i64().unwrap() < 0, "{told}");
    assert!(told["message"].as_str().unwrap().contains("missing"), "{told}");
}

#[test]
fn cri_o_creates_a_container_and_execs_in_it() {
    needs!(root());
    let held = Held::create_for_cri_o(Bundle::shell("echo out; sleep 1000"));
    let told: serde_json::Value = serde_json::from_str(&held.read("sync")).unwrap();
    assert_eq!(told, serde_json::json!({"pid": held.read("pid").trim().parse::<u32>().unwrap()}));
    assert!(held.place.join("sockets").join(&held.bundle.id).join("attach").exists());
    held.start();
    assert!(eventually(LIMIT, || without_times(&held.read("log")) == ["stdout F out"]));

    let (told, log) =
        held.exec_for_cri_o("done", &["/bin/sh", "-c", "echo a; echo b >&2; exit 3"], &["-T", "30"]);
    assert_eq!(told, serde_json::json!({"exit_code": 3}));
    let mut lines = without_times(&log);
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F b", "stdout F a"]);

    let (told, _) = held.exec_for_cri_o("long", &["/bin/sh", "-c", "sleep 1000 & sleep 1000"], &["-T", "1"]);
    assert_eq!(told, serde_json::json!({"exit_code": -1, "message": "command timed out"}));

    let (told, log) = held.exec_for_cri_o("terminal", &["/bin/sh", "-c", "test -t 1 && echo tty"], &["-t"]);
    assert_eq!(told, serde_json::json!({"exit_code": 0}));
    assert_eq!(without_times(&log), ["stdout F tty"]);
    assert!(log.ends_with("tty\r\n"), "{log:?}");

    let (told, _) = held.exec_for_cri_o("missing", &["/bin/nothing"], &[]);
    assert_eq!(told["exit_code"], -1, "{told}");
    assert!(told["message"].as_str().unwrap().contains("/bin/nothing"), "{told}");

    held.runtime(&["kill", &held.bundle.id, "KILL"]).done();
    held.ends_with("137");
}

#[test]
fn full_logs_are_turned_and_the_oldest_go() {
    needs!(root());
    let script = "i=0; while [ $i -lt 1000 ]; do echo number $i; i=$((i+1)); done; exit 3";
    let options = ["--log-size-max", "8000", "--log-rotate", "--log-max-files", "2"];
    let held = Held::create(Bundle::shell(script), &options);
    held.start();
    held.ends_with("3");
    let files: Vec<String> = ["log.2", "log.1", "log"].iter().map(|name| held.read(name)).collect();
    for text in &files {
        assert!(!text.is_empty() && text.len() <= 8000 && text.ends_with('\n'), "{}", text.len());
    }
    assert!(!held.place.join("log.3").exists());
    let all = files.concat();
    let lines = without_times(&all);
    let first = 1000 - lines.len();
    let wanted: Vec<String> = (first..1000).map(|number| format!("stdout F number {number}")).collect();
    assert_eq!(lines, wanted);
}

#[test]
fn log_that_was_moved_away_is_reopened_when_asked() {
    needs!(root());
    let script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 4";
    let held = Held::create(Bundle::shell(script), &[]);
    held.start();
    assert!(eventually(LIMIT, || held.read("log").contains("one")));
    fs::rename(held.place.join("log"), held.place.join("old")).unwrap();
    fs::write(held.bundle.path().join("ctl"), "2 0 0\n").unwrap();
    assert!(eventually(LIMIT, || held.place.join("log").exists()));
    fs::write(held.bundle.root().join("go"), "").unwrap();
    held.ends_with("4");
    assert_eq!(without_times(&held.read("log")), ["stdout F two"]);
    assert_eq!(without_times(&held.read("old")), ["stdout F one"]);
}

#[test]
fn kill_for_lack_of_memory_is_marked_before_the_exit() {
    needs!(root(), cgroup_v1());
    let bundle = Bundle::new(&["tail", "/dev/zero"])
        .with(|config| config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 8 << 20 }));
    let held = Held::create(bundle, &[]);
    held.start();
    held.ends_with("137");
    assert!(held.place.join("persist/oom").exists() && held.bundle.path().join("oom").exists());
}

#[test]
fn exit_file_is_written_when_a_full_disk_has_room_again() {
    needs!(root());
    let held = Held::create(Bundle::shell("while [ ! -e /go ]; do sleep 0.05; done; exit 7"), &[]);
    // Its own directory, so that nothing else is lost with it.
    let disk = Disk::over(&held.place.join("exits"), "size=64k");
    held.start();
    disk.fill();
    fs::write(held.bundle.root().join("go"), "").unwrap();
    assert!(eventually(LIMIT, || held.read("persist/exit") == "7"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(held.read(&format!("exits/{}", held.bundle.id)), "");
    disk.free();
    held.ends_with("7");
}

fn by_hand(words: &[&str]) -> Outcome {
    call(Command::new(place::program("hull-monitor")).args(words).stdin(Stdio::null()), LIMIT)
}

/// `hull-monitor run` of a bundle in a terminal.
fn run_line(bundle: &Bundle, options: &str) -> String {
    let (monitor, runtime) = (place::program("hull-monitor"), runtime::under_test());
    let bundle_dir = bundle.path().display();
    format!(
        "{} run --runtime {} {options} --bundle {bundle_dir} {}",
        monitor.display(),
        runtime.display(),
        bundle.id
    )
}

fn delete(bundle: &Bundle) {
    call(Command::new(runtime::under_test()).args(["delete", "--force", &bundle.id]), LIMIT).done();
}

#[test]
fn container_outlives_the_terminal_that_it_was_started_from() {
    needs!(root(), program("tmux"));
    let bundle = Bundle::shell("while [ ! -e /go ]; do sleep 0.05; done; echo still; exit 8");
    let log: PathBuf = bundle.path().join("own.log");
    let terminal = Terminal::start(&run_line(&bundle, &format!("--log {}", log.display())));
    terminal.shows("status=0");
    drop(terminal);
    fs::write(bundle.root().join("go"), "").unwrap();
    let waited = by_hand(&["wait", &bundle.id]);
    assert_eq!((waited.stdout.trim(), waited.code), ("8", 8));
    assert_eq!(by_hand(&["logs", "-f", &bundle.id]).text(), "still");
    assert_eq!(without_times(&fs::read_to_string(log).unwrap()), ["stdout F still"]);
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}

#[test]
fn person_attaches_a_terminal_leaves_it_and_comes_back() {
    needs!(root(), program("tmux"));
    let bundle = Bundle::new(&["/bin/sh"]).with(|config| config["process"]["terminal"] = true.into());
    let started = Terminal::start(&run_line(&bundle, "-t"));
    started.shows("status=0");
    let attach = format!("{} attach {}", place::program("hull-monitor").display(), bundle.id);
    let asks = |terminal: &Terminal, question: &str, answer: &str| {
        let answered = eventually(LIMIT, || {
            terminal.type_text(question);
            terminal.press("Enter");
            terminal.screen().lines().any(|line| line.trim_end() == answer)
        });
        assert!(answered, "{}", terminal.screen());
    };
    let first = Terminal::start(&attach);
    asks(&first, "stty size", "30 100");
    first.press("C-p");
    first.press("C-q");
    first.shows("status=0");
    let second = Terminal::start(&attach);
    asks(&second, "echo sum=$((40+2))", "sum=42");
    second.type_text("exit 6");
    second.press("Enter");
    second.shows("status=6");
    assert_eq!(by_hand(&["wait", &bundle.id]).code, 6);
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}
