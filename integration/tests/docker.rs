//! Docker with the runtime under test as its default, by the drop-in configuration that users get.
//!
//! Every container command of the classic list runs here once for real.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::process::Stdio;

use hull_integration::docker::Docker;
use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::runtime::peek;
use hull_testkit::{gate, needs, runtime};
use serde_json::Value;

fn docker() -> Gate {
    root().and(program("dockerd")).and(program("docker")).and(program("busybox")).and(gate::cgroup_v1())
}

#[test]
fn the_runtime_under_test_is_the_default() {
    needs!(docker());
    let docker = Docker::start();
    assert_eq!(docker.call(&["info", "-f", "{{.DefaultRuntime}}"]).text(), "hull");
    assert!(docker.call(&["version", "-f", "{{.Server.Version}}"]).text().starts_with("20."));
    assert_eq!(docker.call(&["images", "-q"]).text().lines().count(), 1);
    docker.run(&["--rm", "--name", "seen"], &["true"]).done();
    // The end of the time asked for is cut to a second, so the last events show a moment later.
    let wanted = ["create", "attach", "start", "die", "destroy"];
    let options =
        ["events", "--since", "1h", "--until", "0s", "--filter", "container=seen", "--format", "{{.Action}}"];
    let actions = || {
        docker
            .call(&options)
            .stdout
            .lines()
            .filter(|line| wanted.contains(line))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(eventually(PATIENCE, || actions() == wanted), "{:?}", actions());
}

#[test]
fn run_passes_streams_and_exit_status() {
    needs!(docker());
    let docker = Docker::start();
    let outcome = docker.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
    docker.run(&["--rm"], &["nosuchprogram"]).failed(127, "executable file not found in $PATH");
    docker.run(&["--rm"], &["/etc/passwd"]).failed(126, "permission denied");
    assert_eq!(
        docker.run(&["--rm", "-m", "16m", "--memory-swap", "16m"], &["tail", "-c", "200m", "/dev/zero"]).code,
        137
    );

    let mut command = docker.command();
    let mut child = command.args(["run", "-i", "--rm", "bb", "tr", "a-z", "A-Z"]);
    child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().expect("start the client");
    child.stdin.take().expect("a pipe").write_all(b"typed\n").expect("write to the container");
    let output = child.wait_with_output().expect("wait for the client");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "TYPED\n");
}

#[test]
fn options_reach_the_container() {
    needs!(docker());
    let docker = Docker::start();
    let status = |field: &str| format!("sed -n 's/^{field}:.//p' /proc/self/status");
    let (effective, seccomp) = (status("CapEff"), status("Seccomp"));
    let limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let table: [(&[&str], &str, &str); 11] = [
        (&["--read-only"], "touch /x 2>/dev/null || echo refused", "refused"),
        (&["--user", "1000:1001"], "echo $(id -u):$(id -g)", "1000:1001"),
        (&["--cap-drop", "ALL"], &effective, "0000000000000000"),
        (&["--security-opt", "seccomp=unconfined"], &seccomp, "0"),
        (&[], &seccomp, "2"),
        (&["--memory", "32m", "--pids-limit", "19", "--cpus", "0.5"], limits, "33554432\n19\n50000"),
        (&["--ulimit", "nofile=333:444"], "ulimit -n; ulimit -Hn", "333\n444"),
        (&["--device", "/dev/full:/dev/mine:rw"], "echo x 2>/dev/null >/dev/mine || echo full", "full"),
        (
            &["--dns", "192.0.2.7", "--dns-search", "example.org"],
            "grep -v '^#' /etc/resolv.conf",
            "search example.org\nnameserver 192.0.2.7",
        ),
        (&["--init"], "cat /proc/1/comm", "docker-init"),
        (
            &["--hostname", "box", "--network", "none"],
            "hostname; sed -n 's/^ *\\(.*\\):.*/\\1/p' /proc/net/dev",
            "box\nlo",
        ),
    ];
    for (options, script, expected) in table {
        let outcome = docker.run(&[&["--rm"], options].concat(), &["sh", "-c", script]);
        assert_eq!(outcome.text(), expected, "{options:?}");
    }
}

#[test]
fn a_privileged_container_gets_what_its_caller_has() {
    // Docker asks for every capability; other runtimes give up where the caller itself lacks one.
    needs!(docker(), runtime::ours());
    let docker = Docker::start();
    let outcome =
        docker.run(&["--rm", "--privileged"], &["sed", "-n", "s/^CapEff:.//p", "/proc/self/status"]);
    let mask = |text: &str| u64::from_str_radix(text, 16).expect("a mask of capabilities");
    let status = peek("/proc/self/status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("a bounding set");
    // Docker 20.10 knows the capabilities up to 37.
    assert_eq!(mask(outcome.text()), mask(bounding) & ((1 << 38) - 1));
}

#[test]
fn a_container_goes_through_its_life() {
    needs!(docker());
    let docker = Docker::start();
    let call = |arguments: &[&str]| docker.call(arguments).text().to_owned();
    let script = "trap 'echo bye; exit 5' TERM; echo started; while :; do sleep 0.1; done";
    call(&["create", "--name", "first", "bb", "sh", "-c", script]);
    call(&["rename", "first", "life"]);
    call(&["start", "life"]);
    assert!(eventually(PATIENCE, || call(&["logs", "life"]) == "started"));
    assert_eq!(call(&["ps", "--format", "{{.Names}} {{.Image}}"]), "life bb");
    assert_eq!(call(&["inspect", "-f", "{{.State.Status}} {{.HostConfig.Runtime}}", "life"]), "running hull");
    assert_eq!(
        call(&["exec", "-u", "1000", "-w", "/tmp", "-e", "A=1", "life", "sh", "-c", "echo $A $(id -u) $PWD"]),
        "1 1000 /tmp"
    );
    assert_eq!(docker.call(&["exec", "life", "sh", "-c", "exit 9"]).code, 9);
    assert!(call(&["top", "life"]).lines().any(|line| line.contains("trap")));
    let usage = call(&["stats", "--no-stream", "--format", "{{.PIDs}}", "life"]);
    assert!(usage.parse::<u32>().is_ok_and(|count| count >= 1), "{usage}");

    call(&["pause", "life"]);
    assert_eq!(call(&["inspect", "-f", "{{.State.Status}}", "life"]), "paused");
    call(&["unpause", "life"]);
    call(&["update", "--memory", "48m", "--memory-swap", "96m", "--pids-limit", "33", "life"]);
    let limits = [
        "exec",
        "life",
        "cat",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/pids/pids.max",
    ];
    assert_eq!(call(&limits), "50331648\n33");

    call(&["stop", "-t", "10", "life"]);
    assert_eq!(call(&["wait", "life"]), "5");
    assert_eq!(call(&["logs", "life"]), "started\nbye");
    call(&["restart", "-t", "0", "life"]);
    assert_eq!(call(&["inspect", "-f", "{{.State.Status}}", "life"]), "running");
    call(&["kill", "life"]);
    assert_eq!(call(&["wait", "life"]), "137");
    call(&["rm", "life"]);
    assert_eq!(call(&["ps", "-aq"]), "");
}

#[test]
fn files_go_in_and_out_and_become_images() {
    needs!(docker());
    let docker = Docker::start();
    let call = |arguments: &[&str]| docker.call(arguments).text().to_owned();
    fs::write(docker.path("given"), "from outside").expect("write a file");
    let given = docker.path("given").display().to_string();
    call(&["run", "-d", "--name", "files", "bb", "sleep", "60"]);
    call(&["cp", &given, "files:/tmp/given"]);
    assert_eq!(call(&["exec", "files", "cat", "/tmp/given"]), "from outside");
    call(&["exec", "files", "sh", "-c", "echo made >/tmp/made; rm /etc/group"]);
    let taken = docker.path("taken").display().to_string();
    call(&["cp", "files:/tmp/made", &taken]);
    assert_eq!(peek(&taken), "made");
    let changes = call(&["diff", "files"]);
    for change in ["A /tmp/given", "A /tmp/made", "D /etc/group"] {
        assert!(changes.lines().any(|line| line == change), "no {change:?} in {changes}");
    }
    call(&["commit", "files", "committed"]);
    assert_eq!(call(&["run", "--rm", "committed", "cat", "/tmp/made"]), "made");
    let archive = docker.path("export.tar").display().to_string();
    call(&["export", "-o", &archive, "files"]);
    call(&["import", &archive, "imported"]);
    assert_eq!(call(&["run", "--rm", "imported", "cat", "/tmp/given"]), "from outside");
    assert!(call(&["history", "-q", "committed"]).lines().count() >= 2);
    call(&["rm", "-f", "files"]);
    call(&["rmi", "committed", "imported"]);
}

#[test]
fn attach_shows_output_and_passes_signals() {
    needs!(docker());
    let docker = Docker::start();
    let script = "trap 'echo got; exit 3' INT; sleep 1; echo up; while :; do sleep 0.1; done";
    docker.run(&["-d", "--name", "attached"], &["sh", "-c", script]).done();
    let file = fs::File::create(docker.path("attached.out")).expect("make a file");
    let mut client = docker
        .command()
        .args(["attach", "attached"])
        .stdin(Stdio::null())
        .stdout(file)
        .spawn()
        .expect("start the client");
    assert!(eventually(PATIENCE, || peek(docker.path("attached.out")) == "up"));
    docker.call(&["kill", "-s", "INT", "attached"]).done();
    assert_eq!(client.wait().expect("wait for the client").code(), Some(3));
    assert_eq!(peek(docker.path("attached.out")), "up\ngot");
}

#[test]
fn a_health_check_reports_and_a_restart_policy_restarts() {
    needs!(docker());
    let docker = Docker::start();
    let check = [
        "-d",
        "--name",
        "checked",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "300ms",
        "--health-retries",
        "1",
    ];
    docker.run(&check, &["sh", "-c", "while :; do sleep 0.1; done"]).done();
    let health = || docker.call(&["inspect", "-f", "{{.State.Health.Status}}", "checked"]).text().to_owned();
    assert!(eventually(PATIENCE, || health() == "unhealthy"));
    docker.call(&["exec", "checked", "touch", "/ok"]).done();
    assert!(eventually(PATIENCE, || health() == "healthy"));
    docker.call(&["rm", "-f", "checked"]).done();

    docker
        .run(&["-d", "--name", "again", "--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 1"])
        .done();
    let runs = || docker.call(&["logs", "again"]).stdout == "run\nrun\nrun\n";
    assert!(eventually(PATIENCE, runs));
    assert!(eventually(PATIENCE, || {
        docker.call(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"]).text() == "exited 2"
    }));
}

#[test]
fn a_published_port_is_reached_through_the_bridge() {
    needs!(docker(), program("iptables"), program("curl"));
    let docker = Docker::start();
    let server = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www";
    docker.run(&["-d", "--name", "web", "-p", "8123:80"], &["sh", "-c", server]).done();
    assert_eq!(docker.call(&["port", "web"]).text().lines().next(), Some("80/tcp -> 0.0.0.0:8123"));
    let networks = docker.call(&["network", "ls", "--format", "{{.Name}}"]);
    assert_eq!(networks.text().lines().collect::<Vec<_>>(), ["bridge", "host", "none"]);
    let address = docker.call(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]).text().to_owned();
    assert!(address.starts_with("10.201.0."), "{address}");
    for url in
        [format!("http://{address}/"), "http://10.201.0.1:8123/".into(), "http://127.0.0.1:8123/".into()]
    {
        let got = || docker.beside(&["curl", "-s", "--max-time", "3", &url]).stdout == "served\n";
        assert!(eventually(PATIENCE, got), "{url}");
    }
    let rules = docker.beside(&["iptables", "-t", "nat", "-S", "DOCKER"]);
    assert!(rules.text().contains("--dport 8123 -j DNAT --to-destination"), "{rules:?}");
    let other = docker.run(&["--rm"], &["wget", "-qO-", &format!("http://{address}/")]);
    assert_eq!(other.text(), "served");
}

#[test]
fn the_rest_socket_does_the_same() {
    needs!(docker(), program("curl"));
    let docker = Docker::start();
    assert_eq!(docker.rest("GET", "/_ping").stdout, "OK\n200");
    docker.run(&["-d", "--name", "rest"], &["sh", "-c", "while :; do sleep 0.1; done"]).done();
    let body = |path: &str| -> Value {
        let outcome = docker.rest("GET", path);
        let (json, code) = outcome.stdout.rsplit_once('\n').expect("a status line");
        assert_eq!(code, "200", "{json}");
        serde_json::from_str(json).expect("JSON")
    };
    assert_eq!(body("/containers/json")[0]["Names"][0], "/rest");
    assert_eq!(body("/containers/rest/json")["State"]["Status"], "running");
    assert_eq!(docker.rest("POST", "/containers/rest/pause").stdout, "\n204");
    assert_eq!(body("/containers/rest/json")["State"]["Status"], "paused");
    assert_eq!(docker.rest("POST", "/containers/rest/unpause").stdout, "\n204");
    assert!(body("/containers/rest/top")["Processes"].as_array().is_some_and(|list| !list.is_empty()));
    assert!(body("/containers/rest/stats?stream=false")["memory_stats"]["usage"].as_u64() > Some(0));
    assert_eq!(docker.rest("POST", "/containers/rest/kill").stdout, "\n204");
    let exit: Value = serde_json::from_str(
        docker.rest("POST", "/containers/rest/wait").stdout.lines().next().expect("a line"),
    )
    .expect("JSON");
    assert_eq!(exit["StatusCode"], 137);
    assert_eq!(docker.rest("DELETE", "/containers/rest").stdout, "\n204");
}

#[test]
fn a_person_at_a_terminal_gets_a_shell() {
    needs!(docker(), program("tmux"));
    let docker = Docker::start();
    let terminal = Terminal::start(&docker.line("run -it --rm bb"));
    terminal.shows("/ #");
    terminal.type_text("stty size; echo ans$((6*7))wer");
    terminal.press("Enter");
    terminal.shows("ans42wer");
    terminal.shows("30 100");
    terminal.resize(90, 20);
    // The size travels from the client to the daemon to the container: ask until it has arrived.
    terminal.type_text("until [ \"$(stty size)\" = '20 90' ]; do sleep 0.1; done; echo res$((1))zed");
    terminal.press("Enter");
    terminal.shows("res1zed");
    terminal.type_text("exit 6");
    terminal.press("Enter");
    terminal.shows("status=6");
}
