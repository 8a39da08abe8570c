//! The command line that callers of runc rely on: exit statuses, texts, forms of options.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use hull_testkit::runtime::{ours, under_test};
use hull_testkit::{Bundle, Runtime, Scratch, call, gate, needs};
use serde_json::Value;

/// As from cron or su: nobody made a runtime directory, and state has no place.
#[test]
fn commands_without_a_container_need_no_place_for_state() {
    needs!(gate::root(), ours());
    let place = Scratch::new("homeless");
    let program = place.join("hull");
    fs::copy(under_test(), &program).expect("copy the program");
    let bundle = place.join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).expect("make a bundle");
    chown(&bundle, Some(1000), Some(1000)).expect("give the bundle to the user");
    let user = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(&bundle).env_remove("XDG_RUNTIME_DIR").uid(1000).gid(1000);
        call(&mut command, Duration::from_secs(60))
    };
    user(&["spec", "--rootless"]).done();
    user(&["features"]).done();
    user(&["plan"]).done();
    let log = bundle.join("log");
    user(&["--log", log.to_str().expect("UTF-8"), "list"]).failed(1, "XDG_RUNTIME_DIR is not set");
    assert!(fs::read_to_string(log).is_ok_and(|text| text.contains("XDG_RUNTIME_DIR is not set")));
}

#[test]
fn errors_have_runcs_exit_status_and_text() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    let table: [(&[&str], i32, &str); 21] = [
        (&["state"], 1, "Incorrect Usage"),
        (&["state", "a", "b"], 1, "Incorrect Usage"),
        (&["foo"], 3, "No help topic for 'foo'"),
        (&["--nope"], 1, "flag provided but not defined: -nope"),
        (&["run", "--nope", "x"], 1, "Incorrect Usage: flag provided but not defined: -nope"),
        (&["state", "x"], 1, "container does not exist"),
        (&["start", "x"], 1, "container does not exist"),
        (&["kill", "x"], 1, "container does not exist"),
        (&["delete", "x"], 1, "container does not exist"),
        (&["pause", "x"], 1, "container does not exist"),
        (&["resume", "x"], 1, "container does not exist"),
        (&["ps", "x"], 1, "container does not exist"),
        (&["update", "x", "--memory", "1"], 1, "container does not exist"),
        (&["events", "x"], 1, "container does not exist"),
        (&["exec", "x", "true"], 255, "container does not exist"),
        (&["list", "-f", "nope"], 1, "invalid format option"),
        (&["--log-format", "x", "list"], 1, "invalid log-format: x"),
        (&["create", "x"], 1, "JSON specification file config.json not found"),
        (&["run", "x"], 1, "JSON specification file config.json not found"),
        (&["run", "--bundle", "/no/such/bundle", "x"], 1, "no such file or directory"),
        (&["delete", "--force", "x"], 0, ""),
    ];
    for (arguments, code, text) in table {
        runtime.call(arguments).failed(code, text);
    }
}

#[test]
fn deleting_an_unknown_container_by_force_says_nothing() {
    needs!(gate::root());
    let outcome = Runtime::under_test().call(&["delete", "--force", "unknown"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""));
}

#[test]
fn list_of_nothing_is_a_heading_or_null() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    runtime.call(&["delete", "--force", "x"]).done();
    fs::create_dir_all(runtime.state_dir()).expect("make the state directory");
    let table = runtime.call(&["list"]);
    assert_eq!(table.text().lines().count(), 1);
    assert_eq!(
        table.text().split_whitespace().take(5).collect::<Vec<_>>(),
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED"]
    );
    assert_eq!(runtime.call(&["list", "--format", "json"]).text(), "null");
    assert_eq!(runtime.call(&["list", "-q"]).text(), "");
}

#[test]
fn what_list_cannot_read_is_named() {
    needs!(gate::root(), ours());
    let runtime = Runtime::under_test();
    fs::create_dir_all(runtime.state_dir().join("hollow")).expect("make a directory");
    let listed = runtime.call(&["list", "--quiet"]);
    assert_eq!(listed.text(), "");
    assert!(listed.stderr.contains("hollow: container does not exist"), "{listed:?}");
}

#[test]
fn nobody_reading_is_no_panic() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    for arguments in [&["--help"][..], &["state"], &["--nope"], &["state", "x"], &["foo"]] {
        let (reader, writer) = std::io::pipe().expect("make a pipe");
        drop(reader);
        let mut command = runtime.command(arguments);
        command.stdout(writer.try_clone().expect("duplicate")).stderr(writer);
        let code = command.status().expect("start the runtime").code();
        assert!(code.is_some_and(|code| code <= 3), "{arguments:?}: {code:?}");
    }
}

#[test]
fn help_is_general_or_of_a_command() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    for arguments in [&[][..], &["help"], &["--help"], &["-h"]] {
        let outcome = runtime.call(arguments);
        assert!(outcome.text().to_uppercase().contains("COMMANDS:"), "{arguments:?}: {outcome:?}");
    }
    for arguments in [&["help", "run"][..], &["run", "--help"], &["run", "-h"]] {
        let outcome = runtime.call(arguments);
        for word in ["--bundle", "--console-socket", "--detach", "--pid-file"] {
            assert!(outcome.text().contains(word), "no {word} in {arguments:?}: {outcome:?}");
        }
    }
}

#[test]
fn version_has_the_lines_that_managers_parse() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    for flag in ["--version", "-v"] {
        let outcome = runtime.call(&[flag]);
        let lines: Vec<&str> = outcome.text().lines().collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[1], "version", "{lines:?}");
        assert!(words[2].starts_with(|first: char| first.is_ascii_digit()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{lines:?}");
    }
}

#[test]
fn options_come_in_every_form_and_after_the_id() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let path = bundle.path().to_str().expect("UTF-8");
    let given = format!("-bundle={path}");
    for create in [
        &["create", "-b", path, &bundle.id][..],
        &["create", &given, &bundle.id],
        &["create", &bundle.id, "--bundle", path],
    ] {
        runtime.call(create).done();
        runtime.call(&["delete", &bundle.id, "-f"]).done();
        runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
    }
}

#[test]
fn of_an_option_given_twice_the_last_one_counts() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    let log = runtime.beside("last");
    let (first, last) = (runtime.beside("first"), log.to_str().expect("UTF-8"));
    let first = first.to_str().expect("UTF-8");
    runtime.call(&["--debug", "--debug", "--log", first, "--log", last, "state", "x"]).failed(1, "not exist");
    assert!(fs::read_to_string(&log).is_ok_and(|text| text.contains("does not exist")));
    assert!(!std::path::Path::new(first).exists());
}

#[test]
fn output_that_nobody_can_read_changes_no_exit_status() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    for (arguments, code) in [(&["state"][..], 1), (&["nosuch"], 3), (&["--help"], 0), (&["--version"], 0)] {
        let full = || fs::File::options().write(true).open("/dev/full").expect("open /dev/full");
        let status = runtime.command(arguments).stdout(full()).stderr(full()).status().expect("run");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_json_log_has_level_message_and_time() {
    needs!(gate::root());
    let runtime = Runtime::under_test();
    let log = runtime.beside("log");
    let file = log.to_str().expect("UTF-8");
    runtime.call(&["--log", file, "--log-format", "json", "state", "unknown"]).failed(1, "does not exist");
    let text = fs::read_to_string(&log).expect("read the log");
    let line: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().is_some_and(|message| message.contains("container does not exist")),
        "{line}"
    );
    assert!(line["time"].as_str().is_some_and(|time| time.len() >= 20 && &time[10..11] == "T"), "{line}");
}

#[test]
fn a_binary_that_cannot_be_sealed_is_told_in_the_log() {
    needs!(gate::root(), gate::program("unshare"));
    let runtime = Runtime::under_test();
    let log = runtime.beside("log");
    let exec = ["--log", log.to_str().expect("UTF-8"), "--log-format", "json", "exec", "x", "true"];
    let exec = runtime.command(&exec);
    // Without procfs the runtime does not find its own binary.
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount -l /proc && exec \"$@\"", "sh"]);
    let status = command.arg(exec.get_program()).args(exec.get_args()).status().expect("run");
    assert_eq!(status.code(), Some(255));
    let text = fs::read_to_string(&log).expect("read the log");
    let line: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("seal the runtime's binary")), "{line}");
}

#[test]
fn spec_writes_a_configuration_once() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["unused"]);
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["spec", "--bundle", path]).failed(1, "File config.json exists. Remove it first");
    fs::remove_file(bundle.path().join("config.json")).expect("remove config.json");
    runtime.call(&["spec", "--bundle", path]).done();
    let text = fs::read_to_string(bundle.path().join("config.json")).expect("read config.json");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(config["root"]["readonly"], true);
    assert_eq!(config["hostname"], name(&runtime).as_str());
    let kinds: Vec<&str> = config["linux"]["namespaces"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|n| n["type"].as_str())
        .collect();
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/echo", "ran"]);
    bundle.raw_config(config.to_string().as_bytes());
    assert_eq!(runtime.run(&bundle).text(), "ran");
}

#[test]
fn features_names_what_the_runtime_can_do() {
    needs!(gate::root());
    let features: Value =
        serde_json::from_str(Runtime::under_test().call(&["features"]).text()).expect("JSON");
    assert!(
        features["ociVersionMin"].as_str().is_some_and(|version| version.starts_with("1.")),
        "{features}"
    );
    let names = |list: &Value| {
        list.as_array().map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
    };
    let namespaces = names(&features["linux"]["namespaces"]).unwrap_or_default();
    assert!(
        ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]
            .iter()
            .all(|n| namespaces.contains(&(*n).to_owned()))
    );
    let options = names(&features["mountOptions"]).unwrap_or_default();
    assert!(
        ["ro", "rbind", "rslave", "nosuid", "tmpcopyup"].iter().all(|n| options.contains(&(*n).to_owned())),
        "{options:?}"
    );
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    // Each that is honoured and reaches the host.
    let annotations = names(&features["potentiallyUnsafeConfigAnnotations"]).unwrap_or_default();
    let honoured = |name: &str| annotations.contains(&name.to_owned());
    assert!(ours().is_err() || honoured("org.criu.config") && honoured("org.systemd.property."));
}

#[test]
fn identifiers_outside_the_alphabet_are_refused_before_anything_happens() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/touch", "/ran"]);
    let path = bundle.path().to_str().expect("UTF-8");
    let long = "x".repeat(1025);
    for id in ["..", "../x", "a/b", "a b", "a\nb", "é", "a%b", "", &long] {
        let outcome = runtime.call(&["run", "--bundle", path, id]);
        assert_eq!(outcome.code, 1, "{id:?}: {outcome:?}");
        assert!(!bundle.root().join("ran").exists(), "{id:?} ran");
    }
    let left: Vec<_> =
        fs::read_dir(runtime.state_dir()).map(|all| all.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bundle_can_be_run_by_its_path() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/echo", "by path"]);
    let given = format!("{}/", bundle.path().display());
    assert_eq!(runtime.call(&["run", &given]).stdout, "by path\n");
    let mut command = runtime.command(&["run", "."]);
    let outcome = hull_testkit::call(command.current_dir(bundle.path()), hull_testkit::runtime::LIMIT);
    assert_eq!(outcome.stdout, "by path\n", "{outcome:?}");
}

#[test]
fn closed_standard_streams_do_no_harm() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell(
        "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >/seen; ls /proc/self/fd | wc -l >>/seen",
    );
    let line = format!("exec {} <&- >&- 2>&-", runtime.run_line(&bundle));
    assert_eq!(hull_testkit::call::quick("sh", &["-c", &line]).code, 0);
    let seen = fs::read_to_string(bundle.root().join("seen")).expect("the container ran");
    assert!(!seen.contains("state"), "a descriptor of the runtime took the place of a closed stream: {seen}");
}

/// The name by which the runtime calls itself: that of its file.
fn name(runtime: &Runtime) -> String {
    runtime.program.file_name().expect("a file").to_string_lossy().into_owned()
}

#[test]
fn check_refuses_limits_that_create_would_refuse() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let path = bundle.path().to_str().expect("UTF-8").to_owned();
    runtime.call(&["check", "--bundle", &path]).done();
    let bundle = bundle.with(|config| config["linux"]["cgroupsPath"] = "/../outside".into());
    let refused = runtime.call(&["create", "--bundle", &path, &bundle.id]);
    assert_eq!(refused.code, 1, "create: {}", refused.stderr);
    assert_eq!(runtime.call(&["check", "--bundle", &path]).code, 1);
}

#[test]
fn what_ps_refuses_is_told_in_its_words() {
    needs!(gate::root(), gate::program("busybox"), gate::program("ps"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    container.call("ps", &["-z"]).failed(1, "unsupported SysV option");
    // Nobody has the number: beyond the largest (pid_max, proc(5)).
    container.call("ps", &["-p", "4194305"]).failed(1, "exit status 1");
    assert!(container.call("ps", &["-o", "pid,comm", "-e"]).text().contains(&container.pid().to_string()));
}
