//! Real programs from Debian packages: a web server, a supervisor with zombies to reap, a shell with job control.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Child;

use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::{Gate, debian, program, root};
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Runtime, needs, rootfs};
use serde_json::json;

fn real() -> Gate {
    root().and(debian())
}

/// The Debian root file system, read-only, with memory where programs write.
fn debian_bundle(arguments: &[&str]) -> Bundle {
    Bundle::on(&rootfs::debian(), arguments).with(|config| {
        config["root"]["readonly"] = json!(true);
        let mounts = config["mounts"].as_array_mut().expect("a list");
        for writable in ["/run", "/tmp", "/var/log/nginx", "/var/lib/nginx"] {
            mounts.push(json!({ "destination": writable, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] }));
        }
        let capabilities = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_KILL"]);
        config["process"]["capabilities"] =
            json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    })
}

/// `run` in the foreground, as a service manager has it; the container goes with the value.
struct Foreground<'a> {
    run: Child,
    runtime: &'a Runtime,
    bundle: &'a Bundle,
}

impl<'a> Foreground<'a> {
    fn start(runtime: &'a Runtime, bundle: &'a Bundle) -> Self {
        let mut command =
            runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
        Self { run: command.spawn().expect("start the runtime"), runtime, bundle }
    }

    /// The exit status of `run`, if it ends in time.
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(PATIENCE, || {
            status = self.run.try_wait().expect("wait for the runtime");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        let _ = self.runtime.call(&["delete", "--force", &self.bundle.id]);
        if self.end().is_none() {
            let _ = self.run.kill().and_then(|()| self.run.wait());
        }
    }
}

#[test]
fn nginx_serves_in_its_own_network_and_ends_by_its_own_will() {
    needs!(real());
    let fetch = "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3";
    for signal in ["TERM", "QUIT"] {
        let runtime = Runtime::under_test();
        let bundle = debian_bundle(&["/usr/sbin/nginx", "-g", "daemon off;"]);
        let mut service = Foreground::start(&runtime, &bundle);
        let exec = |arguments: &[&str]| runtime.call(&[&["exec", &bundle.id], arguments].concat());
        let mut page = exec(&["bash", "-c", fetch]);
        eventually(PATIENCE, || {
            page = exec(&["bash", "-c", fetch]);
            page.code == 0
        });
        assert!(
            page.text().starts_with("HTTP/1.1 200 OK") && page.text().contains("Welcome to nginx"),
            "{page:?}"
        );
        // A worker runs as another user, and nothing of this listens outside.
        let users = exec(&[
            "python3",
            "-c",
            "import glob,os; print(sorted({os.stat(p).st_uid for p in glob.glob('/proc/[0-9]*')}))",
        ]);
        assert_eq!(users.text(), "[0, 33]");
        assert!(!peek("/proc/net/tcp").contains(" 0100007F:0050 "), "port 80 is open on the host");
        runtime.call(&["kill", &bundle.id, signal]).done();
        assert_eq!(service.end(), Some(0), "after SIG{signal}");
        runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
    }
}

#[test]
fn a_supervisor_gets_its_orphans_and_reaps_them() {
    needs!(real());
    // Process 1 starts children whose own children outlive them; each orphan must come to it and end as no zombie.
    let script = "
import os, signal, sys, time
def stop(*_): sys.exit(11)
signal.signal(signal.SIGTERM, stop)
direct = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            time.sleep(0.2); os._exit(3)
        os._exit(0)
    direct.append(pid)
codes = []
while len(codes) < 40:
    pid, status = os.wait()
    codes.append(os.waitstatus_to_exitcode(status))
def parent(pid):
    try: return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1]
    except OSError: return None  # another process, such as one that looks in from outside, that has just ended
left = [p for p in os.listdir('/proc') if p.isdigit() and parent(p) == '1']
open('/run/result', 'w').write(f'{codes.count(0)} {codes.count(3)} {left}')
while True: time.sleep(1)
";
    let runtime = Runtime::under_test();
    let bundle = debian_bundle(&["/usr/bin/python3", "-c", script]);
    let mut service = Foreground::start(&runtime, &bundle);
    let result = || runtime.call(&["exec", &bundle.id, "cat", "/run/result"]).stdout;
    assert!(eventually(PATIENCE, || result() == "20 20 []"), "{}", result());
    runtime.call(&["kill", &bundle.id, "TERM"]).done();
    assert_eq!(service.end(), Some(11));
}

#[test]
fn every_process_of_a_container_ends_with_its_first() {
    needs!(real());
    let runtime = Runtime::under_test();
    let script = "for i in 1 2 3 4 5; do setsid sleep 4242 & done; sleep 0.2; exec sleep 4241";
    let bundle = debian_bundle(&["/bin/bash", "-c", script]);
    let container = runtime.start(&bundle);
    let alive = || {
        let all = fs::read_dir("/proc").expect("read /proc").flatten();
        all.filter(|entry| peek(entry.path().join("cmdline")).starts_with("sleep\u{0}4242")).count()
    };
    assert!(eventually(PATIENCE, || alive() == 5));
    container.call("kill", &["KILL"]).done();
    assert!(eventually(PATIENCE, || alive() == 0), "{} processes outlive their container", alive());
}

#[test]
fn a_shell_in_a_terminal_has_job_control_and_leaves_the_terminal_as_it_was() {
    needs!(real(), program("tmux"));
    let runtime = Runtime::under_test();
    let bundle = debian_bundle(&["/bin/bash", "--norc", "--noprofile", "-i"]).with(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["env"].as_array_mut().expect("a list").push(json!("PS1=in> "));
    });
    let line = runtime.run_line(&bundle);
    let terminal = Terminal::start(&line);
    let enter = |text: &str| {
        terminal.type_text(text);
        terminal.press("Enter");
    };
    terminal.shows("in>");
    enter("stty size; tty; test -t 0 -a -t 1 -a -t 2 && echo yes$((1))");
    terminal.shows("30 100");
    terminal.shows("/dev/pts/0");
    terminal.shows("yes1");
    // A key pressed before it runs would be the shell's.
    enter("sh -c 'echo run$((1))s; exec sleep 100'");
    terminal.shows("run1s");
    terminal.press("C-z");
    let stopped = || terminal.screen().contains("Stopped");
    assert!(eventually(PATIENCE, stopped), "no job control:\n{}", terminal.screen());
    enter("fg");
    terminal.press("C-c");
    enter("echo code$?");
    terminal.shows("code130");
    terminal.resize(80, 24);
    enter("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo res$((1))zed");
    terminal.shows("res1zed");
    enter("clear; exit 6");
    terminal.shows("status=6");
    // The caller's terminal is no longer raw: it shows what is typed and edits lines.
    let sane = || terminal.screen().contains("speed");
    assert!(eventually(PATIENCE, sane), "{}", terminal.screen());
    assert!(!terminal.screen().contains("-echo "), "{}", terminal.screen());
}
