//! Damaged, foreign, full and read-only state.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use hull_testkit::call::{PATIENCE, eventually, quick};
use hull_testkit::runtime::{LIMIT, ours};
use hull_testkit::{Bundle, Outcome, Runtime, Scratch, call, needs};
use serde_json::{Value, json};

use crate::busybox;
use crate::residue::{delete_leaves_nothing, lasting, nothing_left};

fn record(runtime: &Runtime, bundle: &Bundle) -> std::path::PathBuf {
    runtime.state_dir().join(&bundle.id).join("state.json")
}

/// Rewrites the record with a checksum that is right.
fn forge(file: &Path, change: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(file).expect("read the record");
    let mut whole: Value = serde_json::from_str(&text).expect("the record is JSON");
    change(&mut whole["record"]);
    let record = whole["record"].to_string();
    let sum = !record.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    fs::write(file, format!("{{\"checksum\":\"crc32:{sum:08x}\",\"record\":{record}}}\n")).expect("write it");
}

///
#[test]
fn a_damaged_record_is_told_and_a_forced_delete_still_ends_the_container() {
    needs!(busybox(), ours());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 9] = [
        ("empty", |file| fs::write(file, "").expect("write")),
        ("cut", |file| {
            let bytes = fs::read(file).expect("read");
            fs::write(file, &bytes[..bytes.len() / 2]).expect("write");
        }),
        ("random", |file| fs::write(file, [0x9e; 700]).expect("write")),
        ("one bit", |file| {
            let mut bytes = fs::read(file).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).expect("write");
        }),
        ("a newer version", |file| forge(file, |record| record["version"] = 99.into())),
        ("missing", |file| fs::remove_file(file).expect("remove")),
        ("a link", |file| {
            fs::remove_file(file).expect("remove");
            symlink("/etc/passwd", file).expect("link");
        }),
        ("a fifo", |file| {
            fs::remove_file(file).expect("remove");
            quick("mkfifo", &[file.to_str().expect("UTF-8")]).done();
        }),
        ("a directory", |file| {
            fs::remove_file(file).expect("remove");
            fs::create_dir_all(file.join("in/side")).expect("make a directory");
        }),
    ];
    let runtime = Runtime::under_test();
    for (name, damage) in damages {
        let bundle = lasting();
        let container = runtime.start(&bundle);
        damage(&record(&runtime, &bundle));
        let state = container.call("state", &[]);
        assert!(state.code == 1 && state.stdout.is_empty(), "{name}: {state:?}");
        assert!(!state.stderr.contains("panicked") && state.stderr.contains(&bundle.id), "{name}: {state:?}");
        assert_eq!(runtime.call(&["list"]).code, 0, "{name}");
        container.call("delete", &[]).failed(1, "");
        delete_leaves_nothing(&runtime, &bundle, name);
    }
}

/// a link in the state root is no container.
#[test]
fn a_link_in_the_state_root_is_no_container() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let other = Runtime::under_test();
    let bundle = lasting();
    let container = other.start(&bundle);
    fs::create_dir_all(runtime.state_dir()).expect("make the state root");
    symlink(other.state_dir().join(&bundle.id), runtime.state_dir().join("linked")).expect("link");
    runtime.call(&["state", "linked"]).failed(1, "does not exist");
    runtime.call(&["delete", "--force", "linked"]).done();
    assert_eq!(runtime.call(&["list", "-q"]).text(), "");
    assert_eq!(container.status(), "running");
}

/// the number in the record belongs to another process now, or is one of before the last boot.
#[test]
fn a_reused_pid_and_an_old_boot_harm_nobody() {
    needs!(busybox(), ours());
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("start sleep");
    let pid = i64::from(stranger.id());
    for old_boot in [false, true] {
        let runtime = Runtime::under_test();
        let bundle = lasting();
        let container = runtime.start(&bundle);
        container.call("kill", &["KILL"]).done();
        assert!(container.becomes("stopped"));
        forge(&record(&runtime, &bundle), |record| {
            record["init"]["pid"] = pid.into();
            if old_boot {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read stat");
                let start = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19));
                record["init"]["start_time"] = start.and_then(|text| text.parse::<u64>().ok()).into();
                record["init"]["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
            }
        });
        assert_eq!(container.status(), "stopped", "old boot: {old_boot}");
        container.call("kill", &["KILL"]).failed(1, "not running");
        container.call("delete", &[]).done();
        nothing_left(&runtime, &bundle, "delete");
        assert!(stranger.try_wait().expect("ask for a child").is_none(), "a foreign process was killed");
    }
    stranger.kill().expect("kill a child of ours");
    stranger.wait().expect("wait for a child of ours");
}

/// Runs `run` with its state root on a file system made by `mount`, in a mount namespace that goes with it.
fn run_on(mount: &str, bundle: &Bundle) -> Outcome {
    let place = Scratch::new("full");
    let script = "eval \"$1\" && \"$2\" --root \"$3/state\" run --bundle \"$4\" \"$5\"; code=$?; ls -A \"$3/state\" 2>/dev/null; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(format!("{mount} {}", place.path().display())).arg(hull_testkit::runtime::under_test());
    command.arg(place.path()).arg(bundle.path()).arg(&bundle.id);
    call(&mut command, LIMIT)
}

/// a container is created or it is not; a full state directory leaves nothing of it.
#[test]
fn a_full_state_directory_is_told_and_leaves_nothing() {
    needs!(busybox());
    let bundle = Bundle::shell("echo ran");
    let sizes =
        ["nr_inodes=2", "nr_inodes=3", "nr_inodes=4", "nr_inodes=5", "size=4k", "size=8k", "size=16k"];
    let mut full = 0;
    for size in sizes {
        let outcome = run_on(&format!("mount -t tmpfs -o {size} none"), &bundle);
        // Only the list of the state directory may follow what the program printed.
        match outcome.code {
            0 => assert_eq!(outcome.stdout, "ran\n", "{size}: {outcome:?}"),
            code => {
                assert_eq!((code, outcome.stdout.as_str()), (1, ""), "{size}: {outcome:?}");
                assert!(outcome.stderr.to_lowercase().contains("no space left"), "{size}: {outcome:?}");
                full += 1;
            }
        }
        nothing_left(&Runtime::under_test(), &bundle, size);
    }
    assert!(full >= 3, "{full} of the file systems were full only");
    assert_eq!(run_on("mount -t tmpfs -o size=1m none", &bundle).text(), "ran", "the control");
}

/// what makes room needs none, and a container ends once.
#[test]
fn a_container_is_deleted_though_its_state_directory_is_full() {
    needs!(busybox());
    let place = Scratch::new("full");
    let count = place.join("count");
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        let script = format!("echo ran >>{}", count.display());
        config["hooks"] = json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    let script = "mkdir \"$2/state\" && mount -t tmpfs -o size=1m none \"$2/state\" || exit 99
                  runtime=$1 state=$2/state bundle=$3 id=$4
                  call() { \"$runtime\" --root \"$state\" \"$@\"; }
                  for force in '' --force; do
                      call run --detach --bundle \"$bundle\" \"$id\" >/dev/null </dev/null || exit 98
                      head -c 2000000 /dev/zero >\"$state/.full\"
                      [ -n \"$force\" ] || { call kill \"$id\" KILL; while ! call state \"$id\" | grep -q stopped; do sleep 0.1; done; }
                      call delete $force \"$id\" || exit 97
                      rm \"$state/.full\"
                      ls \"$state\"
                  done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(hull_testkit::runtime::under_test()).arg(place.path()).arg(bundle.path()).arg(&bundle.id);
    let outcome = call(&mut command, LIMIT);
    assert_eq!(outcome.text(), "", "something is left");
    assert_eq!(fs::read_to_string(&count).expect("read"), "ran\nran\n", "{outcome:?}");
    nothing_left(&Runtime::under_test(), &bundle, "full");
}

///
#[test]
fn a_read_only_state_directory_is_one_clear_error_and_can_be_read() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let (old, new) = (lasting(), Bundle::new(&["/bin/true"]));
    let container = runtime.start(&old);
    let script = "mount --bind \"$2\" \"$2\" && mount -o remount,bind,ro \"$2\" && \"$1\" --root \"$2\" list -q &&
                  \"$1\" --root \"$2\" state \"$3\" >/dev/null && exec \"$1\" --root \"$2\" run --bundle \"$4\" \"$5\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(&runtime.program).arg(runtime.state_dir()).arg(&old.id).arg(new.path()).arg(&new.id);
    let outcome = call(&mut command, LIMIT);
    outcome.failed(1, "ead-only file system");
    assert_eq!(outcome.stdout.trim(), old.id);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert_eq!(container.status(), "running");
    delete_leaves_nothing(&runtime, &old, "read-only");
}

///
#[test]
fn ids_that_are_no_ids_are_refused_before_anything_is_touched() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let long = "x".repeat(201);
    let bad = ["..", ".", "../x", "a/b", "", "a b", "a\tb", "a\u{7f}", "ä", ".hidden", &long];
    for id in bad {
        let arguments = ["create", "--bundle", bundle.path().to_str().expect("UTF-8"), id];
        runtime.call(&arguments).failed(1, "");
        for command in ["state", "delete", "kill", "start"] {
            assert_eq!(runtime.call(&[command, id]).code, 1, "{command} {id:?}");
        }
        assert!(!runtime.state_dir().exists(), "{id:?}: the state root was made");
    }
    let good = "x".repeat(200);
    runtime.call(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &good]).done();
    runtime.call(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), "--", "-dash"]).done();
}

///
#[test]
fn a_pid_file_that_cannot_be_written_undoes_the_create() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let undone = runtime.beside("undone");
    let note = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >{}", undone.display())] }]);
    let bundle = lasting().with(|config| config["hooks"] = json!({ "poststop": note }));
    let directory = runtime.beside("directory");
    fs::create_dir(&directory).expect("make a directory");
    for file in [&directory, &runtime.beside("no/such/place")] {
        let file = file.to_str().expect("UTF-8");
        let path = bundle.path().to_str().expect("UTF-8");
        let outcome = runtime.call(&["create", "--pid-file", file, "--bundle", path, &bundle.id]);
        outcome.failed(1, "pid");
        nothing_left(&runtime, &bundle, file);
        // What its other hooks have set up on the host is for these to take away.
        let state: Value = serde_json::from_slice(&fs::read(&undone).expect("its poststop hook ran"))
            .expect("a state document");
        assert_eq!(state["status"], "stopped");
        fs::remove_file(&undone).expect("remove the note");
    }
    assert_eq!(fs::read_dir(&directory).expect("read it").count(), 0);
}

/// a log that takes nothing loses no container.
#[test]
fn a_full_log_does_not_stop_the_container() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo ran");
    let path = bundle.path().to_str().expect("UTF-8");
    let outcome = runtime.call(&["--debug", "--log", "/dev/full", "run", "--bundle", path, &bundle.id]);
    assert_eq!(outcome.text(), "ran");
}

/// the program that made the container is replaced, then deleted.
#[test]
fn another_program_file_takes_over_a_running_container() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let place = Scratch::new("upgrade");
    let old = place.join("runtime");
    fs::copy(&runtime.program, &old).expect("copy the runtime");
    let bundle = lasting();
    let mut command = Command::new(&old);
    command
        .arg("--root")
        .arg(runtime.state_dir())
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(&bundle.id);
    call(&mut command, LIMIT).done();
    fs::remove_file(&old).expect("remove the runtime");
    for arguments in [&["start", bundle.id.as_str()][..], &["exec", &bundle.id, "/bin/true"]] {
        runtime.call(arguments).done();
    }
    assert!(eventually(PATIENCE, || runtime.call(&["ps", &bundle.id]).stdout.contains(&bundle.id)));
    delete_leaves_nothing(&runtime, &bundle, "a program file that is gone");
}
