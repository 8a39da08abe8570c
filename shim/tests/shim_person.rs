//! A person at a terminal, attached to a container by `hull-monitor`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::process::{Command, Stdio};

use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{program, root};
use hull_testkit::{Bundle, Outcome, call, needs, place, runtime};
use task_client::LIMIT;

fn by_hand(words: &[&str]) -> Outcome {
    call(Command::new(place::program("hull-monitor")).args(words).stdin(Stdio::null()), LIMIT)
}

/// A container at a terminal, started by hand.
struct Started(Bundle);

impl Started {
    fn new(script: &str) -> Self {
        let bundle = Bundle::shell(script).with(|config| config["process"]["terminal"] = true.into());
        let (dir, program) = (bundle.path().to_string_lossy(), runtime::under_test());
        let run = ["run", "-t", "--runtime", &program.to_string_lossy(), "--bundle", &dir, &bundle.id];
        by_hand(&run).done();
        Self(bundle)
    }

    /// A person's terminal, attached. The file has the number of the process.
    fn attach(&self) -> (Terminal, std::path::PathBuf) {
        let (pid, monitor) = (self.0.path().join("attached"), place::program("hull-monitor"));
        let line =
            format!("sh -c 'echo $$ > {}; exec {} attach {}'", pid.display(), monitor.display(), self.0.id);
        let terminal = Terminal::start(&line);
        // What is typed before that is echoed, and ^Q taken, by the terminal itself.
        assert!(eventually(LIMIT, || terminal.is_raw()), "nothing attaches:\n{}", terminal.screen());
        (terminal, pid)
    }

    fn log(&self) -> String {
        by_hand(&["logs", &self.0.id]).stdout
    }

    fn ends_with(self, code: i32) {
        assert_eq!(by_hand(&["wait", &self.0.id]).code, code);
        by_hand(&["rm", &self.0.id]).done();
        self.delete().done();
    }

    fn delete(&self) -> Outcome {
        call(Command::new(runtime::under_test()).args(["delete", "--force", &self.0.id]), LIMIT)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The monitor ends with its container.
            self.delete();
            by_hand(&["wait", &self.0.id]);
            by_hand(&["rm", &self.0.id]);
        }
    }
}

#[test]
fn terminal_follows_the_persons_in_size() {
    needs!(root(), program("tmux"));
    let container = Started::new("while read word; do [ $word = end ] && exit 6; stty size; done");
    let (terminal, _) = container.attach();
    let shows = |size: &str| {
        eventually(LIMIT, || {
            terminal.type_text("size\n");
            terminal.screen().lines().any(|line| line.trim_end() == size)
        })
    };
    assert!(shows("30 100"), "{}", terminal.screen());
    terminal.resize(80, 20);
    assert!(shows("20 80"), "{}", terminal.screen());
    terminal.type_text("end\n");
    terminal.shows("status=6");
    container.ends_with(6);
}

#[test]
fn person_who_is_ended_by_a_signal_leaves_the_terminal_as_it_was() {
    needs!(root(), program("tmux"));
    let container = Started::new("while read word; do [ $word = end ] && exit 6; echo is attached; done");
    let (terminal, pid) = container.attach();
    let is_attached = || {
        terminal.type_text("go\n");
        terminal.screen().contains("is attached")
    };
    assert!(eventually(LIMIT, is_attached), "{}", terminal.screen());
    let pid = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    terminal.shows("status=143");
    // What stty says after it.
    let is_cooked = || terminal.screen().contains(" icanon") && terminal.screen().contains(" echo ");
    assert!(eventually(LIMIT, is_cooked), "{}", terminal.screen());
    let (other, _) = container.attach();
    let ends = || {
        other.type_text("end\n");
        other.screen().contains("status=6")
    };
    assert!(eventually(LIMIT, ends), "{}", other.screen());
    container.ends_with(6);
}

#[test]
fn what_is_typed_before_the_keys_is_the_containers_and_the_keys_are_not() {
    needs!(root(), program("tmux"));
    let container = Started::new("stty -echo -icanon; echo ready; head -c 4 | od -An -c; exit 6");
    assert!(eventually(LIMIT, || container.log().contains("ready")), "{}", container.log());
    let (terminal, _) = container.attach();
    // Each is read alone or with others.
    terminal.type_text("a\u{10}b\u{10}\u{11}");
    terminal.shows("status=0");
    let (terminal, _) = container.attach();
    terminal.type_text("c");
    terminal.shows("status=6");
    let log = container.log();
    assert!(log.contains("a 020   b   c"), "{log}");
    container.ends_with(6);
}
