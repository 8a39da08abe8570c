//! What one container's life must not do to another, to the host, or to the commands that ask about it.
#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::{PATIENCE, call, eventually};
use hull_testkit::place::Scratch;
use hull_testkit::runtime::{LIMIT, cgroup_dir, ours, peek};
use hull_testkit::{Bundle, Runtime, gate, needs};
use serde_json::json;

#[test]
fn deleting_an_ended_container_leaves_its_successor_in_the_same_cgroup_alone() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let path = format!("/testkit-neighbours-{}", std::process::id());
    let in_there = |bundle: Bundle| bundle.with(|config| config["linux"]["cgroupsPath"] = json!(path));
    let (first, second) = (in_there(Bundle::shell("exit 0")), in_there(Bundle::new(&["/bin/sleep", "60"])));
    let ended = runtime.start(&first);
    assert!(ended.becomes("stopped"));
    let living = runtime.start(&second);
    ended.call("delete", &[]).done();
    assert_eq!(living.status(), "running");
    assert_eq!(living.exec(&[], &["echo", "here"]).text(), "here");
    living.call("delete", &["--force"]).done();
    assert!(!fs::exists(format!("/sys/fs/cgroup/pids{path}")).expect("look"), "the control group stays");
}

#[test]
fn killing_an_ended_container_leaves_its_successor_in_the_same_cgroup_alone() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let path = json!(format!("/testkit-killed-{}", std::process::id()));
    for own_pids in [true, false] {
        let first = Bundle::shell("exit 0").with(|config| {
            config["linux"]["cgroupsPath"] = path.clone();
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
            namespaces.retain(|namespace| own_pids || namespace["type"] != "pid");
        });
        let second =
            Bundle::new(&["/bin/sleep", "1000"]).with(|config| config["linux"]["cgroupsPath"] = path.clone());
        let ended = runtime.start(&first);
        assert!(ended.becomes("stopped"));
        let living = runtime.start(&second);
        ended.call("kill", &["KILL"]).failed(1, "not running");
        let all = ["kill", "--all", &first.id, "KILL"];
        runtime.call(&all).done();
        assert_eq!(living.exec(&[], &["echo", "here"]).text(), "here");
        living.call("kill", &["KILL"]).done();
        assert!(living.becomes("stopped"));
    }
}

#[test]
fn parameters_of_a_namespace_joined_by_path_are_not_set_where_it_is_the_hosts() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let pod = Bundle::new(&["/bin/sleep", "1000"]);
    let pod = runtime.start(&pod);
    let ttl = || peek("/proc/sys/net/ipv4/ip_default_ttl");
    let before = ttl();
    for (host, process) in [(true, std::process::id().cast_signed()), (false, pod.pid())] {
        let bundle = Bundle::new(&["cat", "/proc/sys/net/ipv4/ip_default_ttl"]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({ "type": "network", "path": format!("/proc/{process}/ns/net") }));
            config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
        });
        let outcome = runtime.run(&bundle);
        if host {
            outcome.failed(1, "not allowed in host network namespace");
        } else {
            assert_eq!(outcome.text(), "33");
        }
    }
    assert_eq!(ttl(), before);
}

/// The runtimes of this test have namespaces of their own: were their root switched, or their names or interfaces changed,
/// nothing else would see it. What is refused is so before anything is made, whatever else is in the way.
#[test]
fn what_would_be_done_to_the_runtimes_own_namespaces_is_refused() {
    needs!(gate::root(), gate::program("busybox"), gate::program("unshare"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let busy = json!(format!("/testkit-own-{}", std::process::id()));
    let neighbour =
        Bundle::new(&["/bin/sleep", "1000"]).with(|config| config["linux"]["cgroupsPath"] = busy.clone());
    let _neighbour = runtime.start(&neighbour);
    for (kind, file, change, reason) in [
        ("mount", "mnt", json!({}), "the mount namespace is the runtime's own"),
        ("uts", "uts", json!({ "hostname": "changed" }), "set hostname without a private UTS"),
        ("uts", "uts", json!({ "domainname": "changed" }), "set domainname without a private UTS"),
        (
            "network",
            "net",
            json!({ "netDevices": { "lo": { "name": "changed" } } }),
            "without a NET namespace",
        ),
    ] {
        let bundle = Bundle::new(&["/bin/true"]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
            namespaces.retain(|namespace| namespace["type"] != kind);
            namespaces.push(json!({ "type": kind, "path": format!("/proc/self/ns/{file}") }));
            config["linux"]["cgroupsPath"] = busy.clone();
            config["linux"]["netDevices"] = change["netDevices"].clone();
            config["hostname"] = change["hostname"].clone();
            config["domainname"] = change["domainname"].clone();
        });
        let line = runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "--uts", "--net"]).arg(line.get_program()).args(line.get_args());
        call(apart.stdin(Stdio::null()), LIMIT).failed(1, reason);
        runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
    }
}

/// In a pod that shares its pid namespace nobody but the runtime ends what a container leaves.
#[test]
fn a_container_in_another_ones_pid_namespace_leaves_no_process() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let pod = Bundle::new(&["/bin/sleep", "1000"]);
    let pod = runtime.start(&pod);
    let shared = format!("/proc/{}/ns/pid", pod.pid());
    let member = |script: &str| {
        Bundle::shell(script).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
            namespaces.retain(|namespace| namespace["type"] != "pid");
            namespaces.push(json!({ "type": "pid", "path": shared }));
        })
    };
    for (script, killed) in [("sleep 1001 & exec sleep 1000", true), ("sleep 1001 & exit 0", false)] {
        let bundle = member(script);
        let container = runtime.start(&bundle);
        let processes = || peek(cgroup_dir("pids", &bundle).join("cgroup.procs")).lines().count();
        if killed {
            assert!(eventually(PATIENCE, || processes() == 2), "{}", processes());
            container.call("kill", &["KILL"]).done();
            assert!(eventually(PATIENCE, || processes() == 0), "{}", processes());
        }
        assert!(container.becomes("stopped"), "{script}");
        container.call("delete", &[]).done();
        assert!(!cgroup_dir("pids", &bundle).exists(), "the control group of {script:?} stays");
        assert_eq!(pod.status(), "running");
    }
}

/// The directories are there and empty while the one that is to live in them is on its way.
#[test]
fn a_container_is_created_while_an_ended_one_in_its_cgroup_is_deleted() {
    needs!(gate::root(), gate::program("busybox"), gate::program("strace"), gate::cgroups());
    let runtime = Runtime::under_test();
    let path = format!("/testkit-turns-{}", std::process::id());
    let in_there = |bundle: Bundle| bundle.with(|config| config["linux"]["cgroupsPath"] = json!(path));
    let (first, second) = (in_there(Bundle::shell("exit 0")), in_there(Bundle::new(&["/bin/sleep", "60"])));
    let ended = runtime.start(&first);
    assert!(ended.becomes("stopped"));
    let bundle = second.path().to_str().expect("UTF-8");
    let line = runtime.command(&["run", "--detach", "--bundle", bundle, &second.id]);
    let mut slow = Command::new("strace");
    slow.args(["-qq", "-o", "/dev/null", "-e", "inject=clone3:delay_enter=300000"]).arg(line.get_program());
    slow.args(line.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut creating = slow.spawn().expect("start strace");
    let record = runtime.state_dir().join(&second.id).join("state.json");
    assert!(eventually(PATIENCE, || record.exists()));
    // What was journaled is made a moment later.
    std::thread::sleep(Duration::from_millis(100));
    ended.call("delete", &[]).done();
    assert!(creating.wait().expect("wait").success());
    let living = runtime.call(&["exec", &second.id, "cat", "/proc/self/cgroup"]);
    runtime.call(&["delete", "--force", &second.id]).done();
    // Its groups are the roots of its own view.
    let outside = living.text().lines().filter(|line| !line.ends_with(":/")).count();
    assert_eq!(outside, 0, "{living:?}");
}

/// The directories are readable for everybody, and who can read one can lock it.
#[test]
fn a_lock_on_a_control_group_keeps_nobody_from_making_or_deleting_containers() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let path = format!("/testkit-locks-{}", std::process::id());
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let hierarchies = || {
        let all = fs::read_dir("/sys/fs/cgroup").expect("read").map(|entry| entry.expect("an entry").path());
        all.map(|hierarchy| hierarchy.join(&path[1..]))
            .filter(|directory| directory.is_dir())
            .collect::<Vec<_>>()
    };
    let locked = |directories: Vec<std::path::PathBuf>| {
        let lock = |path| {
            let directory = fs::File::open(path).expect("open");
            directory.lock_shared().expect("lock");
            directory
        };
        directories.into_iter().map(lock).collect::<Vec<_>>()
    };
    let container = runtime.start(&bundle);
    let first = locked(hierarchies());
    assert!(!first.is_empty());
    container.call("delete", &["--force"]).done();
    // With a process in it none could be removed.
    assert_eq!(hierarchies(), [] as [std::path::PathBuf; 0]);
    for hierarchy in ["memory", "pids", "systemd"] {
        fs::create_dir(format!("/sys/fs/cgroup/{hierarchy}{path}")).expect("make a directory");
    }
    let second = locked(hierarchies());
    let container = runtime.start(&bundle);
    assert_eq!(container.status(), "running");
    container.call("delete", &["--force"]).done();
    assert_eq!(hierarchies(), [] as [std::path::PathBuf; 0]);
    drop((first, second));
}

#[test]
fn the_delete_of_a_living_container_reads_no_other_record() {
    needs!(gate::root(), gate::program("busybox"), gate::program("strace"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundles = [Bundle::new(&["/bin/sleep", "60"]), Bundle::new(&["/bin/sleep", "60"])];
    let _living = [&bundles[0], &bundles[1]].map(|bundle| runtime.start(bundle));
    let log = runtime.beside("calls");
    let line = runtime.command(&["delete", "--force", &bundles[1].id]);
    let mut traced = Command::new("strace");
    traced.args(["-qq", "-e", "trace=open,openat,openat2", "-o"]).arg(&log).arg(line.get_program());
    call(traced.args(line.get_args()), Duration::from_secs(30)).done();
    let opened = peek(&log).lines().filter(|line| line.contains("state.json")).count();
    assert_eq!(opened, 1, "{}", peek(&log));
}

#[test]
fn commands_answer_for_a_created_container_whose_process_is_stopped() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.create(&bundle);
    container.call("kill", &["STOP"]).done();
    // More than the gate's queue holds.
    for _ in 0..24 {
        assert_eq!(container.status(), "created");
    }
    container.call("delete", &["--force"]).done();
}

/// What a shell runs in the directory that has the bundle.
fn run_line(runtime: &Runtime, bundle: &Bundle) -> String {
    let line = runtime.command(&["run", "--bundle", "bundle", &bundle.id]);
    let words = std::iter::once(line.get_program()).chain(line.get_args());
    words.map(|word| word.to_str().expect("UTF-8")).collect::<Vec<_>>().join(" ")
}

#[test]
fn no_mount_reaches_the_host_whatever_the_propagation_says() {
    needs!(gate::root(), gate::program("busybox"), gate::program("unshare"));
    let runtime = Runtime::under_test();
    for word in ["slave", "private", "rslave", "rprivate"] {
        let bundle = Bundle::shell("echo inside").with(|config| {
            config["linux"]["rootfsPropagation"] = json!(word);
        });
        let scratch = Scratch::new("propagation");
        // A shared mount, as a host under systemd has it, in a namespace of its own.
        let script = format!(
            "mount -t tmpfs t {0} && mount --make-rshared / && cp -a {1} {0}/bundle && cd {0} && \
             grep -c . /proc/self/mountinfo && {2} && grep -c . /proc/self/mountinfo",
            scratch.path().display(),
            bundle.path().display(),
            run_line(&runtime, &bundle),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let outcome = call(&mut command, Duration::from_secs(30));
        let lines: Vec<_> = outcome.text().lines().collect();
        assert!(lines.len() == 3 && lines[1] == "inside" && lines[0] == lines[2], "{word}: {outcome:?}");
    }
}

#[test]
fn no_mount_reaches_the_host_while_its_mounts_change() {
    needs!(gate::root(), gate::program("busybox"), gate::program("unshare"));
    let runtime = Runtime::under_test();
    let scratch = Scratch::new("changing");
    let bundle = Bundle::shell("echo inside");
    // Many mounts, so that the table is read in pieces, and others that come and go meanwhile, all of them shared.
    let script = format!(
        "mount -t tmpfs t {0} && mount --make-rshared / && cp -a {1} {0}/bundle && cd {0} && mkdir few
         for i in $(seq 400); do mkdir m$i; mount -t tmpfs many$i m$i; done
         grep -vc few /proc/self/mountinfo
         ( while [ ! -e stop ]; do
             for i in 1 2 3 4 5; do mkdir -p few/$i; mount -t tmpfs few few/$i; done
             for i in 1 2 3 4 5; do umount few/$i; done
           done ) &
         for i in $(seq 10); do {2} || exit 1; done
         touch stop; wait
         grep -vc few /proc/self/mountinfo; grep -c few /proc/self/mountinfo",
        scratch.path().display(),
        bundle.path().display(),
        run_line(&runtime, &bundle),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    // Ten calls of the runtime among hundreds of mounts: an emulated machine takes more than a minute.
    let outcome = call(&mut command, 2 * LIMIT);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 13, "{outcome:?}");
    assert!(lines[1..11].iter().all(|line| *line == "inside"), "{outcome:?}");
    assert_eq!((lines[11], lines[12]), (lines[0], "0"), "mounts left on the host");
}

#[test]
fn no_volume_lands_in_proc_by_a_link_of_the_image() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let volume = Scratch::new("volume");
    for (target, kind) in [("/x/sys", "bind"), ("/x/fs", "tmpfs")] {
        let bundle = Bundle::shell("echo mounted").with(|config| {
            config["mounts"].as_array_mut().expect("mounts").push(json!({
                "destination": target, "type": kind, "source": volume.path(), "options":
                    if kind == "bind" { json!(["bind"]) } else { json!([]) },
            }));
        });
        std::os::unix::fs::symlink("/proc", bundle.root().join("x")).expect("link");
        runtime.run(&bundle).failed(1, "inside /proc");
    }
    // The control: the same volumes where the link does not lead to procfs.
    let bundle = Bundle::shell("ls -d /etc/deep").with(|config| {
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/x/deep", "type": "bind", "source": volume.path(), "options": ["bind"],
        }));
    });
    std::os::unix::fs::symlink("/etc", bundle.root().join("x")).expect("link");
    assert_eq!(runtime.run(&bundle).text(), "/etc/deep");
}

#[test]
fn a_score_is_the_containers_and_exec_has_it_too() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle =
        Bundle::new(&["/bin/sleep", "60"]).with(|config| config["process"]["oomScoreAdj"] = json!(321));
    let container = runtime.start(&bundle);
    assert_eq!(peek(format!("/proc/{}/oom_score_adj", container.pid())).trim(), "321");
    assert_eq!(container.exec(&[], &["cat", "/proc/self/oom_score_adj"]).text(), "321");
}

/// A command under strace, and what it wrote of the calls.
fn traced(runtime: &Runtime, options: &[&str], words: &[&str]) -> String {
    let log = runtime.beside("calls");
    let line = runtime.command(words);
    let mut traced = Command::new("strace");
    traced.arg("-qq").args(options).arg("-o").arg(&log).arg(line.get_program());
    call(traced.args(line.get_args()).stdin(Stdio::null()), Duration::from_secs(30)).done();
    peek(&log)
}

fn version_2_tree() -> gate::Gate {
    let trees = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    trees
        .into_iter()
        .find_map(|path| gate::path(path).ok())
        .ok_or_else(|| "needs a version 2 tree".to_owned())
}

/// The first process and one that joins it are born there; where the kernel refuses the birth, they are moved there.
#[test]
fn processes_are_born_in_the_version_2_group_or_moved_there_where_that_is_refused() {
    needs!(gate::root(), gate::program("busybox"), gate::program("strace"), version_2_tree());
    let runtime = Runtime::under_test();
    for refuse in [false, true] {
        // With a pid namespace of its own, the end of the first process is everybody's.
        let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        let path = bundle.path().to_str().expect("UTF-8");
        let options = ["-e", "trace=clone3", "-e", "inject=clone3:error=EBUSY:when=1"];
        let options = &options[..if refuse { 4 } else { 2 }];
        let joined = runtime.beside("joined");
        let joined_path = joined.to_str().expect("UTF-8");
        let run = ["run", "--detach", "--bundle", path, &bundle.id];
        let exec = ["exec", "--detach", "--pid-file", joined_path, &bundle.id, "/bin/sleep", "61"];
        for words in [&run[..], &exec[..]] {
            let calls = traced(&runtime, options, words);
            let births: Vec<_> = calls.lines().filter(|line| line.contains("CLONE_INTO_CGROUP")).collect();
            assert_eq!(births.len(), 1, "{calls}");
            assert_eq!(births[0].ends_with("(INJECTED)"), refuse, "{calls}");
            assert_eq!(calls.lines().count(), if refuse { 2 } else { 1 }, "{calls}");
        }
        let groups = peek(format!("/proc/{}/cgroup", peek(&joined)));
        let version_2 = groups.lines().find(|line| line.starts_with("0::")).unwrap_or_default().to_owned();
        // Killed at once, by the file that is for that.
        let written = traced(&runtime, &["-y", "-e", "trace=write"], &["delete", "--force", &bundle.id]);
        assert_eq!(version_2, format!("0::/{}", bundle.id), "{groups}");
        let killed = format!("/{}/cgroup.kill>, \"1\"", bundle.id);
        assert!(written.contains(&killed), "{written}");
    }
}
