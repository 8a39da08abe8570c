//! Stores on file systems that no overlay can be written to: steps and containers work on copies, and the same images
//! come of it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};

use making::{LIMIT, build, context};

/// Each way of changing what is below: removing, replacing, writing over, changing owner, mode and links, moving.
const DOCKERFILE: &str = r#"FROM scratch AS first
COPY busybox /bin/busybox
COPY busybox /bin/sh
RUN busybox mkdir -p /t/kept/deep /t/gone /t/swapped /t/file && busybox touch /t/kept/a /t/gone/b /t/swapped/c && \
    echo one > /t/one && busybox ln /t/one /t/other-name && busybox ln -s one /t/link && busybox mkfifo /t/pipe && \
    busybox chown -R 5:6 /t/kept && busybox chmod 4711 /t/kept/a && echo same > /t/kept/deep/same
WORKDIR /t/work
RUN busybox rm -r /t/gone && busybox rm -r /t/swapped && echo now-a-file > /t/swapped && busybox rmdir /t/file && \
    busybox mkdir /t/file && busybox touch /t/file/in && busybox rm -r /t/kept && busybox mkdir /t/kept && \
    echo new > /t/kept/a && echo more >> /t/one
COPY --chown=7:8 data /t/copied/
RUN busybox mv /t/copied /t/moved && busybox rm /t/link && busybox ln -s other-name /t/link && busybox rm /bin/sh && \
    busybox cp /bin/busybox /bin/sh && busybox ln /t/moved/f /t/moved/g && busybox chmod 600 /t/pipe
ADD archive.tar /t/
RUN true
RUN --mount=type=bind,source=data,target=/mnt,rw --mount=type=cache,target=/cache \
    echo lost > /mnt/f && echo kept > /cache/f && busybox cat /mnt/f > /t/from-mount
FROM first
RUN busybox cat /t/one /t/other-name > /both && busybox rm /t/one
FROM scratch
COPY --from=0 /t /t
COPY --from=1 /bin/busybox /bin/busybox
COPY --from=1 /bin/sh /bin/sh
COPY --from=1 /both /t/
"#;

fn full_context(scratch: &Scratch) -> std::path::PathBuf {
    let path = context(scratch, "c", "");
    fs::write(path.join("Dockerfile"), DOCKERFILE).unwrap();
    fs::create_dir_all(path.join("data")).unwrap();
    fs::write(path.join("data/f"), "data").unwrap();
    call(Command::new("tar").current_dir(&path).args(["-cf", "archive.tar", "data"]), LIMIT).done();
    path
}

/// Runs a script in a mount namespace of its own, where `$mount` makes the file system of the store.
fn on(mount: &str, scratch: &Scratch, script: &str) -> Outcome {
    fs::create_dir_all(scratch.join("m")).unwrap();
    let script = format!("set -e; {mount}; export HULL_ROOT=$PWD/m/store; {script}; $B fsck >&2; $B df >&2");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(scratch.path());
    command.env("B", place::program("hull-build")).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    call(&mut command, LIMIT)
}

const FILE_SYSTEMS: [(&str, &str); 2] = [
    ("another overlay", "mkdir -p l u w && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m"),
    ("no extended attributes", "mount -t ramfs ramfs m"),
];
/// What tells that files are copied.
const NOTICE: &str = "files are copied for each step, there is no overlay here";

#[test]
fn steps_on_copies_make_the_same_image() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("copies");
    let context = full_context(&scratch);
    let wanted = build(&scratch.join("plain"), &context, &["-q", "-t", "made"]);
    assert!(!wanted.stderr.contains(NOTICE), "{}", wanted.stderr);
    for (name, mount) in FILE_SYSTEMS {
        let script = "$B build -q -t made c; $B build --progress plain c 2>cached; $B build -q --no-cache c; \
                      $B prune -f >&2; rm -r $HULL_ROOT/layers/*; echo >> c/data/f; $B build -q c; \
                      printf data > c/data/f; $B build -q c";
        let made = on(mount, &scratch, script);
        let ids: Vec<&str> = made.text().lines().collect();
        assert_eq!(made.stderr.matches(NOTICE).count(), 4, "{name}: {}", made.stderr);
        assert!(made.stderr.contains("0 problems"), "{name}: {}", made.stderr);
        assert_eq!([ids[0], ids[1], ids[2], ids[4]], [wanted.text(); 4], "{name}");
        assert_ne!(ids[3], ids[0], "{name}: another content");
        let cached = fs::read_to_string(scratch.join("cached")).unwrap();
        assert!(
            cached.contains("CACHED") && !cached.contains("DONE") && !cached.contains(NOTICE),
            "{cached}"
        );
    }
}

/// Between the objects of a program it would be none, and a live view would draw over it.
#[test]
fn a_notice_is_a_part_of_what_is_shown() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("shown-notice");
    context(&scratch, "c", "RUN true\n");
    on(FILE_SYSTEMS[1].1, &scratch, "$B build --progress rawjson c 2>shown").done();
    let shown = fs::read_to_string(scratch.join("shown")).unwrap();
    let events: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{shown}"))).collect();
    let told =
        |event: &&serde_json::Value| event["text"].as_str().is_some_and(|text| text.starts_with(NOTICE));
    let notices: Vec<_> = events.iter().filter(told).map(|event| &event["event"]).collect();
    assert_eq!(notices, ["notice"], "{shown}");
}

/// An archive of an image whose last layer takes away what its first one has.
fn archive_with_removals(scratch: &Scratch) -> String {
    let store = scratch.join("plain");
    let steps = "RUN busybox mkdir -p /d/e && echo x > /d/e/f && echo y > /gone\nRUN busybox rm -r /gone /d && busybox mkdir /d\n";
    let context = context(scratch, "removals", steps);
    build(&store, &context, &["-q", "-t", "lab/removals:1"]).done();
    let archive = scratch.join("removals.tar").display().to_string();
    let mut save = Command::new(place::program("hull-build"));
    call(save.env("HULL_ROOT", &store).args(["save", "-o", &archive, "lab/removals:1"]), LIMIT).done();
    archive
}

#[test]
fn a_base_with_removals_is_built_upon_and_run_without_overlays() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("copied-base");
    let archive = archive_with_removals(&scratch);
    let child = scratch.join("child");
    fs::create_dir(&child).unwrap();
    let text = "FROM lab/removals:1\nRUN busybox ls / /d > /seen\nRUN busybox rm /seen && echo z > /d/z && echo w > /d/w\n";
    fs::write(child.join("Dockerfile"), text).unwrap();
    let wanted = build(&scratch.join("plain"), &child, &["-q"]);
    for (name, mount) in FILE_SYSTEMS {
        let run = "$B run --network none --runtime $HULL_BUILD_RUNTIME";
        let script = format!(
            "$B load -q -i {archive}; $B build -q -t child child; \
             {run} --name c child sh -c 'busybox ls / /d; echo own > /d/z; busybox rm /d/w; echo new > /new'; \
             $B diff c | sort; $B cp c:/d/z -  | tar -xOf -; $B commit -q c again 2>/dev/null || $B commit c again; \
             {run} --rm --entrypoint /bin/busybox again cat /d/z /new; \
             $B start c >&2; $B stop c >&2; $B rm c >&2; grep -c $PWD/m/store/ /proc/self/mountinfo || true"
        );
        let made = on(mount, &scratch, &script);
        let lines: Vec<&str> = made.text().lines().collect();
        assert!(made.stderr.contains(NOTICE), "{name}: {}", made.stderr);
        assert!(lines.contains(&wanted.text()), "{name}: {lines:?}");
        for (line, times) in [("z", 1), ("w", 1), ("gone", 0), ("seen", 0), ("own", 2), ("new", 1)] {
            assert_eq!(
                lines.iter().filter(|found| **found == line).count(),
                times,
                "{name} {line}: {lines:?}"
            );
        }
        for line in ["A /new", "C /d/z", "D /d/w"] {
            assert!(lines.contains(&line), "{name} {line}: {lines:?}");
        }
        assert_eq!(lines.last(), Some(&"0"), "{name}: no mount is left");
    }
}

#[test]
fn a_container_keeps_its_changes_where_its_overlay_is_to_be_had_no_more() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    let scratch = Scratch::new("moved-container");
    let steps = "RUN echo old > /changed && busybox touch /removed /was-a-file && busybox mkdir /emptied && \
                 busybox touch /emptied/before\n";
    let context = context(&scratch, "c", steps);
    let store = scratch.join("m/store");
    build(&store, &context, &["-q", "-t", "lab/own:1"]).done();
    // What is written the second time is not what was written the first time.
    let script = "busybox test -e /own && exit; busybox cat /proc/sys/kernel/random/uuid > /own; \
                  echo new > /changed; busybox rm -r /removed /emptied /was-a-file; busybox mkdir /emptied; \
                  busybox touch /emptied/after /one; busybox ln /one /other; busybox chown 3:4 /; busybox chmod 751 /; \
                  busybox ln -s /was-a-file /dev/log; busybox syslogd -O /dev/null; \
                  until busybox test -S /was-a-file; do busybox sleep 0.02; done";
    let mut run = Command::new(place::program("hull-build"));
    run.env("HULL_ROOT", &store).stdin(Stdio::null()).args(["run", "--network", "none", "--name", "c"]);
    run.arg("--runtime").arg(runtime::under_test()).args(["lab/own:1", "sh", "-c", script]);
    let run = call(&mut run, LIMIT);
    assert!(!run.stderr.contains(NOTICE), "{}", run.stderr);
    run.done();
    // Nothing is tried out in `tmp`, and what is to be written to is of another mount than what the kernel works in. Its
    // attributes, as those of opaque directories, stay.
    let mount = "mount -t ramfs ramfs m/store/tmp; upper=$(echo $PWD/m/store/containers/*/upper); mount --bind $upper $upper";
    let script = "$B start c >&2; $B stop c >&2; $B diff c | sort; $B cp c:/changed - | tar -xOf -; \
                  $B cp c:/own - | tar -xOf - | cmp - $upper/own; \
                  cd $HULL_ROOT/containers/*/copy; stat -c '%a %u:%g' .; test one -ef other; echo $?; cd - >&2; umount $upper; $B rm c >&2";
    let made = on(mount, &scratch, script);
    assert!(made.stderr.contains(NOTICE), "{}", made.stderr);
    let lines: Vec<&str> = made.text().lines().collect();
    // An opaque directory, a socket in the place of a file, two names of one file, a root of another mode.
    let wanted = [
        "A /emptied/after",
        "A /one",
        "A /other",
        "A /own",
        "C /changed",
        "C /emptied",
        "D /emptied/before",
        "D /removed",
        "D /was-a-file",
        "new",
        "751 3:4",
        "0",
    ];
    assert_eq!(lines, wanted, "{}", made.stderr);
}

#[test]
fn an_image_is_pulled_into_a_store_that_takes_no_marks() {
    needs!(
        gate::root(),
        gate::path("/bin/busybox"),
        gate::program("unshare"),
        gate::program("docker-registry")
    );
    let scratch = Scratch::new("copied-pull");
    archive_with_removals(&scratch);
    let script = pull_script(&scratch.join("plain"));
    for (name, mount) in FILE_SYSTEMS {
        let made = on(mount, &scratch, &script);
        assert_eq!(made.text().lines().last(), Some("d"), "{name}: {}", made.stderr);
    }
}

/// Starts a registry, pushes the image from an ordinary store, pulls it into the other one and looks into it.
fn pull_script(plain: &Path) -> String {
    format!(
        "port=$(python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 0)); print(s.getsockname()[1])'); \
         printf 'version: 0.1\\nstorage: {{filesystem: {{rootdirectory: %s}}}}\\nhttp: {{addr: \"127.0.0.1:%s\"}}\\n' \
           $PWD/registry $port > registry.yml; \
         docker-registry serve registry.yml >registry.log 2>&1 & registry=$!; trap 'kill $registry' EXIT; \
         for i in $(seq 200); do $B --root {plain} push lab/removals:1 127.0.0.1:$port/a:1 >&2 && break; sleep 0.1; done; \
         $B pull -q 127.0.0.1:$port/a:1 >&2; \
         $B run --rm --network none --runtime $HULL_BUILD_RUNTIME 127.0.0.1:$port/a:1 \
           sh -c 'busybox ls -d gone d/e d 2>/dev/null || true'",
        plain = plain.display()
    )
}

#[test]
fn an_ordinary_user_builds_on_copies_with_and_without_a_range_of_ids() {
    needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
    needs!(gate::program("newuidmap"), gate::program("setpriv"));
    let scratch = Scratch::new("copied-rootless");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Programs may lie where others can't look: the user gets copies.
    for program in [place::program("hull-build"), runtime::under_test()] {
        fs::copy(&program, scratch.join(program.file_name().unwrap())).unwrap();
    }
    let of_root = "RUN busybox mkdir -p /d/e && echo x > /d/e/f && echo y > /gone\nRUN busybox rm -r /d /gone && busybox mkdir /d\n";
    let of_others =
        "RUN busybox mkdir /h && busybox chown 1000:1000 /h /bin\nUSER 1000\nRUN echo mine > /h/f\n";
    let mount = FILE_SYSTEMS[0].1;
    for (ranges, steps) in
        [("nobody:500000:65536", format!("{of_root}{of_others}")), ("", of_root.to_owned())]
    {
        let context = context(&scratch, "c", &steps);
        let wanted = build(&scratch.join("plain"), &context, &["-q"]);
        let runtime = runtime::under_test();
        let runtime = runtime.file_name().unwrap().display();
        let script = format!(
            "echo '{ranges}' > ranges; for f in /etc/subuid /etc/subgid; do mount --bind ranges $f; done; \
             mkdir -p m/store; chown 65534:65534 m/store; export HOME=$HULL_ROOT HULL_BUILD_RUNTIME=$PWD/{runtime}; \
             B='setpriv --reuid=65534 --regid=65534 --clear-groups ./hull-build'; \
             $B build -q -t x c; $B build -q --no-cache c; $B prune -a -f >&2"
        );
        let made = on(mount, &scratch, &script);
        assert_eq!(made.text().lines().collect::<Vec<_>>(), [wanted.text(); 2], "{ranges}: {}", made.stderr);
        assert_eq!(made.stderr.matches(NOTICE).count(), 2, "{ranges}: {}", made.stderr);
        for directory in ["l", "u", "w"] {
            fs::remove_dir_all(scratch.join(directory)).unwrap();
        }
    }
}
