//! What a builder meets: damaged caches and bases, files that change, runtimes that fail, commands that misbehave.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hull_testkit::call::eventually;
use hull_testkit::{Scratch, call, gate, needs, place};

use making::{LIMIT, build, builder, context, steps_of};

const SHELL: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![directory.to_owned()], Vec::new());
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_cache_is_a_miss_and_never_another_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("damaged");
    let context = context(&scratch, "c", &format!("{SHELL}COPY . /ctx\nRUN ls /ctx > /list\n"));
    for name in 0..20 {
        fs::write(context.join(format!("f{name}")), format!("content {name}\n")).unwrap();
    }
    let store = scratch.join("s");
    let wanted = build(&store, &context, &["-q"]).text().to_owned();
    let records = files(&store.join("cache"));
    assert!(records.len() > 8, "{records:?}");
    for (number, record) in records.iter().enumerate() {
        let good = fs::read(record).unwrap();
        let bad = match number % 3 {
            0 => Vec::new(),
            1 => good[..good.len() / 2].to_vec(),
            _ => good.iter().map(|byte| byte ^ 0x10).collect(),
        };
        fs::write(record, bad).unwrap();
        // A changed file, so that the caches are asked and not only the keys of the whole.
        fs::write(context.join("changing"), number.to_string()).unwrap();
        let outcome = build(&store, &context, &["-q"]);
        let clean = build(&scratch.join(format!("clean{}", number % 2)), &context, &["-q"]);
        assert_eq!(outcome.text(), clean.text(), "{}: {}", record.display(), outcome.stderr);
        fs::remove_file(context.join("changing")).unwrap();
    }
    assert_eq!(build(&store, &context, &["-q"]).text(), wanted);
}

#[test]
fn a_damaged_blob_of_a_base_never_becomes_part_of_an_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("blobs");
    let base = context(&scratch, "base", SHELL);
    let other = scratch.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("Dockerfile"), "FROM base\nRUN echo x > /x\n").unwrap();
    let wanted = {
        let store = scratch.join("clean");
        build(&store, &base, &["-t", "base"]).done();
        build(&store, &other, &["-q"]).text().to_owned()
    };
    for (number, damage) in ["flipped", "cut", "zeros"].into_iter().enumerate() {
        let store = scratch.join(damage);
        build(&store, &base, &["-t", "base"]).done();
        // Nothing of it is unpacked any more: the blobs are what the next build has.
        let archive = scratch.join(format!("{damage}.tar"));
        let run = |words: &[&str]| {
            call(Command::new(place::program("hull-build")).args(words).env("HULL_ROOT", &store), LIMIT)
        };
        run(&["save", "-o", &archive.to_string_lossy(), "base"]).done();
        run(&["rmi", "base"]).done();
        run(&["prune", "-a", "-f"]).done();
        run(&["load", "-i", &archive.to_string_lossy()]).done();
        let blobs = files(&store.join("blobs"));
        let layer = blobs.iter().max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
        let mut bytes = fs::read(layer).unwrap();
        let half = bytes.len() / 2;
        match number {
            0 => bytes[half] ^= 1,
            1 => bytes.truncate(half),
            _ => bytes[half..].fill(0),
        }
        fs::write(layer, bytes).unwrap();
        let outcome = build(&store, &other, &["-q", "--pull=never"]);
        assert_ne!(outcome.code, 0, "{damage}: {}", outcome.stdout);
        assert!(run(&["fsck", "--repair"]).code == 1, "{damage}");
        run(&["load", "-i", &archive.to_string_lossy()]).done();
        assert_eq!(build(&store, &other, &["-q"]).text(), wanted, "{damage}");
    }
}

#[test]
fn a_context_that_changes_while_it_is_read_fails_or_is_one_of_its_states() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("changing");
    let path = scratch.join("c");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("Dockerfile"), "FROM scratch\nCOPY f /f\nCMD [\"/f\"]\n").unwrap();
    let states: Vec<Vec<u8>> = (b'a'..b'd').map(|letter| vec![letter; 8 << 20]).collect();
    let mut digests = Vec::new();
    for state in &states {
        fs::write(path.join("f"), state).unwrap();
        digests.push(build(&scratch.join("clean"), &path, &["-q"]).text().to_owned());
    }
    let over = AtomicBool::new(false);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            for state in states.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                // In place, so that a reader sees a part of each.
                fs::write(path.join("f"), state).unwrap();
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        let one = |number| build(&scratch.join(format!("s{}", number % 2)), &path, &["-q", "--no-cache"]);
        let outcomes = (0..20).map(one).collect();
        over.store(true, Ordering::Relaxed);
        outcomes
    });
    let reasons = ["changed while it was read", "than when it was looked at"];
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome.code {
            // A file in the middle of a write is a state, too: then the image has what the key was made of.
            0 if digests.contains(&outcome.text().to_owned()) => {}
            0 => assert!(is_of_a_cut_file(&scratch, number, outcome.text()), "{number}"),
            _ => assert!(reasons.iter().any(|reason| outcome.stderr.contains(reason)), "{}", outcome.stderr),
        }
    }
}

/// Whether the file in an image is one letter of a state, as far as it was written.
fn is_of_a_cut_file(scratch: &Scratch, number: usize, image: &str) -> bool {
    let store = scratch.join(format!("s{}", number % 2));
    let bundle = scratch.join(format!("bundle{number}"));
    let mut command = Command::new(place::program("hull-build"));
    command.args(["unpack", image]).arg(&bundle).env("HULL_ROOT", store).stdin(Stdio::null());
    call(&mut command, LIMIT).done();
    let found = fs::read(bundle.join("rootfs/f")).unwrap();
    found.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 1
}

#[test]
fn a_runtime_that_is_missing_or_broken_is_named_with_its_words() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("runtimes");
    let context = context(&scratch, "c", SHELL);
    let broken = scratch.join("broken");
    let script = "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --log ] && log=$2; shift; done\n\
                  [ -z \"$log\" ] || echo '{\"level\":\"error\",\"msg\":\"the dog ate it\"}' >> \"$log\"\nexit 1\n";
    fs::write(&broken, script).unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let broken = broken.display().to_string();
    for (runtime, said) in [
        ("/nowhere/runtime", "/nowhere/runtime"),
        ("no-such-runtime", "no-such-runtime"),
        ("/etc/passwd", "/etc/passwd"),
        (&*broken, "the runtime failed: the dog ate it"),
    ] {
        let outcome = build(&scratch.join("s"), &context, &["--runtime", runtime]);
        assert!(outcome.code != 0 && outcome.stderr.contains(said), "{runtime}: {}", outcome.stderr);
    }
    build(&scratch.join("s"), &context, &[]).done();
}

#[test]
fn a_command_that_misbehaves_leaves_nothing_and_holds_nobody_up() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("misbehaves");
    let store = scratch.join("s");
    let one = |name: &str, run: &str| {
        let context = context(&scratch, name, &format!("{SHELL}RUN {run}\n"));
        build(&store, &context, &["-t", name])
    };
    let flood = one(
        "flood",
        "yes 0123456789012345678901234567890123456789 | head -c 130000000; echo; echo the end > /end",
    );
    flood.done();
    // 64 MiB in lines of 41 bytes, of twice as many.
    let lines = flood.stderr.lines().count();
    assert!(lines < 1_650_000, "{lines} lines");
    assert!(flood.stderr.contains("the rest is not shown"));
    one("background", "sleep 1000 & (setsid sleep 1000 &) ; echo left").done();
    one("dark", "mkdir -p /dark/er && echo x > /dark/er/f && chmod 0 /dark/er /dark").done();
    let long = "n".repeat(255);
    one("long", &format!("mkfifo /pipe && echo x > /{long} && ln -s nowhere /link")).done();
    one("mounts", "mount -t tmpfs none /tmp || echo refused").done();
    one("first", "kill -9 1; kill -9 -1; echo after").done();
    one("clock", "date -s 2001-01-01 2>&1 | grep 'not permitted'").done();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*store.to_string_lossy()), "a mount stayed");
    let run = |words: &[&str]| {
        call(Command::new(place::program("hull-build")).args(words).env("HULL_ROOT", &store), LIMIT)
    };
    run(&["fsck"]).done();
    run(&["rmi", "flood", "background", "dark", "long", "mounts", "first", "clock"]).done();
    run(&["prune", "-a", "-f"]).done();
    assert_eq!(fs::read_dir(store.join("layers")).unwrap().count(), 0);
}

/// What begins a step that has the cache mount `/c` for itself.
const LOCKED: &str = "RUN --mount=type=cache,target=/c,sharing=locked";

/// A build that holds that cache mount for as long as it lives, once it does; it and others see a directory at `/w`.
fn holder(scratch: &Scratch, store: &Path, volume: &str) -> Child {
    let place = context(scratch, "holder", &format!("{SHELL}{LOCKED} touch /w/held; sleep 1000\n"));
    let mut command = builder(store, &place, &["-v", volume]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (witness, _) = volume.split_once(':').unwrap();
    assert!(eventually(LIMIT, || Path::new(witness).join("held").exists()));
    child
}

#[test]
fn the_lock_of_a_cache_mount_goes_with_who_held_it() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("lock");
    let store = scratch.join("s");
    let witness = scratch.join("witness");
    fs::create_dir(&witness).unwrap();
    let volume = format!("{}:/w:rw", witness.display());
    let next = context(&scratch, "next", &format!("{SHELL}{LOCKED} echo mine > /c/f; cat /c/f\n"));
    let mut child = holder(&scratch, &store, &volume);
    let log = scratch.join("waiter");
    let mut command = builder(&store, &next, &["-v", &volume]);
    let mut waiter = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    let is_done = || said().lines().any(|line| line.ends_with(" mine"));
    // It has come as far as the lock, says so, and waits.
    let comes = eventually(LIMIT, || {
        said().contains("waiting for the cache mount /c, which another step has locked")
            || waiter.try_wait().unwrap().is_some()
    });
    assert!(comes && waiter.try_wait().unwrap().is_none() && !is_done(), "{}", said());
    child.kill().unwrap();
    child.wait().unwrap();
    let waited = waiter.wait().unwrap();
    assert!(waited.success() && is_done(), "{}", said());
    assert!(eventually(LIMIT, || steps_of(child.id(), &store).is_empty()));
}

#[test]
fn a_build_that_fails_waits_for_no_cache_mount() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("no-wait");
    let store = scratch.join("s");
    let witness = scratch.join("witness");
    fs::create_dir(&witness).unwrap();
    let volume = format!("{}:/w:rw", witness.display());
    let mut holder = holder(&scratch, &store, &volume);
    let context = context(&scratch, "fails", "");
    let stages = format!(
        "FROM scratch AS base\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n{SHELL}\
         FROM base AS waits\n{LOCKED} true\n\
         FROM base\nRUN until [ -e /w/go ]; do sleep 0.01; done; exit 3\nCOPY --from=waits /bin /bin\n"
    );
    fs::write(context.join("Dockerfile"), stages).unwrap();
    let log = scratch.join("log");
    let mut command = builder(&store, &context, &["-v", &volume]);
    let mut fails = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    let waits = eventually(LIMIT, || said().contains("waiting for the cache mount /c"));
    fs::write(witness.join("go"), "").unwrap();
    let ends = eventually(LIMIT, || fails.try_wait().unwrap().is_some());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(waits && ends, "{}", said());
    assert_eq!(fails.wait().unwrap().code(), Some(3), "{}", said());
    assert!(eventually(LIMIT, || steps_of(holder.id(), &store).is_empty()));
}

#[test]
fn a_secret_is_a_small_file_or_a_variable_and_nothing_else() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("secrets");
    let context =
        context(&scratch, "c", &format!("{SHELL}RUN --mount=type=secret,id=s cat /run/secrets/s\n"));
    let pipe = scratch.join("pipe");
    call(Command::new("mkfifo").arg(&pipe), LIMIT).done();
    let large = scratch.join("large");
    fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    let start = Instant::now();
    for (source, reason) in [
        (format!("src={}", pipe.display()), "must be a regular file of at most 1048576 bytes"),
        (format!("src={}", large.display()), "must be a regular file of at most 1048576 bytes"),
        ("src=/dev/zero".to_owned(), "must be a regular file"),
        (format!("src={}", scratch.join("gone").display()), "No such file"),
        ("env=NOT_THERE_AT_ALL".to_owned(), "the variable NOT_THERE_AT_ALL of the secret \"s\" is not set"),
        ("src=/etc/passwd,env=HOME".to_owned(), "has both a file and a variable"),
    ] {
        let outcome = build(&scratch.join("s"), &context, &["--secret", &format!("id=s,{source}")]);
        assert!(outcome.code != 0 && outcome.stderr.contains(reason), "{source}: {}", outcome.stderr);
    }
    assert!(start.elapsed() < LIMIT);
    // Files are looked at before any step, be they needed or not; nothing is made.
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let gone = format!("id=s,src={}", scratch.join("gone").display());
    let outcome = build(&scratch.join("s2"), &context, &["--secret", &gone]);
    assert!(outcome.code != 0 && outcome.stderr.contains("open the secret"), "{}", outcome.stderr);
    assert!(!scratch.join("s2").exists());
    build(&scratch.join("s2"), &context, &["--secret", "id=s,env=NOT_THERE_AT_ALL"]).done();
}

#[test]
fn dockerfiles_beyond_measure_are_refused_at_once() {
    let scratch = Scratch::new("beyond");
    let store = scratch.join("s");
    let rows: [(&str, Vec<u8>, &str); 6] = [
        ("large", b"# x\n".repeat(3 << 20), "Dockerfile"),
        ("stages", "FROM scratch\n".repeat(10_000).into_bytes(), "stages"),
        ("nul", b"FROM scratch\nLABEL a=\0b\n".to_vec(), "Dockerfile"),
        ("endless", [b"FROM scratch\nRUN a".to_vec(), b" \\\n b".repeat(1000)].concat(), ""),
        ("open", b"FROM scratch\nCOPY <<E /\nx\n".to_vec(), "E"),
        ("nested", format!("FROM scratch\nENV a={}\n", "${a:-".repeat(5000)).into_bytes(), ""),
    ];
    for (name, text, said) in rows {
        let path = scratch.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("Dockerfile"), text).unwrap();
        let mut command = Command::new(place::program("hull-build"));
        command.args(["build", "--check"]).arg(&path).env("HULL_ROOT", &store).stdin(Stdio::null());
        let outcome = call(&mut command, Duration::from_secs(20));
        if name != "endless" {
            assert!(outcome.code != 0 && outcome.stderr.contains(said), "{name}: {outcome:?}");
        }
        assert!(outcome.stderr.len() < 100_000 && !outcome.stderr.contains("panicked"), "{name}");
    }
}
