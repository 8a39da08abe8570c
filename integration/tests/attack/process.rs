//! What runs in the container: what it may do, whom it may become, and what of the runtime it can reach.

use std::fs;
use std::path::Path;
use std::process::Command;

use hull_testkit::call::{PATIENCE, eventually, quick};
use hull_testkit::gate::program;
use hull_testkit::runtime::{LIMIT, ours, peek};
use hull_testkit::{Bundle, Runtime, Scratch, call, gate, needs};
use serde_json::{Value, json};

use crate::busybox;

/// CVE-2024-21626: a working directory that is an open descriptor of the host.
#[test]
fn a_working_directory_cannot_be_a_descriptor() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let marker = Scratch::new("marker");
    let script = format!(
        "ls -d ../../../../../..{} ./{} 2>/dev/null",
        marker.path().display(),
        marker.path().display()
    );
    let start = |cwd: &str, file: &str| {
        let bundle = Bundle::shell(&script).with(|config| config["process"]["cwd"] = json!(cwd));
        // The caller holds a directory of the host, as careless callers do.
        let line = format!(
            "exec 7</ && exec {} --root {} run {file} --bundle {} {}",
            runtime.program.display(),
            runtime.state_dir().display(),
            bundle.path().display(),
            bundle.id
        );
        call(Command::new("bash").args(["-c", &line]), LIMIT)
    };
    for number in 3..12 {
        let outcome = start(&format!("/proc/self/fd/{number}"), "");
        assert!(!outcome.stdout.contains("testkit-marker"), "descriptor {number}: {outcome:?}");
        assert_ne!(outcome.code, 0, "descriptor {number} is accepted");
    }
    let given = start("/proc/self/fd/7", "--preserve-fds 5");
    assert!(!given.stdout.contains("testkit-marker"), "a preserved descriptor: {given:?}");
    let control = quick("sh", &["-c", &format!("exec 7</ && cd /proc/self/fd/7 && {script}")]);
    assert!(
        control.stdout.contains("testkit-marker"),
        "the script finds the marker when it is outside: {control:?}"
    );
}

/// CVE-2019-5736: the container opens the executable of a process that joins it, and writes to it afterwards.
#[test]
fn the_host_program_cannot_be_reached_through_a_joining_process() {
    needs!(busybox(), program("nsenter"));
    let spy = "
        while :; do for p in /proc/[0-9]*; do
          case $(readlink $p/exe) in ''|/bin/*) continue;; esac
          ( exec 3<$p/exe; for i in $(seq 60); do echo HIT >>/proc/self/fd/3 && break; sleep 0.02; done ) &
        done; done 2>/dev/null";
    let place = Scratch::new("exe");
    let hit = |program: &Path, attack: &dyn Fn(&Runtime, &Bundle, i32)| {
        let runtime = Runtime::under_test();
        let bundle = Bundle::shell(spy).with(|config| {
            // More than containers usually have: without it a spy cannot even look at its control.
            let strong = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
            config["process"]["capabilities"] =
                json!({ "bounding": strong, "effective": strong, "permitted": strong });
            config["linux"]["resources"]["pids"] = json!({ "limit": 200 });
        });
        let container = runtime.start(&bundle);
        let before = fs::read(program).expect("read the program");
        attack(&runtime, &bundle, container.pid());
        before != fs::read(program).expect("read the program")
    };
    // Attacked as a copy, so that a hit would not spoil the build.
    let copy = place.join("runtime");
    fs::copy(hull_testkit::runtime::under_test(), &copy).expect("copy the runtime");
    let joins = |runtime: &Runtime, bundle: &Bundle, _: i32| {
        for _ in 0..25 {
            let mut command = Command::new(&copy);
            command.arg("--root").arg(runtime.state_dir()).args(["exec", &bundle.id, "/bin/sleep", "0.02"]);
            call(&mut command, LIMIT);
        }
    };
    assert!(!hit(&copy, &joins), "the program has been written to");

    let bare = place.join("busybox");
    fs::copy(gate::find("busybox").expect("busybox is installed"), &bare).expect("copy busybox");
    let enters = |_: &Runtime, _: &Bundle, pid: i32| {
        eventually(PATIENCE, || {
            let mut command = Command::new("nsenter");
            command.args(["-t", &pid.to_string(), "-p", "--"]).arg(&bare).args(["sleep", "0.3"]);
            call(&mut command, LIMIT);
            fs::read(&bare).expect("read the control").ends_with(b"HIT\n")
        });
    };
    assert!(hit(&bare, &enters), "the control is not hit: the spy does not work");
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-27650: inheritable capabilities; CVE-2016-8867: those of a user.
#[test]
fn capabilities_are_those_of_the_configuration() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let masks = "sed -n 's/^Cap\\(Inh\\|Prm\\|Eff\\|Amb\\):.//p' /proc/self/status";
    let none = "0000000000000000";
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let container = runtime.start(&bundle);
    let lines = |options: &[&str]| {
        container
            .exec(options, &["/bin/sh", "-c", masks])
            .text()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let as_root = lines(&[]);
    assert_eq!(
        (as_root[0].as_str(), as_root[3].as_str()),
        (none, none),
        "inheritable and ambient by default"
    );
    assert_ne!(as_root[2], none, "root of the container has the configured ones");
    let added = lines(&["--cap", "CAP_NET_RAW"]);
    assert_eq!(added[0], none, "inheritable with an added one");
    assert_eq!(lines(&["--user", "1000:1000"]), [none; 4], "a user has none");
    let control = Bundle::shell(masks).with(|config| {
        config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    });
    assert_eq!(
        runtime.run(&control).text().lines().next(),
        Some("0000000000000020"),
        "the reading shows what is there"
    );
}

/// CVE-2026-30892: a user given as a string that parses to something else.
#[test]
fn a_user_is_a_whole_number_or_refused() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    let who = ["/bin/sh", "-c", "echo $(id -u):$(id -g)"];
    for (given, seen) in [
        ("1", "1:0"),
        ("1:2", "1:2"),
        ("0", "0:0"),
        ("1000:1000", "1000:1000"),
        ("4294967294", "4294967294:0"),
    ] {
        assert_eq!(container.exec(&["--user", given], &who).text(), seen, "{given:?}");
    }
    for given in [
        ":1",
        "1:",
        "+1",
        " 1",
        "1 ",
        "-1",
        "0x1",
        "1.0",
        "4294967296",
        "4294967295",
        "1:4294967296",
        "1:2:3",
        "root",
        "1e3",
        "١",
    ] {
        let outcome = container.exec(&["--user", given], &who);
        assert!(outcome.code != 0, "{given:?} is accepted: {outcome:?}");
    }
}

/// GHSA-g54h-m393-cpwq: devices outside the list can be made but not opened.
#[test]
fn devices_outside_the_list_cannot_be_opened() {
    needs!(busybox(), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let script = "mknod /tmp/kmsg c 1 11 && cat /dev/null && head -c 1 /tmp/kmsg >/dev/null && echo opened";
    let bundle = |rules: Value| {
        Bundle::shell(script).with(|config| {
            let all = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
            config["process"]["capabilities"] =
                json!({ "bounding": all, "effective": all, "permitted": all });
            config["linux"]["resources"]["devices"] = rules;
        })
    };
    let deny = json!({ "allow": false, "access": "rwm" });
    let make = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "m" });
    let outcome = runtime.run(&bundle(json!([deny, make])));
    assert!(!outcome.stdout.contains("opened"), "{outcome:?}");
    let allow = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm" });
    assert_eq!(runtime.run(&bundle(json!([deny, allow]))).text(), "opened", "the control");
}

/// CVE-2016-9962: the container looks for open files of a process that joins it.
#[test]
fn a_joining_process_shows_no_open_file_of_the_host() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let spy = "while :; do for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do
                 t=$(readlink $f) && echo ${f##*/} $t; done; done 2>/dev/null >>/seen";
    let bundle = Bundle::shell(spy).with(|config| {
        config["linux"]["resources"]["pids"] = json!({ "limit": 200 });
    });
    let container = runtime.start(&bundle);
    let seen = bundle.root().join("seen");
    let sees = |line: &str| peek(&seen).lines().any(|shown| shown == line);
    for _ in 0..20 {
        container.exec(&[], &["/bin/sleep", "0.05"]).done();
    }
    // The control: a file that the joined program itself opens, and the directory that it enters.
    let opens = "cd /tmp; exec 7</etc/passwd; until grep -qx '7 /etc/passwd' /seen; do sleep 0.02; done";
    container.exec(&[], &["/bin/sh", "-c", opens]).done();
    assert!(eventually(PATIENCE, || sees("cwd /tmp")), "the spy does not see");
    let all = peek(&seen);
    let foreign = |line: &&str| {
        let (name, to) = line.split_once(' ').unwrap_or((line, ""));
        let stream = matches!(name, "0" | "1" | "2") && !to.contains("state");
        let own =
            to.starts_with("/proc/") || matches!(to, "/" | "/tmp" | "/seen" | "/etc/passwd" | "/bin/sh");
        // A shell keeps a copy of its streams at a number above 9 while it redirects.
        let saved = matches!(name, "10" | "11" | "12") && to.contains("testkit-call");
        !(stream || saved || own || to.starts_with("pipe:"))
    };
    assert_eq!(all.lines().filter(foreign).collect::<std::collections::BTreeSet<_>>(), [].into());
}

/// CVE-2016-9962: the container takes hold of a process that joins it, as a debugger does; the memory of a process opens
/// to nobody else.
#[test]
fn a_joining_process_cannot_be_traced() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    // A name that is the same before and after is that of whom the memory was opened.
    let spy = "while :; do for p in /proc/[0-9]*; do
                 read before <$p/comm && true 3<$p/mem && read after <$p/comm &&
                 test $before = $after && echo $before; done; done 2>/dev/null >>/seen";
    let bundle = Bundle::shell(spy);
    let container = runtime.start(&bundle);
    let seen = bundle.root().join("seen");
    for _ in 0..40 {
        container.exec(&[], &["/bin/sleep", "0.02"]).done();
    }
    let sees = |name: &str| peek(&seen).lines().any(|shown| shown == name);
    // The control: what the joining process becomes is no stranger, and its memory opens.
    let mut control = || {
        container.exec(&[], &["/bin/sleep", "0.1"]).done();
        sees("sleep")
    };
    assert!(eventually(PATIENCE, &mut control), "the spy does not see");
    let all = peek(&seen);
    let foreign = all.lines().filter(|name| !["sh", "sleep"].contains(name));
    assert_eq!(foreign.collect::<std::collections::BTreeSet<_>>(), [].into());
}

/// A daemon's environment has passwords, and paths of the host are nobody's business.
#[test]
fn a_created_container_shows_nothing_of_its_caller() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let mut create =
        runtime.command(&["create", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    call(create.env("CALLERS_OWN", "password"), LIMIT).done();
    let look = "cat /proc/1/environ /proc/1/cmdline; : 3</proc/1/mem && echo memory";
    let seen = runtime.call(&["exec", &bundle.id, "/bin/sh", "-c", look]);
    runtime.call(&["start", &bundle.id]).done();
    let control = runtime.call(&["exec", &bundle.id, "/bin/sh", "-c", look]);
    runtime.call(&["delete", "--force", &bundle.id]).done();
    for word in ["CALLERS_OWN", "bundle", "/", "memory"] {
        assert!(!seen.stdout.contains(word), "{word} in {seen:?}");
    }
    assert!(control.stdout.contains("PATH=") && control.stdout.contains("memory"), "{control:?}");
}

/// Programs are given passwords on the command line of `exec`.
#[test]
fn a_joining_process_shows_nothing_of_its_caller() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let spy = "while :; do for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; tr '\\0' ' ' <$p/environ; echo; done; done
               2>/dev/null >>/seen";
    let bundle = Bundle::shell(&spy.replace('\n', " "));
    let _container = runtime.start(&bundle);
    let seen = || peek(bundle.root().join("seen"));
    let mut joins = || {
        let mut exec = runtime.command(&["exec", "--cwd", "/tmp", &bundle.id, "/bin/sleep", "0.05"]);
        call(exec.env("CALLERS_OWN", "password"), LIMIT).done();
        seen().contains("/bin/sleep 0.05 ")
    };
    for _ in 0..60 {
        joins();
    }
    assert!(eventually(PATIENCE, &mut joins), "the spy does not see");
    for word in ["CALLERS_OWN", "--cwd", "--root"] {
        let all = seen();
        assert!(!all.contains(word), "{:?}", all.lines().find(|line| line.contains(word)));
    }
}
