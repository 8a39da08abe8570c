//! The monitor by conmon's command line and by hand, without a manager.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod held_container;
mod task_client;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use held_container::{Alone, Held, without_times};
use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{program, root};
use hull_testkit::{Bundle, Outcome, Scratch, call, needs, place, runtime};
use task_client::{Disk, LIMIT};

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
    needs!(root());
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

#[test]
fn descriptors_of_socket_activation_reach_the_container() {
    needs!(root());
    let script = "echo $LISTEN_FDS $(($LISTEN_PID - $$)) > /said; cat <&3 >> /said";
    let alone = Alone { bundle: Bundle::shell(script) };
    let passed = alone.bundle.path().join("passed");
    fs::write(&passed, "of the socket").unwrap();
    let monitor = alone.monitor("none", "");
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3< \"$0\"; LISTEN_FDS=1 LISTEN_PID=1 exec \"$@\""]).arg(passed);
    command.arg(monitor.get_program()).args(monitor.get_args());
    call(command.args(["--sync", "--start", "--replace-listen-pid"]).stdin(Stdio::null()), LIMIT).done();
    assert_eq!(fs::read_to_string(alone.bundle.root().join("said")).unwrap(), "1 0\nof the socket");
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
fn container_that_does_not_start_is_told_of_and_cleared_away() {
    needs!(root());
    let hook = serde_json::json!({"startContainer": [{"path": "/missing"}]});
    let bundle = Bundle::shell("exit 5").with(|config| config["hooks"] = hook);
    let (dir, program) = (bundle.path().to_string_lossy(), runtime::under_test());
    let runtime = program.to_string_lossy();
    let run = by_hand(&["run", "--runtime", &runtime, "--bundle", &dir, &bundle.id]);
    assert_eq!((run.code, run.stdout.as_str()), (125, ""));
    assert!(run.stderr.contains("/missing"), "the runtime's words: {run:?}");
    let state = call(Command::new(&program).args(["state", &bundle.id]), LIMIT);
    assert!(state.code != 0 && state.stderr.contains("does not exist"), "{state:?}");
    by_hand(&["rm", &bundle.id]).done();
}

#[test]
fn container_whose_runtime_was_killed_half_way_is_cleared_away() {
    needs!(root());
    let bundle = Bundle::shell("exit 5");
    let place = Scratch::new("half");
    let script =
        "for word; do [ \"$word\" = create ] && \"$REAL\" \"$@\" && kill -9 $$; done; exec \"$REAL\" \"$@\"";
    let program = task_client::scripted(&place, script);
    let (dir, runtime) = (bundle.path().to_string_lossy(), program.to_string_lossy());
    let run = by_hand(&["run", "--runtime", &runtime, "--bundle", &dir, &bundle.id]);
    assert_eq!((run.code, run.stdout.as_str()), (125, ""), "{run:?}");
    let state = call(Command::new(&program).args(["state", &bundle.id]), LIMIT);
    assert!(state.code != 0 && state.stderr.contains("does not exist"), "{state:?}");
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}

#[test]
fn second_who_runs_a_container_that_is_being_started_takes_nothing_from_the_first() {
    needs!(root());
    let bundle = Bundle::shell("exit 4");
    let path = |name: &str| bundle.path().join(name);
    let script = format!(
        "for word; do [ \"$word\" = create ] && touch {0} && while [ ! -e {1} ]; do sleep 0.02; done; done; exec $REAL \"$@\"",
        path("creates").display(),
        path("go").display()
    );
    let place = Scratch::new("second");
    let runtime = task_client::scripted(&place, &script);
    let run = || {
        let mut command = Command::new(place::program("hull-monitor"));
        command.arg("run").arg("--runtime").arg(&runtime).arg("--bundle").arg(bundle.path()).arg(&bundle.id);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let mut first = run().spawn().unwrap();
    assert!(eventually(LIMIT, || path("creates").exists()));
    let second = call(&mut run(), LIMIT);
    fs::write(path("go"), "").unwrap();
    assert_eq!((second.code, first.wait().unwrap().code()), (125, Some(0)), "{second:?}");
    assert!(second.stderr.contains("is being started already"), "{second:?}");
    assert_eq!(by_hand(&["wait", &bundle.id]).code, 4);
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}

/// Runs the container, which reads nothing before there is a file `/go`, and attaches a person with 4 MB of input. It is made
/// once that input has filled all that there is to fill; the other file has what is shown.
fn attached_with_much_input(bundle: &Bundle) -> (std::process::Child, PathBuf) {
    let (dir, program) = (bundle.path().to_string_lossy(), runtime::under_test());
    by_hand(&["run", "--runtime", &program.to_string_lossy(), "-i", "--bundle", &dir, &bundle.id]).done();
    let (input, output) = (bundle.path().join("input"), bundle.path().join("output"));
    fs::write(&input, vec![b'x'; 4_000_000]).unwrap();
    let mut attach = Command::new(place::program("hull-monitor"));
    attach.args(["attach", &bundle.id]).stdin(fs::File::open(input).unwrap());
    let attach = attach.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
    let read_so_far = || {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/0", attach.id())).unwrap_or_default();
        info.lines().find_map(|line| line.strip_prefix("pos:\t")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut before = 0;
    assert!(eventually(LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = read_so_far();
        std::mem::replace(&mut before, now) == now && now > 0
    }));
    fs::write(bundle.root().join("go"), "").unwrap();
    (attach, output)
}

#[test]
fn attached_person_whose_input_waits_still_gets_the_output() {
    needs!(root());
    // It reads nothing before all of its output, more than fits anywhere, is read.
    let bundle = Bundle::shell(
        "while [ ! -e /go ]; do sleep 0.05; done; head -c 8000000 /dev/zero; cat > /dev/null; exit 3",
    );
    let (mut attach, output) = attached_with_much_input(&bundle);
    assert_eq!(attach.wait().unwrap().code(), Some(3));
    assert_eq!(by_hand(&["wait", &bundle.id]).code, 3);
    assert_eq!(fs::metadata(output).unwrap().len(), 8_000_000, "the client was dropped");
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}

#[test]
fn attached_person_whose_input_nobody_reads_gets_the_last_output_and_the_code() {
    needs!(root());
    let bundle =
        Bundle::shell("while [ ! -e /go ]; do sleep 0.05; done; head -c 100000 /dev/zero; echo last; exit 3");
    let (mut attach, output) = attached_with_much_input(&bundle);
    assert_eq!(attach.wait().unwrap().code(), Some(3));
    let shown = fs::read(output).unwrap();
    assert_eq!((shown.len(), shown.ends_with(b"last\n")), (100_005, true));
    by_hand(&["rm", &bundle.id]).done();
    delete(&bundle);
}

#[test]
fn number_of_a_monitor_that_has_become_another_process_is_nobody() {
    needs!(root());
    let id = place::unique("reused");
    let home = PathBuf::from("/run/hull-monitor").join(&id);
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("monitor.pid"), std::process::id().to_string()).unwrap();
    let waited = by_hand(&["wait", &id]);
    assert_eq!(waited.code, 125);
    assert!(waited.stderr.contains("ended without an exit code"), "{waited:?}");
    by_hand(&["rm", &id]).done();
    assert!(!home.exists());
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
