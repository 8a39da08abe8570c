//! Builds that are disturbed: killed at any moment, out of space, ten at once, by other users; nothing wrong stays.
//!
//! `HULL_SOAK=N` kills N builds instead of a few (`just soak-builder`).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::call::eventually;
use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};

use making::steps_of;

const LIMIT: Duration = Duration::from_secs(120);
const STEPS: &str = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN set -e; mkdir /d; for i in 1 2 3 4 5; do echo $i > /d/$i; done; ln /d/1 /d/one; chown 5:6 /d/2; rm /bin/vi\nCOPY . /ctx\nRUN rm -r /d && mkdir -m 1777 /d\nUSER 7:8\nWORKDIR /home/own\nRUN echo mine > f && echo x > /d/y\nUSER 0\nRUN test \"$(stat -c %u:%g /home/own)$(stat -c %u:%g /d/y)\" = 7:87:8\nWORKDIR /w\n";

fn builder(store: &Path) -> Command {
    let mut command = Command::new(place::program("hull-build"));
    command.env("HULL_ROOT", store).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    command
}

fn build(store: &Path, context: &Path, more: &[&str]) -> Outcome {
    call(builder(store).args(["build", "-q"]).args(more).arg(context), LIMIT)
}

/// What is mounted there is a living build's, its context for one.
#[test]
fn mounts_below_the_stores_tmp_are_left_alone() {
    needs!(gate::root(), gate::program("unshare"));
    let scratch = Scratch::new("mounted");
    let (store, own) = (scratch.join("store"), scratch.join("own"));
    call(builder(&store).arg("images"), LIMIT).done();
    fs::create_dir(&own).unwrap();
    fs::write(own.join("file"), "kept").unwrap();
    let script = "mkdir $1/tmp/x $1/tmp/left && mount --bind $2 $1/tmp/x && shift 2 && \"$@\"; test -e $HULL_ROOT/tmp/left";
    for (words, cleared) in [(&["images"][..], true), (&["guard-steps", "/bin/true", "/nowhere"], false)] {
        let program = builder(&store);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&store).arg(&own);
        command.arg(program.get_program()).args(words).env("HULL_ROOT", &store).stdin(Stdio::null());
        let outcome = call(&mut command, LIMIT);
        assert_eq!(outcome.code, i32::from(cleared), "{words:?}: {outcome:?}");
        assert_eq!(fs::read_to_string(own.join("file")).unwrap(), "kept", "{words:?}");
        let _ = fs::remove_dir(store.join("tmp/x"));
    }
}

fn context(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("context");
    fs::create_dir(&path).unwrap();
    fs::copy("/bin/busybox", path.join("busybox")).unwrap();
    fs::write(path.join("Dockerfile"), STEPS).unwrap();
    path
}

/// The next build gives the undisturbed digest, the store is clean, and no mount is left.
fn is_sound(store: &Path, context: &Path, wanted: &str) {
    let outcome = build(store, context, &[]);
    assert_eq!(outcome.text(), wanted, "{}", outcome.stderr);
    call(builder(store).arg("fsck"), LIMIT).done();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*store.to_string_lossy()), "a mount stayed");
}

#[test]
fn builds_killed_at_any_moment_leave_a_store_that_works() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("kill");
    let context = context(&scratch);
    let store = scratch.join("store");
    let start = Instant::now();
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    let whole = start.elapsed();
    let kills: u32 = std::env::var("HULL_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut interrupted = 0;
    for number in 0..kills {
        // Moments spread over a whole build, in an order that jumps about.
        let moment = whole * (number * 7 % kills) / kills;
        let mut command = builder(&store);
        command.args(["build", "-q", "--no-cache"]).arg(&context);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        interrupted += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = eventually(LIMIT, || steps_of(child.id(), &store).is_empty());
        assert!(gone, "kill {number}: {:?} is left", steps_of(child.id(), &store));
        if number % 8 == 7 {
            is_sound(&store, &context, &wanted);
        }
    }
    assert!(interrupted > 0, "no build was interrupted: the test shows nothing");
    is_sound(&store, &context, &wanted);
}

#[test]
fn a_full_store_fails_the_build_and_breaks_nothing() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("full");
    let context = context(&scratch);
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    // In a mount namespace of its own: a store of some MiB, then the same store with room enough.
    let script = "mount -t tmpfs -o size=$1k full $HULL_ROOT && { $2 build -q $3 && echo early || echo failed; \
                  mount -o remount,size=256m $HULL_ROOT && $2 build -q $3 && $2 fsck >&2 && $2 images -q >&2; }";
    let mut failures = 0;
    for kilobytes in [64, 700, 1300, 2200, 2800, 3600, 4400, 5200, 9000] {
        let store = scratch.join(format!("s{kilobytes}"));
        fs::create_dir(&store).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", &kilobytes.to_string()]);
        command.arg(place::program("hull-build")).arg(&context);
        let settings = builder(&store);
        command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = call(command.stdin(Stdio::null()), LIMIT);
        outcome.done();
        let last = outcome.stdout.lines().last().unwrap();
        assert_eq!(last, wanted, "{kilobytes} KiB: {}", outcome.stderr);
        if outcome.stdout.contains("failed") {
            failures += 1;
            assert!(outcome.stderr.contains("No space left"), "{kilobytes} KiB: {}", outcome.stderr);
        }
    }
    assert!(failures >= 4, "only {failures} builds ran out of space: the test shows little");
}

/// Calls that need space on the disk, or report that it ran out or broke.
const WRITES: &str = "write,pwrite64,writev,copy_file_range,ftruncate,fallocate,mkdir,mkdirat,linkat,symlinkat,rename,renameat,renameat2,fsync,fdatasync";
const OPENS: &str = "open,openat,openat2";

/// What fails, and how it does.
const FAILURES: [(&str, &str); 5] =
    [(WRITES, "ENOSPC"), (WRITES, "EIO"), (WRITES, "EDQUOT"), (OPENS, "EIO"), (OPENS, "EMFILE")];

#[test]
fn no_call_that_fails_makes_a_wrong_image() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("strace"));
    let scratch = Scratch::new("writes");
    let context = context(&scratch);
    let store = scratch.join("store");
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    // The n-th call of each kind of each thread, of the builder and of all that it starts; more by HULL_SOAK.
    let most: u32 = std::env::var("HULL_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let numbers: Vec<u32> = if most > 0 { (1..=most).collect() } else { vec![1, 2, 3, 5, 8, 13, 21, 34] };
    let mut failures = [0; FAILURES.len()];
    for (turn, number) in numbers.iter().enumerate() {
        // All of them in a long run, else those whose turn it is.
        let chosen = (0..FAILURES.len()).filter(|kind| most > 0 || kind % 2 == turn % 2);
        for kind in chosen {
            let (calls, error) = FAILURES[kind];
            let outcome =
                build_with_failures(&store, &context, calls, &format!("error={error}:when={number}"));
            match outcome.code {
                0 => assert_eq!(outcome.text(), wanted, "{error} at call {number}: {}", outcome.stderr),
                _ => failures[kind] += 1,
            }
        }
        if number % 4 == 1 {
            is_sound(&store, &context, &wanted);
        }
    }
    println!("failed builds by kind: {failures:?}");
    assert!(
        failures.iter().all(|count| *count > 0),
        "a kind failed no build, and shows nothing: {failures:?}"
    );
    is_sound(&store, &context, &wanted);
}

/// Builds while calls fail as strace is told.
fn build_with_failures(store: &Path, context: &Path, calls: &str, failure: &str) -> Outcome {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{failure}")]);
    let plain = builder(store);
    command.arg(plain.get_program()).args(["build", "-q", "--no-cache"]).arg(context);
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    call(&mut command, LIMIT)
}

/// A limit to the size of files makes writes short, and ends the process or fails the next write.
#[test]
fn no_write_that_is_cut_short_makes_a_wrong_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("short");
    let context = context(&scratch);
    let store = scratch.join("store");
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    let (mut told, mut killed) = (0, 0);
    for blocks in [1, 7, 33, 250, 777, 1500, 2001, 3001] {
        for ends in ["trap '' XFSZ", "trap - XFSZ"] {
            let script = format!("ulimit -f {blocks}; {ends}; exec \"$@\"");
            let plain = builder(&store);
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh"]).arg(plain.get_program());
            command.args(["build", "-q", "--no-cache"]).arg(&context);
            command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let outcome = call(command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null()), LIMIT);
            match outcome.code {
                0 => assert_eq!(outcome.text(), wanted, "{blocks} blocks: {}", outcome.stderr),
                153 => killed += 1,
                _ => told += i32::from(outcome.stderr.contains("File too large")),
            }
        }
        is_sound(&store, &context, &wanted);
    }
    assert!(
        told > 3 && killed > 3,
        "{told} builds told of a short write, {killed} ended by it: that shows little"
    );
}

#[test]
fn ten_builds_at_once_give_one_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("ten");
    let context = context(&scratch);
    let store = scratch.join("store");
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..10)
            .map(|number| {
                let (store, context) = (&store, &context);
                let fresh: &[&str] = if number % 3 == 0 { &["--no-cache"] } else { &[] };
                scope.spawn(move || build(store, context, fresh))
            })
            .collect();
        for outcome in builds.into_iter().map(|build| build.join().unwrap()) {
            assert_eq!(outcome.text(), wanted, "{}", outcome.stderr);
        }
    });
    is_sound(&store, &context, &wanted);
}

#[test]
fn nobody_else_may_write_to_the_store() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("closed");
    let context = context(&scratch);
    let store = scratch.join("store");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(place::program("hull-build"));
    command.args(["build", "-q", "-t", "x"]).arg(&context);
    let settings = builder(&store);
    command.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
    call(command.stdin(Stdio::null()), LIMIT).done();
    let mut seen = 0;
    for entry in fs::read_dir(&store).unwrap().chain(fs::read_dir(store.join("cache")).unwrap()) {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{} has mode {mode:o}", entry.path().display());
        seen += 1;
    }
    assert!(seen > 8, "{seen} files");
}

const RUNS_WITHOUT_RANGE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN id -u > /who && mkdir /d && echo x > /d/f\nWORKDIR /w\nCOPY Dockerfile .\nRUN cat /d/f Dockerfile > /both; rm /d/f\n";

#[test]
fn an_ordinary_user_builds_the_same_bytes() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("newuidmap"), gate::program("setpriv"));
    let scratch = Scratch::new("user");
    let context = context(&scratch);
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    let store = scratch.join("store");
    fs::create_dir(&store).unwrap();
    fs::write(scratch.join("ranges"), "nobody:500000:65536\n").unwrap();
    // Programs may lie where others can't look: the user gets copies.
    for (from, to) in [(place::program("hull-build"), "hull-build"), (runtime::under_test(), "hull")] {
        fs::copy(from, scratch.join(to)).unwrap();
    }
    let script = "cd $1 && chown -R 65534:65534 store context && for f in /etc/subuid /etc/subgid; do mount --bind $2 $f; done; \
                  export HULL_ROOT=$1/store HULL_BUILD_RUNTIME=$1/hull; shift 2; \
                  as='setpriv --reuid=65534 --regid=65534 --clear-groups'; \
                  find context -exec touch -d '1 hour ago' {} +; umask 077; export TZ=Pacific/Kiritimati LANG=tr_TR.UTF-8; \
                  $as ./hull-build build -q --jobs 1 -t x context && $as ./hull-build fsck >&2 && $as ./hull-build rmi x >&2 && \
                  $as ./hull-build prune -a -f >&2 && ls store/layers/sha256 2>/dev/null | wc -l";
    let run = |ranges: &Path| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(scratch.path()).arg(ranges);
        call(command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null()), LIMIT)
    };
    let outcome = run(&scratch.join("ranges"));
    outcome.done();
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), [&wanted, "0"], "{}", outcome.stderr);
    // Without a range, only what belongs to root can be made, by RUN as well.
    fs::write(scratch.join("none"), "").unwrap();
    fs::write(context.join("Dockerfile"), RUNS_WITHOUT_RANGE).unwrap();
    let wanted = build(&scratch.join("clean"), &context, &[]).text().to_owned();
    let outcome = run(&scratch.join("none"));
    assert!(outcome.stderr.contains("no range of ids for this user"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().next(), Some(&*wanted), "{}", outcome.stderr);
}

const OWNED: &str = "mkdir -p root/bin root/home root/opt && cp /bin/busybox root/bin/busybox && ln -s busybox root/bin/sh && \
    echo x > root/home/f && chown 1000:7 root/home/f && mknod root/opt/null c 1 3 && tar --numeric-owner -cf base.tar -C root .";
const LOOKS: &str = "FROM base\nRUN echo saw $(/bin/busybox stat -c %u:%g /home/f), $([ -c /opt/null ] && echo a device || echo none)\n";

#[test]
fn with_more_ids_or_rights_all_is_unpacked_and_built_again() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("newuidmap"), gate::program("setpriv"));
    let scratch = Scratch::new("more");
    for (from, to) in [(place::program("hull-build"), "hull-build"), (runtime::under_test(), "hull")] {
        fs::copy(from, scratch.join(to)).unwrap();
    }
    for (name, text) in [("ranges", ""), ("Dockerfile", LOOKS)] {
        fs::write(scratch.join(name), text).unwrap();
    }
    let shell = |ranges: &str, user: &str, commands: &str| {
        fs::write(scratch.join("ranges"), ranges).unwrap();
        let script = format!(
            "cd $1 && for f in /etc/subuid /etc/subgid; do mount --bind ranges $f; done; \
             export HULL_ROOT=$1/store HULL_BUILD_RUNTIME=$1/hull; b='{user} ./hull-build'; {commands}"
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).arg(scratch.path()).env_remove("SOURCE_DATE_EPOCH");
        let outcome = call(command.stdin(Stdio::null()), LIMIT);
        outcome.done();
        outcome
    };
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let imports = "mkdir store && chown 65534:65534 store && chmod 755 . && $b import base.tar base >&2";
    shell("", nobody, &format!("{OWNED} && {imports}"));
    let rows = [
        ("", nobody, "saw 0:0, none"),
        ("nobody:500000:65536\n", nobody, "saw 1000:7, none"),
        ("", "", "saw 1000:7, a device"),
    ];
    for (ranges, user, saw) in rows {
        let builds = "mkdir -p c && cp Dockerfile c && $b build --progress plain c && $b fsck >&2";
        let first = shell(ranges, user, builds);
        assert!(first.stderr.contains(saw), "{saw}: {}", first.stderr);
        let again = shell(ranges, user, "$b build --progress plain c");
        assert!(again.stderr.contains("CACHED"), "{saw}: {}", again.stderr);
    }
    // What was there before is still what those see that it was made for.
    let again = shell(rows[0].0, rows[0].1, "$b build --progress plain c && $b fsck >&2");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}
