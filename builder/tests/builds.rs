//! Builds as a whole: the same bytes everywhere, nothing stale, one execution of what several want, files from URLs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::eventually;
use hull_testkit::{Scratch, call, gate, needs, place};

use making::{LIMIT, build, builder, context, steps_of};

const STEPS: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir /d && for i in 1 2 3 4 5; do echo $i > /d/$i; done; ln /d/1 /d/one; chown 5:6 /d/2\nCOPY . /ctx\nWORKDIR /w\n";

#[test]
fn two_machines_make_the_same_bytes() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("same");
    let one = context(&scratch, "one", STEPS);
    let other = context(&scratch, "deep/er/other", STEPS);
    fs::write(one.join("f"), "f").unwrap();
    fs::write(other.join("f"), "f").unwrap();
    call(Command::new("touch").args(["-d", "2001-02-03"]).arg(other.join("f")), LIMIT).done();
    let first = build(&scratch.join("s1"), &one, &["-q", "--jobs", "1"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    let second = builder(&scratch.join("s2"), &other, &["-q", "--jobs", "7"]);
    command.arg(second.get_program()).args(second.get_args());
    command.envs(second.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("TZ", "Pacific/Kiritimati").env("LANG", "tr_TR.UTF-8").stdin(Stdio::null());
    assert_eq!(first.text(), call(&mut command, LIMIT).text());
}

#[test]
fn a_file_rewritten_with_its_size_and_time_is_built_again() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("stale");
    let context = context(&scratch, "c", "COPY f /f\nRUN cat /f\n");
    let store = scratch.join("s");
    fs::write(context.join("f"), "old content").unwrap();
    std::thread::sleep(Duration::from_millis(80));
    let first = build(&store, &context, &[]);
    assert!(build(&store, &context, &[]).stderr.contains("CACHED"), "nothing changed");
    let time = fs::metadata(context.join("f")).unwrap().modified().unwrap();
    fs::write(context.join("f"), "new content").unwrap();
    fs::File::options().write(true).open(context.join("f")).unwrap().set_modified(time).unwrap();
    let second = build(&store, &context, &["--explain"]);
    assert_ne!(first.text(), second.text());
    assert!(second.stderr.contains("? file 0:f: file 0644"), "{}", second.stderr);
    fs::write(context.join("f"), "old content").unwrap();
    assert_eq!(build(&store, &context, &[]).text(), first.text());
}

#[test]
fn times_and_places_of_files_change_no_key() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("touch");
    let context = context(&scratch, "c", "COPY f /f\nRUN cat /f\n");
    let store = scratch.join("s");
    fs::write(context.join("f"), "x").unwrap();
    build(&store, &context, &[]).done();
    call(Command::new("touch").args(["-d", "2011-01-01"]).arg(context.join("f")), LIMIT).done();
    let moved = scratch.join("moved");
    fs::rename(&context, &moved).unwrap();
    let again = build(&store, &moved, &[]);
    assert_eq!(again.stderr.matches("CACHED").count(), 4, "{}", again.stderr);
    fs::set_permissions(moved.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(build(&store, &moved, &[]).stderr.matches("CACHED").count(), 2, "a mode counts");
    // Of what a RUN is given, names of hosts count and addresses don't.
    let more: [(&[&str], usize); 4] = [
        (&["--add-host", "a:127.0.0.2"], 3),
        (&["--add-host", "a:127.0.0.3", "--memory", "64m"], 4),
        (&["--ulimit", "nofile=99"], 3),
        (&["--shm-size", "1m"], 3),
    ];
    for (flags, cached) in more {
        assert_eq!(build(&store, &moved, flags).stderr.matches("CACHED").count(), cached, "{flags:?}");
    }
}

#[test]
fn a_step_that_gives_the_same_bytes_changes_nothing_above() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("cutoff");
    let store = scratch.join("s");
    let first = context(&scratch, "c", "RUN [\"/bin/busybox\", \"touch\", \"/x\"]\nRUN echo later\n");
    build(&store, &first, &[]).done();
    let second = context(&scratch, "c", "RUN [\"/bin/busybox\", \"touch\", \"/./x\"]\nRUN echo later\n");
    let outcome = build(&store, &second, &[]);
    assert!(outcome.stderr.contains("#4 CACHED"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("#3 CACHED"), "{}", outcome.stderr);
}

#[test]
fn an_irreproducible_step_is_named() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("verify");
    let store = scratch.join("s");
    let good = context(&scratch, "good", STEPS);
    build(&store, &good, &["--verify-reproducible"]).done();
    let bad = context(
        &scratch,
        "bad",
        "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo a > /a; /bin/busybox cat /proc/sys/kernel/random/uuid > /b\"]\n",
    );
    let outcome = build(&store, &bad, &["--verify-reproducible"]);
    outcome.failed(1, "not reproducible: line 4");
    assert!(outcome.stderr.contains("first at /b"), "{}", outcome.stderr);
}

#[test]
fn builds_at_once_do_a_step_once() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("once");
    let store = scratch.join("s");
    let witness = scratch.join("witness");
    fs::create_dir(&witness).unwrap();
    let context = context(&scratch, "c", "RUN echo ran >> /w/log; /bin/busybox sleep 1\n");
    let volume = format!("{}:/w:rw", witness.display());
    let spawn = |_| {
        let mut command = builder(&store, &context, &["-v", &volume]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..5).map(spawn).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(witness.join("log")).unwrap(), "ran\n");
}

/// A context whose Dockerfile goes on with stages `FROM base`.
fn context_of_stages(scratch: &Scratch, stages: &str) -> PathBuf {
    let context = context(scratch, "c", stages);
    let file = context.join("Dockerfile");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("FROM scratch", "FROM scratch AS base", 1)).unwrap();
    context
}

#[test]
fn a_failure_ends_steps_that_are_just_beginning() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("ending");
    let store = scratch.join("s");
    let stages = "FROM base AS waits\nRUN /bin/busybox sleep 300\nFROM base\nRUN exit 3\nCOPY --from=waits /bin /waits\n";
    let context = context_of_stages(&scratch, stages);
    for _ in 0..8 {
        build(&store, &context, &[]).failed(3, "exit code 3");
    }
}

#[test]
fn ignore_files_beside_a_dockerfile_lead_nowhere_outside() {
    let scratch = Scratch::new("beside");
    let context = scratch.join("c");
    fs::create_dir(&context).unwrap();
    for name in ["keep", "drop"] {
        fs::write(context.join(name), "").unwrap();
    }
    for directory in [scratch.path(), &context] {
        fs::write(directory.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    }
    fs::write(scratch.join("outside"), "[precious\n").unwrap();
    fs::write(scratch.join("Dockerfile.dockerignore"), "drop\nDockerfile*\n").unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(place::program("hull-build"));
        command.current_dir(&context).env("HULL_ROOT", scratch.join("s")).arg("build").args(words);
        call(command.args(["-o", "../out"]), LIMIT)
    };
    let there = || {
        let names = fs::read_dir(scratch.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        fs::remove_dir_all(scratch.join("out")).unwrap();
        names
    };
    run(&["-f", "../c/../Dockerfile", "."]).done();
    assert_eq!(there(), ["keep"], "outside of the context a file counts, whichever way it is named");
    let link = context.join("Dockerfile.dockerignore");
    for to in ["../outside", scratch.join("outside").to_str().unwrap()] {
        symlink(to, &link).unwrap();
        for name in ["Dockerfile", "../c/Dockerfile", "./Dockerfile"] {
            let refused = run(&["-f", name, "."]);
            refused.failed(1, "is not a regular file of the context");
            assert!(!refused.stderr.contains("precious"), "{}", refused.stderr);
        }
        fs::remove_file(&link).unwrap();
    }
    // What lies behind a linked directory cannot be read there, and is not passed over.
    symlink("..", context.join("up")).unwrap();
    run(&["-f", "up/Dockerfile", "."]).failed(1, "is not a regular file of the context");
    fs::remove_file(context.join("up")).unwrap();
    fs::write(context.join("rules"), "drop\nDockerfile*\nrules\n").unwrap();
    symlink("/rules", &link).unwrap();
    run(&["-f", "./Dockerfile", "."]).done();
    assert_eq!(there(), ["keep"], "inside of it a link is followed");
}

#[test]
fn a_signal_ends_the_steps_with_the_build() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("signal");
    let began = scratch.join("began");
    fs::create_dir(&began).unwrap();
    // Nobody else sleeps for so long.
    let span = format!("{}", 10_000_000 + std::process::id());
    let step = |name: &str| format!("FROM base AS {name}\nRUN : > /w/{name}; /bin/busybox sleep {span}\n");
    let stages =
        format!("{}{}FROM base\nCOPY --from=a /bin /a\nCOPY --from=b /bin /b\n", step("a"), step("b"));
    let context = context_of_stages(&scratch, &stages);
    let volume = format!("{}:/w:rw", began.display());
    for (signal, name) in [(15, "SIGTERM"), (3, "SIGQUIT")] {
        let mut command = builder(&scratch.join("s"), &context, &["-v", &volume]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(eventually(LIMIT, || ["a", "b"].iter().all(|step| began.join(step).exists())));
        let pid = child.id().cast_signed();
        hull_sys::process::kill(hull_sys::process::Pid::from_raw(pid), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(128 + signal));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with(&format!("hull-build: ended by {name}\n")), "{said}");
        assert!(!said.contains("Dockerfile:"), "no step is to blame: {said}");
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines =
            processes.map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default());
        assert_eq!(lines.filter(|line| line.contains(&span)).collect::<Vec<_>>(), [""; 0], "steps go on");
        ["a", "b"].iter().for_each(|step| fs::remove_file(began.join(step)).unwrap());
    }
}

#[test]
fn a_runtime_whose_kill_hangs_holds_up_neither_signal_nor_guard() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("hangs");
    let context = context(&scratch, "c", "RUN /bin/busybox sleep 100000\n");
    let script =
        "#!/bin/sh\nfor word; do [ \"$word\" = kill ] && exec sleep 100000; done\nexec RUNTIME \"$@\"\n";
    let runtime = scratch.join("runtime");
    let real = hull_testkit::runtime::under_test();
    fs::write(&runtime, script.replace("RUNTIME", &real.to_string_lossy())).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
    let store = scratch.join("s");
    let mut command = builder(&store, &context, &[]);
    command.env("HULL_BUILD_RUNTIME", &runtime).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let runs = || steps_of(child.id(), &store).iter().any(|line| line.contains("sleep 100000"));
    assert!(eventually(LIMIT, runs));
    hull_sys::process::kill(hull_sys::process::Pid::from_raw(child.id().cast_signed()), 15).unwrap();
    assert!(eventually(LIMIT, || child.try_wait().unwrap().is_some()), "the build waits for the kill");
    assert!(
        eventually(LIMIT, || steps_of(child.id(), &store).is_empty()),
        "{:?}",
        steps_of(child.id(), &store)
    );
}

#[test]
fn steps_end_with_a_build_that_is_killed() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("orphans");
    let began = scratch.join("began");
    fs::create_dir(&began).unwrap();
    // One ignores what can be ignored, one writes more than a pipe holds.
    let step = |name: &str, run: &str| format!("FROM base AS {name}\nRUN : > /w/{name}; {run}\n");
    let waits = step("a", "trap '' TERM; /bin/busybox sleep 100000");
    let writes = step("b", "while :; do echo some line of some length; done");
    let stages = format!("{waits}{writes}FROM base\nCOPY --from=a /bin /a\nCOPY --from=b /bin /b\n");
    let context = context_of_stages(&scratch, &stages);
    let volume = format!("{}:/w:rw", began.display());
    let store = scratch.join("s");
    let mut command = builder(&store, &context, &["-v", &volume]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(eventually(LIMIT, || ["a", "b"].iter().all(|step| began.join(step).exists())));
    let runs = |what: &str| steps_of(child.id(), &store).iter().any(|line| line.contains(what));
    assert!(eventually(LIMIT, || runs("busybox sleep 100000")) && runs(" guard-steps "));
    child.kill().unwrap();
    child.wait().unwrap();
    // Who kills a build may remove its store as well.
    fs::remove_dir_all(&store).unwrap();
    assert!(
        eventually(LIMIT, || steps_of(child.id(), &store).is_empty()),
        "{:?}",
        steps_of(child.id(), &store)
    );
}

#[test]
fn a_killed_build_leaves_a_store_that_works() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("killed");
    let context = context(&scratch, "c", STEPS);
    let wanted = build(&scratch.join("clean"), &context, &["-q"]);
    let store = scratch.join("s");
    for milliseconds in [5, 20, 40, 60, 80, 100, 130, 160, 200, 250] {
        let mut command = builder(&store, &context, &["--no-cache"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(build(&store, &context, &["-q"]).text(), wanted.text());
    let mut check = Command::new(place::program("hull-build"));
    call(check.arg("fsck").env("HULL_ROOT", &store), LIMIT).done();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*store.to_string_lossy()), "a mount stayed");
}

#[test]
fn outputs_hold_the_image() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("outputs");
    let removed = "COPY f /f\nCOPY f /old\nRUN [\"/bin/busybox\", \"rm\", \"/old\"]\n";
    let context = context(&scratch, "c", removed);
    fs::write(context.join("f"), "content").unwrap();
    fs::create_dir(scratch.join("local")).unwrap();
    fs::write(scratch.join("local/old"), "the user's own").unwrap();
    let dest = |name: &str| scratch.join(name).display().to_string();
    let outputs = [
        format!("type=oci,dest={}", dest("oci.tar")),
        format!("type=tar,dest={}", dest("files.tar")),
        format!("type=local,dest={}", dest("local")),
        format!("type=oci,tar=false,dest={}", dest("layout")),
    ];
    let mut arguments = vec!["-t", "out:1"];
    outputs.iter().for_each(|output| arguments.extend(["-o", output]));
    build(&scratch.join("s"), &context, &arguments).done();
    assert_eq!(fs::read_to_string(scratch.join("local/f")).unwrap(), "content");
    assert_eq!(fs::read_to_string(scratch.join("local/old")).unwrap(), "the user's own");
    let list =
        |name: &str| call(Command::new("tar").arg("tf").arg(scratch.join(name)), LIMIT).text().to_owned();
    assert_eq!(list("files.tar"), "bin/\nbin/busybox\nbin/sh\nf");
    assert!(list("oci.tar").contains("manifest.json") && list("oci.tar").contains("index.json"));
    assert!(scratch.join("layout/oci-layout").exists());
    // Another image of the same configuration is in the store, and an archive still is of the one just built.
    let archive = format!("type=oci,dest={}", dest("plain.tar"));
    build(&scratch.join("s"), &context, &["--annotation", "a=b", "-o", &archive]).done();
    let index = call(Command::new("tar").arg("xOf").arg(scratch.join("plain.tar")).arg("index.json"), LIMIT);
    let index: serde_json::Value = serde_json::from_str(index.text()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let manifest = fs::read_to_string(scratch.join("s/blobs/sha256").join(manifest)).unwrap();
    assert!(manifest.contains(r#""annotations":{"a":"b","#), "{manifest}");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    // Two archives in one stream would be neither.
    let twice =
        build(&scratch.join("s"), &context, &["--no-cache", "-o", "type=tar", "-o", "type=oci,dest=-"]);
    twice.failed(1, "2 outputs are for standard output");
    assert!(twice.stdout.is_empty() && !twice.stderr.contains("[stage"), "{}", twice.stderr);
    // With several names it has them all.
    let archive = format!("type=docker,dest={}", dest("names.tar"));
    build(&scratch.join("s"), &context, &["-t", "one", "-t", "two", "-o", &archive]).done();
    let list =
        call(Command::new("tar").arg("xOf").arg(scratch.join("names.tar")).arg("manifest.json"), LIMIT);
    assert!(list.text().contains(r#""RepoTags":["one:latest","two:latest"]"#), "{}", list.text());
}

#[test]
fn files_tell_the_id_and_what_was_built_and_replace_links_not_what_they_lead_to() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("told");
    let context = context(&scratch, "c", "LABEL a=b\n");
    let place = |name: &str| scratch.join(name).display().to_string();
    fs::write(scratch.join("other"), "another's").unwrap();
    symlink("other", scratch.join("id")).unwrap();
    let flags = [
        "-q",
        "-t",
        "one",
        "-t",
        "lab/two:2",
        "--iidfile",
        &place("id"),
        "--metadata-file",
        &place("metadata"),
    ];
    let id = build(&scratch.join("s"), &context, &flags).text().to_owned();
    assert_eq!(fs::read_to_string(scratch.join("id")).unwrap(), id);
    assert_eq!(fs::read_to_string(scratch.join("other")).unwrap(), "another's");
    let told: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.join("metadata")).unwrap()).unwrap();
    assert_eq!(told["containerimage.config.digest"], id);
    assert_eq!(told["containerimage.digest"], told["containerimage.descriptor"]["digest"]);
    assert_eq!(told["image.name"], "docker.io/library/one:latest,docker.io/lab/two:2");
    let blob = told["containerimage.digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(fs::read_to_string(scratch.join("s/blobs/sha256").join(blob)).unwrap().contains(&id));
}

#[test]
fn removing_an_image_takes_nothing_from_the_cache() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("rmi");
    let store = scratch.join("s");
    let stages = "RUN echo made > /made\nFROM scratch\nCOPY --from=0 /made /made\n";
    let kept = context(&scratch, "kept", stages);
    build(&store, &kept, &["-t", "kept"]).done();
    let other = scratch.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /other\n").unwrap();
    build(&store, &other, &["-t", "other"]).done();
    let blobs = || fs::read_dir(store.join("blobs/sha256")).unwrap().count();
    let run = |words: &[&str]| {
        call(Command::new(place::program("hull-build")).args(words).env("HULL_ROOT", &store), LIMIT)
    };
    assert_eq!(blobs(), 8, "four layers and twice configuration and manifest");
    let told = run(&["rmi", "other"]);
    assert!(told.text().contains("Deleted: sha256:"), "{}", told.text());
    assert_eq!(blobs(), 6, "configuration and manifest are gone, the layer is the step's");
    assert_eq!(build(&store, &kept, &["-t", "kept"]).stderr.matches("CACHED").count(), 4);
    assert_eq!(build(&store, &other, &["-t", "other"]).stderr.matches("CACHED").count(), 1);
    run(&["rmi", "kept"]).done();
    assert_eq!(build(&store, &kept, &["-t", "kept"]).stderr.matches("CACHED").count(), 4);
    run(&["rmi", "kept", "other"]).done();
    run(&["prune", "-f"]).done();
    assert_eq!(blobs(), 0);
    assert_eq!(fs::read_dir(store.join("layers")).unwrap().count(), 0);
}

/// A server that answers every request with these bytes, as often as asked.
fn serve(content: &'static [u8], times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(times) {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            assert!(!String::from_utf8_lossy(&request[..count]).to_lowercase().contains("authorization"));
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(content).unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn add_fetches_a_url_and_holds_it_against_its_checksum() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("url");
    let server = serve(b"hello", 8);
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let more = format!("ADD {server}/ /named\nADD {server}/c%2B%2B.txt /d/\n");
    let added = format!("ADD --checksum={sum} {server}/dir/name.txt?q /d/\n{more}");
    let good = context(&scratch, "good", &added);
    let local = scratch.join("local");
    let output = format!("type=local,dest={}", local.display());
    build(&scratch.join("s"), &good, &["-o", &output]).done();
    for name in ["d/name.txt", "d/c++.txt", "named"] {
        assert_eq!(fs::read_to_string(local.join(name)).unwrap(), "hello", "{name}");
    }
    assert_eq!(fs::metadata(local.join("d/name.txt")).unwrap().permissions().mode() & 0o7777, 0o600);
    let bad =
        context(&scratch, "bad", &format!("ADD --checksum={} {server}/n /n\n", sum.replace("2c", "3c")));
    build(&scratch.join("s"), &bad, &[]).failed(1, "the checksum of the file is sha256:2cf24");
    let nameless = context(&scratch, "nameless", &format!("ADD {server}/ /d/\n"));
    build(&scratch.join("s"), &nameless, &[]).failed(1, "names no file to put into the directory");
}

#[test]
fn triggers_of_a_base_are_carried_out_in_its_child_and_no_further() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("onbuild");
    let store = scratch.join("s");
    let triggers = "ARG WHO=nobody\nENV MADE=base\nONBUILD ARG WHO\nONBUILD COPY name /name\nONBUILD COPY --from=tools /tool /tool\nONBUILD ENV MADE=child\nONBUILD RUN [ ! -e /own ] && /bin/busybox cat /name /tool > /all && echo $WHO >> /all\nRUN [ ! -e /all ]\n";
    let base = context(&scratch, "base", triggers);
    build(&store, &base, &["-q", "-t", "base"]).done();
    let child = scratch.join("child");
    fs::create_dir(&child).unwrap();
    fs::write(child.join("name"), "of the child\n").unwrap();
    let text = "FROM scratch AS tools\nCOPY <<EOF /tool\na tool\nEOF\nFROM base\nRUN [ $MADE = child ] && echo own > /own\n";
    fs::write(child.join("Dockerfile"), text).unwrap();
    let out = scratch.join("out");
    let local = format!("type=local,dest={}", out.display());
    build(&store, &child, &["-q", "-t", "child", "--build-arg", "WHO=me"]).done();
    build(&store, &child, &["-q", "--build-arg", "WHO=me", "-o", &local]).done();
    assert_eq!(fs::read_to_string(out.join("all")).unwrap(), "of the child\na tool\nme\n");
    assert_eq!(fs::read_to_string(out.join("own")).unwrap(), "own\n");
    let triggers_of = |name: &str| {
        let mut command = Command::new(place::program("hull-build"));
        command.env("HULL_ROOT", &store).args(["inspect", "-f", "{{json .Config.OnBuild}}", name]);
        call(&mut command, LIMIT).text().to_owned()
    };
    assert!(triggers_of("base").contains("COPY name /name"));
    assert_eq!(triggers_of("child"), "null");
    // A grandchild has none to carry out: it needs no file of that name.
    fs::write(child.join("Dockerfile"), "FROM child\nRUN [ -e /all ]\n").unwrap();
    fs::remove_file(child.join("name")).unwrap();
    build(&store, &child, &["-q"]).done();
}
