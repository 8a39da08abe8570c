//! The monitor under a real podman and by hand, with the runtime under test.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_integration::image;
use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::leftovers::Cgroups;
use hull_testkit::place::{self, unique};
use hull_testkit::{Bundle, Outcome, Scratch, call, needs, runtime};

const IMAGE: &str = "localhost/bb:latest";
const LIMIT: Duration = Duration::from_secs(90);

fn podman() -> Gate {
    root().and(program("podman")).and(program("busybox"))
}

struct Podman {
    place: Scratch,
    cgroups: Cgroups,
}

/// Limits that any machine grants, and a pod's first container from the image that is there.
const SETTINGS: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]

[engine]
infra_image = "localhost/pause:latest"
"#;

impl Podman {
    fn start() -> Self {
        let place = Scratch::new("podman");
        let podman = Self { place, cgroups: Cgroups::new("monitor") };
        let settings = image::drop_in("podman.conf").replace("[engine]\n", SETTINGS);
        fs::write(podman.place.join("containers.conf"), settings).unwrap();
        let archive = image::tarball(&podman.place);
        podman.call(&["import", "-c", r#"CMD ["/bin/sh"]"#, archive.to_str().unwrap(), IMAGE]).done();
        podman
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.place.join("containers.conf"));
        for (option, value) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.place.join(value));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--conmon").arg(place::program("hull-monitor"));
        command.arg("--runtime").arg(runtime::under_test());
        command
    }

    fn call(&self, words: &[&str]) -> Outcome {
        call(self.command().args(words).stdin(Stdio::null()), LIMIT)
    }

    /// A command line for a terminal.
    fn line(&self, rest: &str) -> String {
        let command = self.command();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let settings = self.place.join("containers.conf");
        format!("CONTAINERS_CONF={} podman {} {rest}", settings.display(), words.join(" "))
    }

    fn run(&self, options: &[&str], words: &[&str]) -> Outcome {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none"];
        let parent = ["--cgroup-parent", &self.cgroups.path(), "--log-driver", "k8s-file"];
        self.call(&[&["run"], &limits[..], &parent, options, &[IMAGE], words].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["pod", "rm", "-a", "-f"]);
        let _ = self.call(&["rm", "-a", "-f", "-t", "0"]);
    }
}

#[test]
fn podman_runs_execs_logs_and_stops() {
    needs!(podman());
    let podman = Podman::start();
    let done = podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!((done.stdout.trim(), done.stderr.trim(), done.code), ("out", "err", 5));
    let name = unique("d");
    let script = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done";
    podman.run(&["-d", "--name", &name], &["sh", "-c", script]).done();
    assert!(eventually(LIMIT, || podman.call(&["logs", &name]).text() == "hello"));
    assert_eq!(podman.call(&["exec", &name, "sh", "-c", "echo in; exit 4"]).code, 4);
    let missing = podman.call(&["exec", &name, "nosuchprogram"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert_eq!(missing.stderr.matches("executable file not found").count(), 1, "{missing:?}");
    podman.call(&["stop", "-t", "20", &name]).done();
    assert_eq!(podman.call(&["wait", &name]).text(), "3");
    assert_eq!(podman.call(&["logs", &name]).text(), "hello\nbye");
}

#[test]
fn podman_follows_logs_to_the_end() {
    needs!(podman());
    let podman = Podman::start();
    let name = unique("f");
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo last";
    podman.run(&["-d", "--name", &name], &["sh", "-c", script]).done();
    let followed = podman.call(&["logs", "-f", &name]);
    let wanted: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    assert!(followed.stdout == wanted + "last\n", "{} bytes", followed.stdout.len());
}

#[test]
fn podman_attaches_a_terminal_and_leaves_it() {
    needs!(podman(), program("tmux"));
    let podman = Podman::start();
    let name = unique("t");
    podman.run(&["-dit", "--name", &name], &["sh"]).done();
    let terminal = Terminal::start(&podman.line(&format!("attach {name}")));
    assert!(eventually(LIMIT, || {
        terminal.press("Enter");
        terminal.screen().contains('#')
    }));
    terminal.type_text("echo sum=$((40+2)); stty size");
    terminal.press("Enter");
    terminal.shows("sum=42");
    terminal.shows("30 100");
    terminal.press("C-p");
    terminal.press("C-q");
    terminal.shows("status=0");
    assert_eq!(podman.call(&["inspect", &name, "--format", "{{.State.Status}}"]).text(), "running");
    // podman tells the size when the process runs already.
    let inside = "until stty size 2> /dev/null | grep -x \"30 100\"; do sleep 0.1; done; exit 9";
    let inside = Terminal::start(&podman.line(&format!("exec -it {name} sh -c '{inside}'")));
    inside.shows("30 100");
    inside.shows("status=9");
}

#[test]
fn podman_plays_a_pod() {
    needs!(podman());
    // `kube play` takes no parent, and leaves directories in its own.
    let _parent = Cgroups::of_manager("libpod_parent");
    let podman = Podman::start();
    let archive = podman.place.join("busybox.tar");
    let command = r#"CMD ["/bin/sleep", "100000"]"#;
    podman.call(&["import", "-c", command, archive.to_str().unwrap(), "localhost/pause:latest"]).done();
    let pod = unique("pod");
    let file = podman.place.join("pod.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n  containers:\n  - name: talks\n    image: {IMAGE}\n    command: [/bin/sh, -c, 'echo played; exit 11']\n  - name: stays\n    image: {IMAGE}\n    command: [/bin/sleep, '1000']\n"
    );
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    podman.call(&["kube", "play", "--log-driver", "k8s-file", file]).done();
    let code =
        || podman.call(&["inspect", &format!("{pod}-talks"), "--format", "{{.State.ExitCode}}"]).stdout;
    assert!(eventually(LIMIT, || code().trim() == "11"), "{}", code());
    assert_eq!(podman.call(&["logs", &format!("{pod}-talks")]).text(), "played");
    let status = podman.call(&["inspect", &format!("{pod}-stays"), "--format", "{{.State.Status}}"]);
    assert_eq!(status.text(), "running");
    podman.call(&["kube", "down", file]).done();
    assert_eq!(podman.call(&["ps", "-aq"]).text(), "");
}

#[test]
fn podman_restarts_by_policy_and_checks_health() {
    needs!(podman());
    let podman = Podman::start();
    let name = unique("r");
    let options = [
        "-d",
        "--name",
        &name,
        "--restart",
        "on-failure:2",
        "--health-cmd",
        "true",
        "--health-interval",
        "0",
    ];
    podman.run(&options, &["sh", "-c", "echo run; sleep 1; exit 1"]).done();
    podman.call(&["healthcheck", "run", &name]).done();
    let counted =
        || podman.call(&["inspect", &name, "--format", "{{.RestartCount}} {{.State.Status}}"]).stdout;
    assert!(eventually(LIMIT, || counted().trim() == "2 exited"), "{}", counted());
    assert_eq!(podman.call(&["logs", &name]).text(), "run\nrun\nrun");
}

#[test]
fn podman_tells_of_a_health_check_that_fails() {
    needs!(podman());
    let podman = Podman::start();
    let name = unique("h");
    let check = ["--health-cmd", "echo sick; exit 1", "--health-interval", "0", "--health-retries", "1"];
    podman.run(&[&["-d", "--name", &name], &check[..]].concat(), &["sleep", "1000"]).done();
    let checked = podman.call(&["healthcheck", "run", &name]);
    assert_eq!((checked.code, checked.stdout.trim()), (1, "unhealthy"), "{checked:?}");
    let said = "{{.State.Health.Status}} {{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}";
    assert_eq!(podman.call(&["inspect", &name, "--format", said]).text().trim(), "unhealthy 1 sick");
    podman.call(&["rm", "-f", "-t", "0", &name]).done();
}

#[test]
fn person_runs_attaches_and_waits() {
    needs!(root());
    let monitor = |words: &[&str], input: Stdio| {
        call(Command::new(place::program("hull-monitor")).args(words).stdin(input), LIMIT)
    };
    let bundle = Bundle::shell("echo ready; read x; echo got $x; echo err >&2; exit 6");
    let (id, dir) = (bundle.id.clone(), bundle.path().to_str().unwrap().to_owned());
    let program = runtime::under_test();
    let program = program.to_str().unwrap();
    let run = monitor(&["run", "--runtime", program, "-i", "--bundle", &dir, &id], Stdio::null());
    assert!(run.text().parse::<u32>().is_ok(), "{run:?}");
    let again = monitor(&["run", "--runtime", program, "--bundle", &dir, &id], Stdio::null());
    assert!(again.stderr.contains("is running already"), "{again:?}");
    let input = bundle.path().join("input");
    fs::write(&input, "hi\n").unwrap();
    let attached = monitor(&["attach", &id], Stdio::from(fs::File::open(&input).unwrap()));
    assert_eq!(attached.code, 6, "{attached:?}");
    assert!(attached.stdout.ends_with("got hi\n") && attached.stderr == "err\n", "{attached:?}");
    let waited = monitor(&["wait", &id], Stdio::null());
    assert_eq!((waited.stdout.trim(), waited.code), ("6", 6));
    let logged = monitor(&["logs", "-f", &id], Stdio::null());
    assert_eq!((logged.stdout.as_str(), logged.stderr.as_str()), ("ready\ngot hi\n", "err\n"));
    monitor(&["rm", &id], Stdio::null()).done();
    call(Command::new(program).args(["delete", &id]), LIMIT).done();
}
