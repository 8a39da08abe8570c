//! podman with the runtime under test, by the drop-in configuration that users get.
#![forbid(unsafe_code)]

use hull_integration::podman::Podman;
use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::runtime::peek;
use hull_testkit::{gate, needs, runtime};

fn podman() -> Gate {
    root().and(program("podman")).and(program("conmon")).and(program("busybox"))
}

#[test]
fn run_passes_output_input_and_exit_status() {
    needs!(podman());
    let podman = Podman::start();
    assert_eq!(podman.run(&["--rm"], &["echo", "hello"]).text(), "hello");
    assert_eq!(podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]).code, 7);
    assert_eq!(podman.run(&["--rm"], &["sh", "-c", "kill -9 $$ & wait; sleep 1"]).code, 0);
    podman.run(&["--rm"], &["/no/such/program"]).failed(127, "no such file or directory");
    podman.run(&["--rm"], &["nosuchprogram"]).failed(127, "executable file not found in $PATH");
    podman.run(&["--rm"], &["/etc/passwd"]).failed(126, "permission denied");
}

#[test]
fn options_reach_the_container() {
    needs!(podman());
    let podman = Podman::start();
    let host = podman.place().join("shared");
    std::fs::create_dir(&host).expect("make a directory");
    std::fs::write(host.join("file"), "from the host").expect("write a file");
    let volume = format!("{}:/shared:ro", host.display());
    let refused = "touch /x 2>/dev/null || echo refused";
    let status = |field: &str| format!("grep ^{field}: /proc/self/status | tr -s '[:space:]' ' '");
    let (effective, nnp, seccomp) = (status("CapEff"), status("NoNewPrivs"), status("Seccomp"));
    let table: [(&[&str], &str, &str); 14] = [
        (&["--read-only"], refused, "refused"),
        (&["--user", "1000:1000"], "echo by name >/dev/stdout", "by name"),
        (&["--uidmap", "0:100000:65536"], "echo by name >/dev/stdout", "by name"),
        (&["--user", "1000:1001"], "echo $(id -u):$(id -g)", "1000:1001"),
        (&["--user", "user"], "echo $(id -u):$(id -g):$HOME", "1000:1000:/home/user"),
        (&["--cap-drop", "all"], &effective, "CapEff: 0000000000000000 "),
        (&["--cap-drop", "all", "--cap-add", "kill"], &effective, "CapEff: 0000000000000020 "),
        (&["--security-opt", "no-new-privileges"], &nnp, "NoNewPrivs: 1 "),
        (&["--security-opt", "seccomp=unconfined"], &seccomp, "Seccomp: 0 "),
        (&[], &seccomp, "Seccomp: 2 "),
        (
            &["-v", &volume],
            "cat /shared/file; touch /shared/x 2>/dev/null || echo ' refused'",
            "from the host refused",
        ),
        (
            &["--tmpfs", "/scratch:size=64k"],
            "df -k /scratch | tail -1 | tr -s ' ' | cut -d ' ' -f 1,2",
            "tmpfs 64",
        ),
        (&["--hostname", "box", "-e", "A=b", "-w", "/tmp"], "echo $(hostname) $A $PWD", "box b /tmp"),
        (&["--sysctl", "net.ipv4.ip_default_ttl=33"], "cat /proc/sys/net/ipv4/ip_default_ttl", "33"),
    ];
    for (options, script, expected) in table {
        let outcome = podman.run(&[&["--rm"], options].concat(), &["sh", "-c", script]);
        assert_eq!(outcome.text(), expected, "{options:?}");
    }
}

#[test]
fn resource_options_reach_the_cgroup() {
    needs!(podman(), gate::cgroup_v1());
    let podman = Podman::start();
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let options = ["--rm", "--memory", "32m", "--pids-limit", "19", "--cpus", "0.5"];
    assert_eq!(podman.run(&options, &["sh", "-c", script]).text(), "33554432\n19\n50000");
    let greedy = podman
        .run(&["--rm", "--memory", "16m", "--memory-swap", "16m"], &["tail", "-c", "200m", "/dev/zero"]);
    assert_eq!(greedy.code, 137);
}

#[test]
fn a_detached_container_goes_through_its_life() {
    needs!(podman(), gate::cgroup_v1());
    let podman = Podman::start();
    let name = podman.name.as_str();
    podman.detached(&[], &["sh", "-c", "trap 'exit 5' TERM; echo started; while :; do sleep 0.1; done"]);
    let logged = || podman.call(&["logs", name]).stdout == "started\n";
    assert!(eventually(PATIENCE, logged));
    assert_eq!(
        podman
            .call(&[
                "exec",
                "-e",
                "A=1",
                "-u",
                "1000",
                "-w",
                "/tmp",
                name,
                "sh",
                "-c",
                "echo $A $(id -u) $PWD"
            ])
            .text(),
        "1 1000 /tmp"
    );
    assert_eq!(podman.call(&["exec", name, "sh", "-c", "exit 9"]).code, 9);
    assert!(
        podman
            .call(&["top", name, "pid", "args"])
            .text()
            .lines()
            .any(|line| line.starts_with("1 ") && line.contains("trap"))
    );
    let stats = podman.call(&["stats", "--no-stream", "--format", "{{.PIDs}}", name]);
    assert!(stats.text().parse::<u32>().is_ok_and(|count| count >= 1), "{stats:?}");

    podman.call(&["pause", name]).done();
    assert_eq!(podman.call(&["inspect", "-f", "{{.State.Status}}", name]).text(), "paused");
    podman.call(&["unpause", name]).done();
    podman.call(&["update", "--memory", "48m", name]).done();
    assert_eq!(
        podman.call(&["exec", name, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).text(),
        "50331648"
    );

    podman.call(&["stop", "--time", "10", name]).done();
    assert_eq!(podman.call(&["wait", name]).text(), "5");
    podman.call(&["start", name]).done();
    podman.call(&["kill", "--signal", "KILL", name]).done();
    assert_eq!(podman.call(&["wait", name]).text(), "137");
    podman.call(&["rm", name]).done();
    assert_eq!(podman.call(&["ps", "-aq"]).text(), "");
}

#[test]
fn a_container_without_cgroups_stays_in_its_callers() {
    // podman asks for this with crun's option (`--cgroup-manager disabled`), which runc does not have.
    needs!(podman(), gate::cgroup_v1(), runtime::ours());
    let podman = Podman::start();
    let outcome =
        podman.run(&["--rm", "--cgroups=disabled", "--cgroupns=host"], &["cat", "/proc/self/cgroup"]);
    let pids = |text: &str| text.lines().find(|line| line.contains(":pids:")).map(str::to_owned);
    assert_eq!(pids(outcome.text()), pids(&peek("/proc/self/cgroup")));
}

#[test]
fn mapped_ids_show_inside_and_outside() {
    needs!(podman());
    let podman = Podman::start();
    let maps = ["--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let outcome = podman
        .run(&maps, &["sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map"]);
    assert_eq!(outcome.text(), "0\n 0 100000 65536\n 0 200000 65536");
}

#[test]
fn a_privileged_container_gets_what_its_caller_has() {
    needs!(podman());
    let podman = Podman::start();
    let bounding =
        peek("/proc/self/status").lines().find_map(|line| line.strip_prefix("CapBnd:\t").map(str::to_owned));
    let outcome =
        podman.run(&["--rm", "--privileged"], &["sed", "-n", "s/^CapEff:.//p", "/proc/self/status"]);
    assert_eq!(Some(outcome.text().to_owned()), bounding);
}

#[test]
fn a_person_at_a_terminal_gets_a_shell() {
    needs!(podman(), program("tmux"));
    let podman = Podman::start();
    let terminal = Terminal::start(&podman.interactive_line());
    terminal.shows("/ #");
    terminal.type_text("stty size; tty; echo ans$((6*7))wer");
    terminal.press("Enter");
    terminal.shows("ans42wer");
    terminal.shows("30 100");
    terminal.type_text("exit 6");
    terminal.press("Enter");
    terminal.shows("status=6");
}

#[test]
fn a_checkpointed_container_counts_on_after_restore() {
    needs!(podman());
    let criu = match gate::criu() {
        Ok(criu) => criu,
        Err(why) => return gate::skipped(&why),
    };
    let podman = Podman::start();
    let name = podman.name.clone();
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    podman.detached(&[], &["sh", "-c", script]);
    let numbers = || {
        let logs = podman.call(&["logs", &name]);
        logs.stdout.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
    };
    let last = || numbers().last().copied().unwrap_or(0);
    assert!(eventually(PATIENCE, || last() >= 3));
    podman.call_beside(&criu, &["container", "checkpoint", &name]).done();
    assert_eq!(podman.call(&["inspect", "-f", "{{.State.Status}}", &name]).text(), "exited");
    let saved = last();
    podman.call_beside(&criu, &["container", "restore", &name]).done();
    assert!(eventually(PATIENCE, || last() > saved), "{saved} is still the last number");
    let all = numbers();
    assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "it began again: {all:?}");
}
