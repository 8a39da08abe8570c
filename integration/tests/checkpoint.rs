//! Containers saved with CRIU and restored: what goes on from where it was, and what is left when it fails.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hull_integration::systemd::{self, Slice, property};
use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::{cgroup_dir, ours};
use hull_testkit::{Bundle, Outcome, Runtime, gate, needs};
use serde_json::{Value, json};

/// Answers each line with its number.
const COUNTER: &str = "i=0; while read x; do i=$((i+1)); echo \"$i $x\"; done";

/// A runtime, a bundle and a place for images, with a CRIU that works.
struct Stage {
    runtime: Runtime,
    bundle: Bundle,
    criu: PathBuf,
    /// Who makes the control groups, as an option.
    manager: &'static [&'static str],
}

impl Stage {
    fn new(bundle: Bundle, criu: PathBuf) -> Self {
        Self { runtime: Runtime::under_test(), bundle, criu, manager: &[] }
    }

    fn images(&self) -> String {
        self.runtime.beside("images").display().to_string()
    }

    fn arguments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [self.manager, &["--criu", self.criu.to_str().expect("UTF-8")], rest].concat()
    }

    fn call(&self, rest: &[&str]) -> Outcome {
        self.runtime.call(&self.arguments(rest))
    }

    /// `COMMAND --detach OPTIONS... ID` with pipes for its input and output.
    fn with_pipes(&self, command: &str, options: &[&str], id: &str) -> Pipes {
        let bundle = self.bundle.path().to_str().expect("UTF-8");
        let log = self.runtime.beside("log").display().to_string();
        let front = self.arguments(&["--log", &log, command, "--detach", "--bundle", bundle]);
        let mut command = self.runtime.command(&[&front, options, &[id]].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the runtime");
        let pipes = Pipes {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
        };
        let status = child.wait().expect("wait for the runtime");
        assert!(status.success(), "{command:?}: {}", fs::read_to_string(&log).unwrap_or_default());
        pipes
    }

    fn run(&self) -> Pipes {
        self.with_pipes("run", &[], &self.bundle.id)
    }

    fn checkpoint(&self, options: &[&str]) -> Outcome {
        let images = self.images();
        self.call(&[&["checkpoint", "--image-path", &images], options, &[self.bundle.id.as_str()]].concat())
    }

    fn restore(&self) -> Pipes {
        self.with_pipes("restore", &["--image-path", &self.images()], &self.bundle.id)
    }

    fn inside(&self, script: &str) -> String {
        self.call(&["exec", &self.bundle.id, "/bin/sh", "-c", script]).text().to_owned()
    }

    fn status(&self) -> String {
        let state = self.call(&["state", &self.bundle.id]);
        let state: Value = serde_json::from_str(state.text()).expect("state prints JSON");
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    fn is_gone(&self) {
        self.call(&["state", &self.bundle.id]).failed(1, "does not exist");
        if self.manager.is_empty() {
            assert!(!cgroup_dir("memory", &self.bundle).exists(), "the control group stayed");
        }
        assert!(!self.runtime.state_dir().join(&self.bundle.id).exists(), "the state directory stayed");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Gone already, as most tests want it.
        let _ = self.call(&["delete", "--force", &self.bundle.id]);
    }
}

/// The outer ends of a container's streams.
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Pipes {
    fn says(&mut self, word: &str, answer: &str) {
        writeln!(self.input, "{word}").expect("write to the container");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("read from the container");
        assert_eq!(line.trim_end(), answer);
    }
}

macro_rules! stage {
    ($bundle:expr) => {{
        needs!(ours(), gate::root(), gate::program("busybox"), gate::cgroups());
        match gate::criu() {
            Ok(criu) => Stage::new($bundle, criu),
            Err(why) => return gate::skipped(&why),
        }
    }};
}

#[test]
fn a_counter_on_pipes_goes_on_from_its_number() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut before = stage.run();
    before.says("a", "1 a");
    before.says("b", "2 b");
    stage.checkpoint(&[]).done();
    stage.is_gone();
    let mut after = stage.restore();
    after.says("c", "3 c");
    stage.checkpoint(&[]).done();
    let mut again = stage.restore();
    again.says("d", "4 d");
}

#[test]
fn a_restored_container_is_like_any_other() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let mut pipes = stage.restore();
    let id = stage.bundle.id.as_str();
    assert_eq!(stage.status(), "running");
    assert_eq!(stage.inside("hostname; echo $$ | wc -l"), "testkit\n1");
    assert!(stage.inside("busybox ip link show lo").contains("UP"), "lo is down");
    stage.call(&["pause", id]).done();
    assert_eq!(stage.status(), "paused");
    stage.call(&["resume", id]).done();
    stage.call(&["update", "--pids-limit", "77", id]).done();
    assert_eq!(
        fs::read_to_string(cgroup_dir("pids", &stage.bundle).join("pids.max")).expect("read").trim(),
        "77"
    );
    assert!(stage.call(&["events", "--stats", id]).text().contains("\"pids\""));
    pipes.says("b", "2 b");
    stage.call(&["kill", id, "KILL"]).done();
    stage.call(&["delete", "--force", id]).done();
    stage.is_gone();
}

#[test]
fn a_counter_in_a_scope_of_systemd_goes_on_from_its_number() {
    needs!(systemd::here());
    let bundle = Bundle::shell(COUNTER).with_id(|id, config| {
        config["linux"]["cgroupsPath"] = json!(format!("testkitcriu.slice:pod:{id}"));
        config["linux"]["resources"]["pids"] = json!({ "limit": 40 });
    });
    let _slice = Slice("testkitcriu.slice");
    let unit = format!("pod-{}.scope", bundle.id);
    let mut stage = stage!(bundle);
    stage.manager = &["--systemd-cgroup"];
    let mut before = stage.run();
    before.says("a", "1 a");
    stage.checkpoint(&[]).done();
    stage.is_gone();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    let mut after = stage.restore();
    after.says("b", "2 b");
    assert_eq!([property(&unit, "ActiveState"), property(&unit, "TasksMax")], ["active", "40"]);
    let state: Value = serde_json::from_str(stage.call(&["state", &stage.bundle.id]).text()).expect("JSON");
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).expect("read its groups");
    let outside = |line: &&str| !line.ends_with(&format!("/testkitcriu.slice/{unit}"));
    assert_eq!(groups.lines().filter(outside).collect::<Vec<_>>(), [""; 0]);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.is_gone();
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

#[test]
fn a_counter_on_a_terminal_goes_on_from_its_number() {
    needs!(gate::program("tmux"));
    let stage = stage!(Bundle::shell(COUNTER).with(|config| config["process"]["terminal"] = json!(true)));
    let line = |command: &str, options: &str| {
        format!(
            "{} --root {} --criu {} {command} {options} --bundle {} {}",
            stage.runtime.program.display(),
            stage.runtime.state_dir().display(),
            stage.criu.display(),
            stage.bundle.path().display(),
            stage.bundle.id
        )
    };
    let before = Terminal::start(&line("run", ""));
    before.type_text("a");
    before.press("Enter");
    before.shows("1 a");
    stage.checkpoint(&[]).done();
    before.shows("status=137");
    let after = Terminal::start(&line("restore", &format!("--image-path {}", stage.images())));
    after.type_text("b");
    after.press("Enter");
    after.shows("2 b");
    stage.call(&["kill", &stage.bundle.id, "KILL"]).done();
    after.shows("status=137");
    stage.is_gone();
}

#[test]
fn a_container_that_is_left_running_runs_on() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&["--leave-running"]).done();
    assert_eq!(stage.status(), "running");
    pipes.says("b", "2 b");
    // The images are of the moment between the two.
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.restore().says("c", "2 c");
}

#[test]
fn an_earlier_dump_of_the_memory_is_used_by_the_next() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let parent = stage.runtime.beside("parent").display().to_string();
    let first = stage.call(&["checkpoint", "--pre-dump", "--image-path", &parent, &stage.bundle.id]);
    pipes.says("b", "2 b");
    if first.stderr.contains("no tracking of memory") {
        // Refused with the reason, and the container runs on: all that can be seen on such a kernel.
        return gate::skipped("needs a kernel that tracks writes to memory");
    }
    first.done();
    stage.checkpoint(&["--parent-path", "../parent"]).done();
    assert!(Path::new(&stage.images()).join("parent").is_symlink());
    stage.restore().says("c", "3 c");
}

#[test]
fn a_checkpoint_whose_memory_nobody_fetches_ends_with_a_delete_by_force() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let (images, server) = (stage.images(), format!("127.0.0.1:{port}"));
    let options = ["--image-path", &images, "--lazy-pages", "--page-server", &server, &stage.bundle.id];
    let mut command = stage.runtime.command(&stage.arguments(&[&["checkpoint"], &options[..]].concat()));
    let mut serving = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start checkpoint");
    let log = Path::new(&images).join("dump.log");
    let ready = || fs::read_to_string(&log).is_ok_and(|text| text.contains("status-ready"));
    let ended = |serving: &mut Child| serving.try_wait().expect("look at checkpoint").is_some();
    assert!(eventually(PATIENCE, || ready() || ended(&mut serving)));
    let refused = ended(&mut serving);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.is_gone();
    let told = serving.wait_with_output().expect("wait for checkpoint");
    let error = String::from_utf8_lossy(&told.stderr);
    if refused && error.contains("no userfaultfd") {
        return gate::skipped("needs userfaultfd with its non-cooperative events");
    }
    assert!(error.contains("died before all of its memory was fetched"), "{error}");
}

#[test]
fn mounts_are_restored_with_their_contents() {
    let place = hull_testkit::Scratch::new("volume");
    fs::write(place.join("file"), "of the host\n").expect("write");
    let source = place.path().display().to_string();
    let stage = stage!(Bundle::shell(&format!("echo in memory >/scratch/file; {COUNTER}")).with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("an array");
        mounts.push(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(json!({ "destination": "/volume", "source": source, "options": ["bind", "ro"] }));
        mounts.push(json!({ "destination": "/volume2/below", "source": source, "options": ["rbind"] }));
    }));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let masks = "grep -e null -e firmware /proc/mounts | cut -d ' ' -f 2 | sort";
    let masked = stage.inside(masks);
    stage.checkpoint(&[]).done();
    // Another host's root file system has none of the targets that create made.
    for target in ["volume", "volume2/below", "volume2", "scratch"] {
        fs::remove_dir(stage.bundle.root().join(target)).expect("remove the target of a mount");
    }
    let mut restored = stage.restore();
    restored.says("b", "2 b");
    assert_eq!(
        stage.inside("cat /scratch/file /volume/file /volume2/below/file"),
        "in memory\nof the host\nof the host"
    );
    assert_eq!(stage.inside("touch /volume/x 2>/dev/null || echo read-only"), "read-only");
    assert_eq!(stage.inside(masks), masked, "other masks than before");
}

#[test]
fn hooks_run_when_the_namespaces_are_there() {
    let stage = stage!(Bundle::shell(COUNTER).with_id(|id, config| {
        let hook = |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >/tmp/{id}.{name}")] }]);
        config["hooks"] = json!({ "prestart": hook("prestart"), "poststop": hook("poststop") });
    }));
    let state = |name: &str| {
        let path = format!("/tmp/{}.{name}", stage.bundle.id);
        let text = fs::read_to_string(&path).expect("the hook ran");
        fs::remove_file(&path).expect("remove the hook's file");
        serde_json::from_str::<Value>(&text).expect("a state document")
    };
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let first = state("prestart");
    stage.checkpoint(&[]).done();
    assert_eq!(state("poststop")["status"], "stopped");
    let _restored = stage.restore();
    let second = state("prestart");
    assert_ne!(first["pid"], second["pid"]);
    let now: Value = serde_json::from_str(stage.call(&["state", &stage.bundle.id]).text()).expect("JSON");
    assert_eq!(second["pid"], now["pid"]);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    assert_eq!(state("poststop")["status"], "stopped");
}

#[test]
fn without_criu_the_container_runs_on_and_the_error_says_what_to_do() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let images = stage.images();
    let mut command = stage.runtime.command(&[
        "--log-format",
        "json",
        "checkpoint",
        "--image-path",
        &images,
        &stage.bundle.id,
    ]);
    let outcome = hull_testkit::call(command.env("PATH", "/nonexistent"), hull_testkit::runtime::LIMIT);
    outcome.failed(1, "criu: executable file not found in $PATH");
    let line: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&line["error"]["code"], &line["error"]["step"]), (&json!("criu"), &json!("checkpoint")));
    assert!(line["error"]["hint"].as_str().is_some_and(|hint| hint.contains("install criu")), "{line}");
    pipes.says("a", "1 a");
}

#[test]
fn a_criu_that_does_not_work_here_is_told_with_its_own_words() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let program = stage.runtime.beside("criu");
    fs::write(&program, "#!/bin/sh\necho 'Error (vdso.c:1): the kernel is a stranger' >&2\nexit 1\n")
        .expect("write");
    Command::new("chmod").arg("+x").arg(&program).status().expect("chmod");
    let program = program.display().to_string();
    let outcome = stage.runtime.call(&[
        "--criu",
        &program,
        "checkpoint",
        "--image-path",
        &stage.images(),
        &stage.bundle.id,
    ]);
    outcome.failed(1, "it does not work on this kernel: Error (vdso.c:1): the kernel is a stranger");
    pipes.says("a", "1 a");
}

#[test]
fn a_dump_that_fails_leaves_the_container_running() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    // A child of the container's, with a file of the host that CRIU cannot name.
    let file = fs::File::create(stage.runtime.beside("file")).expect("make a file");
    let child = "sleep 1000 <&- 2>&- &";
    let mut command = stage.runtime.command(&["exec", &stage.bundle.id, "/bin/sh", "-c", child]);
    let status = command.stdout(file).stderr(Stdio::null()).status().expect("start the runtime");
    assert!(status.success());
    let outcome = stage.checkpoint(&[]);
    outcome.failed(1, "checkpoint failed: ");
    assert!(outcome.stderr.contains("Error ("), "no words of CRIU's in {}", outcome.stderr);
    assert_eq!(stage.status(), "running");
    pipes.says("a", "1 a");
}

#[test]
fn what_exec_left_running_is_named_before_it_is_lost() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.call(&["exec", "--detach", &stage.bundle.id, "/bin/sleep", "1000"]).done();
    let outcome = stage.checkpoint(&[]);
    outcome.done();
    assert!(outcome.stderr.contains("was started by exec: it is not saved"), "{}", outcome.stderr);
    stage.is_gone();
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let images = PathBuf::from(stage.images());
    fs::write(images.join("core-1.img"), "no image").expect("break an image");
    let bundle = stage.bundle.path().display().to_string();
    let restore = |images: &Path| {
        let images = images.display().to_string();
        stage.call(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id])
    };
    let outcome = restore(&images);
    outcome.failed(1, "restore failed: ");
    assert!(outcome.stderr.contains("Error ("), "no words of CRIU's in {}", outcome.stderr);
    stage.is_gone();
    restore(&stage.runtime.beside("nothing")).failed(1, "open the image directory");
    fs::remove_file(images.join("descriptors.json")).expect("remove the note");
    restore(&images).failed(1, "holds no checkpoint");
    stage.is_gone();
}

/// Without a pid namespace the death of the first process ends no other.
#[test]
fn a_restore_that_cannot_be_told_ends_every_process() {
    let stage = stage!(Bundle::shell("sleep 1000 & while :; do sleep 0.1; done").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    }));
    let bundle = stage.bundle.path().display().to_string();
    let mut run = stage.runtime.command(&["run", "--detach", "--bundle", &bundle, &stage.bundle.id]);
    let status = run.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("start the runtime").success());
    stage.checkpoint(&[]).done();
    let images = stage.images();
    let nowhere = stage.runtime.beside("no/such/place").display().to_string();
    let untold = || {
        let outcome = stage.call(&[
            "restore",
            "--detach",
            "--bundle",
            &bundle,
            "--image-path",
            &images,
            "--pid-file",
            &nowhere,
            &stage.bundle.id,
        ]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        outcome.stderr.contains("write pid file")
    };
    // Numbers of processes that have just ended are taken until somebody has reaped them.
    assert!(eventually(PATIENCE, untold), "its processes were never restored");
    stage.is_gone();
}

#[test]
fn a_fifo_among_the_images_holds_nobody_up() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    let images = PathBuf::from(stage.images());
    fs::create_dir(&images).expect("make the image directory");
    Command::new("mkfifo").arg(images.join("descriptors.json")).status().expect("mkfifo");
    stage.checkpoint(&[]).failed(1, "write descriptors.json");
    pipes.says("a", "1 a");
}

#[test]
fn a_caller_that_may_open_few_files_can_save_a_container() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let images = stage.images();
    let command =
        stage.runtime.command(&stage.arguments(&["checkpoint", "--image-path", &images, &stage.bundle.id]));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 128 && exec \"$@\"", "sh"]).arg(command.get_program());
    hull_testkit::call(limited.args(command.get_args()), hull_testkit::runtime::LIMIT).done();
    stage.restore().says("b", "2 b");
}

#[test]
fn an_id_in_use_is_refused_and_its_container_lives() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    stage.checkpoint(&["--leave-running"]).done();
    let bundle = stage.bundle.path().display().to_string();
    let images = stage.images();
    stage
        .call(&["restore", "--detach", "--bundle", &bundle, "--image-path", &images, &stage.bundle.id])
        .failed(1, "container with given ID already exists");
    pipes.says("a", "1 a");
}

#[test]
fn a_container_that_has_not_started_is_refused() {
    let stage = stage!(Bundle::shell(COUNTER));
    let bundle = stage.bundle.path().display().to_string();
    stage.call(&["create", "--bundle", &bundle, &stage.bundle.id]).done();
    stage.checkpoint(&[]).failed(1, "container cannot be checkpointed in the created state");
}
