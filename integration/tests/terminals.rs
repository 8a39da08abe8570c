//! A terminal relayed by `run` in the foreground, with pipes or a terminal at its outer end.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::{ours, peek};
use hull_testkit::{Bundle, Runtime, gate, needs};
use rustix::process::{Pid, Signal};
use serde_json::json;

fn terminal(script: &str) -> Bundle {
    Bundle::shell(script).with(|config| config["process"]["terminal"] = json!(true))
}

/// Runs it, and waits for its first line, which says that its terminal is as it wants it.
fn run(runtime: &Runtime, bundle: &Bundle) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let path = bundle.path().to_str().expect("UTF-8");
    let mut command = runtime.command(&["run", "--bundle", path, &bundle.id]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("start the runtime");
    let input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("read from the container");
    assert_eq!(line.trim_end(), "go");
    (child, input, output)
}

#[test]
fn input_waits_for_a_program_that_reads_late() {
    // runc wants a terminal of its own for this.
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle =
        terminal("stty raw -echo; echo go; sleep 2; timeout 30 head -c 200000 >/tmp/all; wc -c </tmp/all");
    let (mut child, mut input, mut output) = run(&runtime, &bundle);
    input.write_all(&[b'a'; 200_000]).expect("write to the container");
    let mut counted = String::new();
    output.read_to_string(&mut counted).expect("read from the container");
    assert_eq!(counted.trim_end(), "200000");
    assert!(child.wait().expect("wait for the runtime").success());
}

#[test]
fn a_program_that_writes_without_end_can_be_interrupted() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    // A child, since process 1 of a namespace takes no signal that it has no handler for.
    let bundle = terminal("echo go; yes; exit 7");
    let (mut child, mut input, mut output) = run(&runtime, &bundle);
    input.write_all(&[3]).expect("interrupt it");
    std::io::copy(&mut output, &mut std::io::sink()).expect("read to the end");
    assert_eq!(child.wait().expect("wait for the runtime").code(), Some(130));
}

#[test]
fn signals_reach_a_program_whose_output_nobody_reads() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for read_at_last in [true, false] {
        let bundle =
            terminal("trap 'echo got >/got; exit 7' TERM; echo go; yes & while :; do sleep 0.1; done");
        let (mut child, _input, mut output) = run(&runtime, &bundle);
        // Until the pipe is full: nothing goes into it for a while.
        let waiting = |output: &BufReader<ChildStdout>| {
            rustix::io::ioctl_fionread(output.get_ref()).expect("ask the pipe how much it holds")
        };
        let full = || {
            let before = waiting(&output);
            std::thread::sleep(Duration::from_millis(300));
            before > 0 && waiting(&output) == before
        };
        assert!(eventually(Duration::from_secs(20), full), "the pipe never gets full");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        let signal = || rustix::process::kill_process(pid, Signal::TERM).expect("signal the runtime");
        signal();
        let got = || bundle.root().join("got").exists();
        assert!(eventually(Duration::from_secs(20), got), "the signal waits for the output");
        if read_at_last {
            std::io::copy(&mut output, &mut std::io::sink()).expect("read to the end");
        } else {
            // The program has ended: the runtime waits for its reader until it is told not to.
            let mut ended = || child.try_wait().expect("ask for the runtime").is_some();
            assert!(!eventually(Duration::from_millis(500), &mut ended), "what was written last is lost");
            let mut ended_by_signal = || {
                signal();
                ended()
            };
            assert!(eventually(Duration::from_secs(20), &mut ended_by_signal));
        }
        assert_eq!(child.wait().expect("wait for the runtime").code(), Some(7));
    }
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_is_relayed_again() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = terminal(
        "echo go; exec </dev/null >/dev/null 2>&1; sleep 0.3; echo open >/dev/console; sleep 0.3
        exec </dev/console >/dev/console 2>&1; stty -echo; echo ready; read word; echo got $word; exit 3",
    );
    let (mut child, mut input, output) = run(&runtime, &bundle);
    let mut lines = output.lines().map(|line| line.expect("read from the container"));
    assert_eq!(lines.next().as_deref(), Some("open"));
    assert_eq!(lines.next().as_deref(), Some("ready"));
    input.write_all(b"word\n").expect("write to the container");
    assert_eq!(lines.next().as_deref(), Some("got word"));
    assert_eq!((lines.next(), child.wait().expect("wait for the runtime").code()), (None, Some(3)));
}

/// Whose first act it is to ask is told the size of the caller's terminal, each time.
#[test]
fn the_terminal_has_its_size_before_the_program_runs() {
    // runc gives it the size beside the program.
    needs!(gate::root(), gate::program("busybox"), gate::program("tmux"), ours());
    let runtime = Runtime::under_test();
    let first =
        Bundle::new(&["/bin/stty", "size"]).with(|config| config["process"]["terminal"] = json!(true));
    let sleeper = Bundle::new(&["/bin/sleep", "600"]);
    let _container = runtime.start(&sleeper);
    let joined = format!(
        "{} --root {} exec --tty {} /bin/stty size",
        runtime.program.display(),
        runtime.state_dir().display(),
        sleeper.id
    );
    let seen = runtime.beside("seen");
    for line in [runtime.run_line(&first), joined] {
        let (done, shown) = (runtime.beside("done"), seen.display());
        let script = format!("for i in $(seq 20); do {line} >>{shown} 2>&1; done; touch {}", done.display());
        let _terminal = Terminal::start(&script);
        assert!(eventually(PATIENCE, || done.exists()), "{}", peek(&seen));
        assert_eq!(peek(&seen).lines().collect::<Vec<_>>(), ["30 100"; 20], "{line}");
        std::fs::remove_file(&done).expect("remove");
        std::fs::remove_file(&seen).expect("remove");
    }
}
