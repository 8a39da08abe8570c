//! What a build shows: each style of progress, as its reader gets it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod making;
mod stub;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_sys::tty;
use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};
use serde_json::Value;

use bed::Bed;
use making::{LIMIT, context};
use stub::{Say, Stub};

fn command(store: &Path, style: &str, context: &Path) -> Command {
    let mut command = Command::new(place::program("hull-build"));
    command.env("HULL_ROOT", store).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    command.args(["build", "-t", "x", "--progress", style]).arg(context);
    command
}

fn build(store: &Path, style: &str, context: &Path) -> Outcome {
    call(&mut command(store, style, context), LIMIT)
}

fn is_time(text: &str) -> bool {
    text.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

/// Two steps after the base; the second writes colours, and a line over and over.
fn talking(scratch: &Scratch) -> PathBuf {
    let script = "RUN echo quiet > /a && printf '\\033[1;31mred\\033[0m\\n 1%%\\r99%%\\n'\n";
    context(scratch, "talking", script)
}

/// A step that writes sixty lines and fails.
fn failing(scratch: &Scratch) -> PathBuf {
    context(scratch, "failing", "RUN busybox seq 60 && \\\n    false\n")
}

#[test]
fn plain_is_a_line_an_event() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("plain-progress");
    let (store, talking) = (scratch.join("s"), talking(&scratch));
    let first = build(&store, "plain", &talking);
    first.done();
    let of_run: Vec<&str> = first.stderr.lines().filter(|line| line.starts_with("#3 ")).collect();
    let [title, red, last, done] = of_run[..] else { panic!("{}", first.stderr) };
    assert!(
        title.starts_with("#3 [stage-0 3/3] RUN echo quiet") || title.starts_with("#3 [0 3/3]"),
        "{title}"
    );
    for (line, text) in [(red, "red"), (last, "99%")] {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.len() == 3 && is_time(words[1]) && words[2] == text, "{line}");
    }
    assert!(done.strip_prefix("#3 DONE ").is_some_and(is_time), "{done}");
    let second = build(&store, "plain", &talking);
    assert_eq!(second.stderr.matches(" CACHED\n").count(), 3, "{}", second.stderr);
    let failed = build(&store, "plain", &failing(&scratch));
    failed.failed(1, "#3 ERROR: the command ended with exit code 1");
    assert_eq!(failed.stderr.lines().filter(|line| line.starts_with("#3 ")).count(), 62);
    tells_where(&failed.stderr);
}

/// Place, reason, the lines of the Dockerfile and what to try, after all else.
fn tells_where(said: &str) {
    let from = said.find("Dockerfile:4: ").unwrap_or_else(|| panic!("no place in {said}"));
    let wanted = [
        "exit code 1\n",
        ">   4 | RUN busybox seq 60 && \\\n",
        ">   5 |     false\n",
        "     = the steps before are kept",
    ];
    assert!(wanted.iter().all(|text| said[from..].contains(text)), "{said}");
}

#[test]
fn rawjson_is_an_object_a_line() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("json-progress");
    let (store, talking) = (scratch.join("s"), talking(&scratch));
    let events = |outcome: &Outcome| -> Vec<Value> {
        outcome.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let first = build(&store, "rawjson", &talking);
    first.done();
    let all = events(&first);
    assert_eq!(all.len(), first.stderr.lines().count(), "nothing but objects: {}", first.stderr);
    let kinds = |all: &[Value]| {
        all.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let wanted =
        ["planned", "started", "done", "started", "done", "started", "log", "log", "done"].map(str::to_owned);
    assert_eq!(kinds(&all), wanted);
    assert_eq!(
        (&all[0]["steps"], &all[6]["text"], &all[7]["text"]),
        (&3.into(), &"red".into(), &"99%".into())
    );
    assert_eq!((&all[8]["step"], &all[8]["bytes"]), (&3.into(), &6.into()));
    assert!(all.windows(2).all(|pair| pair[0]["ms"].as_u64() <= pair[1]["ms"].as_u64()), "{all:?}");
    assert_eq!(kinds(&events(&build(&store, "rawjson", &talking)))[1..], ["cached", "cached", "cached"]);
    let failed = build(&store, "rawjson", &failing(&scratch));
    let last = events(&failed).pop().unwrap();
    assert_eq!((&last["event"], &last["step"]), (&"failed".into(), &3.into()));
    tells_where(&failed.stderr);
}

#[test]
fn quiet_tells_the_image_and_what_came_before_a_failure() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("quiet-progress");
    let store = scratch.join("s");
    let quiet = build(&store, "quiet", &talking(&scratch));
    assert!(quiet.text().starts_with("sha256:") && quiet.stderr.is_empty(), "{quiet:?}");
    let failed = build(&store, "quiet", &failing(&scratch));
    failed.failed(1, "[10 lines before]\n11\n");
    assert!(failed.stdout.is_empty() && !failed.stderr.contains("\n10\n"), "{failed:?}");
    tells_where(&failed.stderr);
}

/// Builds with standard error on a terminal of this size; gives all that was written to it.
fn on_terminal(mut command: Command, rows: u16, columns: u16) -> String {
    let mut master = fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    tty::unlock_pty(master.as_fd()).unwrap();
    let peer = tty::pty_peer(master.as_fd()).unwrap();
    tty::set_window_size(peer.as_fd(), tty::WindowSize { rows, columns }).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(peer).spawn().unwrap();
    // The command holds its end of the terminal.
    drop(command);
    let mut written = Vec::new();
    let mut buffer = [0; 4096];
    // When nobody holds the other end any more, reading fails.
    while let Ok(count) = master.read(&mut buffer) {
        written.extend_from_slice(&buffer[..count]);
    }
    child.wait().unwrap();
    String::from_utf8(written).unwrap().replace("\r\n", "\n")
}

/// What a terminal shows at the end, and the highest block that was ever taken away again.
fn screen(written: &str) -> (Vec<String>, usize) {
    let (mut lines, mut column_text, mut highest) = (vec![], String::new(), 0);
    let mut rest = written;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\n' => lines.push(std::mem::take(&mut column_text)),
            '\r' => column_text.clear(),
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                let (sequence, after) = rest.split_at(end + 1);
                rest = after;
                if let Some(up) = sequence.strip_prefix('[').and_then(|text| text.strip_suffix('A')) {
                    let up: usize = up.parse().unwrap();
                    highest = highest.max(up);
                    lines.truncate(lines.len() - up);
                } else {
                    assert!(["[J", "[?7l", "[?7h"].contains(&sequence), "{sequence:?}");
                }
            }
            _ => column_text.push(character),
        }
    }
    (lines, highest)
}

#[test]
fn the_terminal_shows_running_steps_below_and_keeps_finished_ones() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("tty-progress");
    let store = scratch.join("s");
    let wait = "RUN for i in 1 2 3 4 5 6 7 8; do echo said $i; done; busybox sleep 1; echo end > /end\n";
    let context = context(&scratch, "waiting", wait);
    let written = on_terminal(command(&store, "tty", &context), 24, 60);
    assert!(written.contains(" steps done\n") && written.contains("         | said 8\n"), "{written:?}");
    assert!(!written.contains("| said 4\n"), "no more than four lines: {written:?}");
    let (lines, highest) = screen(&written);
    assert_eq!(highest, 6, "{written:?}");
    let [.., third, all] = &lines[..] else { panic!("{lines:?}") };
    assert!(lines.len() == 4 && third.contains("RUN for i in") && third.ends_with(" +4B"), "{lines:?}");
    assert!(all.ends_with("done: 0 of 3 steps from the cache"), "{lines:?}");
    // Again, by itself as it is a terminal.
    let (lines, _) = screen(&on_terminal(command(&store, "auto", &context), 24, 60));
    assert!(lines.len() == 4 && lines[..3].iter().all(|line| line.starts_with(" cached  [")), "{lines:?}");
    let failing = failing(&scratch);
    let written = on_terminal(command(&store, "auto", &failing), 24, 60);
    let (lines, _) = screen(&written);
    let text = lines.join("\n");
    assert!(text.contains("         | [10 lines before]\n         | 11\n"), "{text}");
    assert!(text.contains(" failed  [") && !text.contains(" steps done"), "{text}");
    tells_where(&text);
}

#[test]
fn a_terminal_of_few_lines_is_enough_for_many_steps() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("small-terminal");
    let mut text = String::from("RUN echo base > /base\n");
    let stages: String = (0..8)
        .map(|stage| {
            format!("FROM first AS s{stage}\nRUN echo {stage}; busybox sleep 1; echo {stage} > /o{stage}\n")
        })
        .collect();
    let copies: String = (0..8).map(|stage| format!("COPY --from=s{stage} /o{stage} /\n")).collect();
    text.push_str(&format!("{stages}FROM first\n{copies}"));
    let context = context(&scratch, "many", &text);
    let dockerfile = fs::read_to_string(context.join("Dockerfile")).unwrap();
    fs::write(context.join("Dockerfile"), dockerfile.replacen("FROM scratch", "FROM scratch AS first", 1))
        .unwrap();
    let written = on_terminal(command(&scratch.join("s"), "tty", &context), 6, 40);
    let (lines, highest) = screen(&written);
    assert!((3..6).contains(&highest), "{highest}: {written:?}");
    assert!(written.contains("         and 5 more\n"), "{written:?}");
    assert_eq!(lines.len(), 3 + 8 + 8 + 1, "{lines:?}");
}

#[test]
fn a_notice_stays_above_the_layers_that_move() {
    let bed = Bed::new();
    bed.image("r:t");
    let stub = Stub::new(|got, _| match got.line.split(' ').next() {
        _ if got.line == "GET /v2/" => Say::new("200 OK", b"{}"),
        _ if !got.headers.contains_key("authorization") => {
            Say::new("401 Unauthorized", b"{}").with("WWW-Authenticate", "Basic realm=\"r\"")
        }
        Some("HEAD") => Say::new("200 OK", b""),
        _ => Say::new("201 Created", b""),
    });
    let file = bed.path("auth.json").display().to_string();
    let known =
        serde_json::json!({"auths": {format!("127.0.0.1:{}", stub.port): {"auth": "bWU6aHVudGVyMg=="}}});
    fs::write(&file, known.to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // The first request of a layer that is shown already is refused: only then is the file read.
    let written = on_terminal(bed.command(&["push", "--authfile", &file, "r:t", &stub.image()]), 24, 100);
    let (lines, highest) = screen(&written);
    let notice = format!("hull-build: notice: {file} can be read by others");
    assert!(highest == 1 && lines.contains(&notice), "{written:?}");
    assert!(lines.iter().any(|line| line.ends_with(": Layer already exists")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.ends_with("Preparing")), "{lines:?}");
}
