//! Containers of an ordinary user, with and without a range of ids, on overlays and on copies.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod making;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};

use making::{LIMIT, context};

const RANGE: &str = "nobody:500000:65536\n";
const IMAGE: &str = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
    RUN mkdir -p /etc && printf 'root:x:0:0::/:/bin/sh\\napp:x:1000:1000::/:/bin/sh\\n' > /etc/passwd\n";
/// Where the store lies on another overlay, no overlay can be mounted.
const NO_OVERLAY: &str = "mkdir -p l u w && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay home && chown 65534:65534 home";

/// Runs a script as root in a mount namespace of its own, in which `b` is the program, called by nobody with these ids
/// beyond their own; an image `x` is there.
fn play(scratch: &Scratch, ranges: &str, prepare: &str, script: &str) -> Outcome {
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    context(scratch, "c", IMAGE);
    fs::write(scratch.join("ranges"), ranges).unwrap();
    fs::create_dir_all(scratch.join("home")).unwrap();
    // Programs may lie where others can't look: the user gets copies.
    let programs = [place::program("hull-build"), place::program("hull-monitor"), runtime::under_test()];
    for (program, name) in programs.iter().zip(["hull-build", "hull-monitor", "hull"]) {
        fs::copy(program, scratch.join(name)).unwrap();
    }
    let script = format!(
        "set -e; for f in /etc/subuid /etc/subgid; do mount --bind ranges $f; done; chown 65534:65534 home; {prepare}; \
         export HOME=$PWD/home HULL_ROOT=$PWD/home/store PATH=$PWD:$PATH HULL_BUILD_RUNTIME=$PWD/hull; \
         user='setpriv --reuid=65534 --regid=65534 --clear-groups'; b() {{ $user ./hull-build \"$@\"; }}; \
         trap 'b ps -aq | while read id; do b rm -f $id; done >&2' EXIT; \
         b build -q -t x c >&2; {script}; \
         b ps -aq; ls home/store/containers; grep -c $PWD/home/store /proc/self/mountinfo || true"
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(scratch.path());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    call(&mut command, LIMIT)
}

/// The lines that a script printed; what it must leave is nothing.
fn lines(outcome: &Outcome) -> Vec<&str> {
    let lines: Vec<&str> = outcome.text().lines().collect();
    let (left, said) = lines.split_last().unwrap();
    assert_eq!(*left, "0", "no mount is left: {}", outcome.stderr);
    said.to_vec()
}

macro_rules! needs_users {
    () => {
        needs!(gate::root(), gate::path("/bin/busybox"), gate::program("unshare"));
        needs!(gate::program("newuidmap"), gate::program("setpriv"));
    };
}

#[test]
fn an_ordinary_user_runs_joins_stops_and_starts_containers() {
    needs_users!();
    let script = "b run --rm --network none x sh -c 'ls /sys/class/net; id -u; echo own > /f; cat /f'; \
        b run -d --name d --network host x sh -c 'echo up; trap \"exit 7\" TERM; while :; do sleep 0.05; done' >&2; \
        b ps --format '{{.Names}} {{.State}}'; until b logs d | grep up; do sleep 0.05; done; \
        b exec d sh -c 'echo again; echo kept > /kept; id -u'; b exec -w /bin d pwd; \
        b exec -dt d sh -c 'tty > /tty; sleep 1000'; until b exec d cat /tty 2>/dev/null | grep -q dev; do sleep 0.05; done; \
        b diff d | sort; b cp d:/kept - 2>/dev/null | tar -xOf -; \
        b stop d; b ps -a --format '{{.Names}} {{.Status}}'; b start d; b exec d cat /kept; \
        b commit d y >&2; b run --rm --network none y cat /kept; b rm -f d; \
        b run -d --rm --network none x true >&2; until test -z \"$(ls home/store/containers)\"; do sleep 0.05; done";
    for (ranges, prepare, is_copy) in
        [(RANGE, "true", false), ("", "true", false), (RANGE, NO_OVERLAY, true), ("", NO_OVERLAY, true)]
    {
        let scratch = Scratch::new("ordinary");
        let outcome = play(&scratch, ranges, prepare, script);
        let wanted = [
            "lo",
            "0",
            "own",
            "d running",
            "up",
            "again",
            "0",
            "/bin",
            "A /kept",
            "A /tty",
            "kept",
            "d",
            "d Exited (7)",
            "d",
            "kept",
            "kept",
            "d",
        ];
        assert_eq!(lines(&outcome), wanted, "{ranges} {prepare}: {}", outcome.stderr);
        let told = outcome.stderr.contains("there is no overlay here");
        assert_eq!(told, is_copy, "{ranges} {prepare}: {}", outcome.stderr);
        let short = outcome.stderr.contains("no range of ids for this user");
        assert_eq!(short, ranges.is_empty(), "{}", outcome.stderr);
    }
}

#[test]
fn other_users_of_an_image_take_a_range_of_ids() {
    needs_users!();
    let script = "b run --rm --network none -u app x sh -c 'id -u; id -g' || echo $?; \
        b run -d --name d --network none x sleep 1000 >&2; b exec -u app d id -u || echo $?; b rm -f d >&2";
    let with = play(&Scratch::new("range"), RANGE, "true", script);
    assert_eq!(lines(&with), ["1000", "1000", "1000"], "{}", with.stderr);
    let without = play(&Scratch::new("no-range"), "", "true", script);
    assert_eq!(lines(&without), ["125", "1"], "{}", without.stderr);
    let why = "user 1000:1000 has no id here: it takes a range of ids for this user";
    assert_eq!(without.stderr.matches(why).count(), 2, "{}", without.stderr);
}

#[test]
fn what_only_root_can_have_is_refused_in_a_line() {
    needs_users!();
    let script = "for flags in '-m 10m' '--cpus 1' '--network bridge' '-p 8080:80'; do \
        b run --rm $flags x true || echo $?; done; b run --rm x true";
    let outcome = play(&Scratch::new("refused"), RANGE, "true", script);
    assert_eq!(lines(&outcome), ["125"; 4], "{}", outcome.stderr);
    for (words, times) in [
        ("only root can limit --memory and --cpus", 2),
        ("only root can connect a container to network bridge", 1),
        ("only root can publish a port", 1),
        ("notice: only root can make a network: the container uses the host's", 3),
    ] {
        assert_eq!(outcome.stderr.matches(words).count(), times, "{words}: {}", outcome.stderr);
    }
}

#[test]
fn where_no_namespace_can_be_had_run_says_what_forbids_it() {
    needs!(gate::root(), gate::program("unshare"));
    let scratch = Scratch::new("no-namespace");
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && HULL_ROOT=$PWD/s exec \"$0\" run --rm x true";
    let mut command = Command::new("unshare");
    command.args(["-U", "--map-user=65534", "--map-group=65534", "--keep-caps", "sh", "-c", script]);
    let outcome = call(command.arg(place::program("hull-build")).current_dir(scratch.path()), LIMIT);
    let wanted = "hull-build: make a user namespace, in which an ordinary user is root: forbidden here by sysctl \
                  user.max_user_namespaces is 0\n";
    assert_eq!((outcome.code, outcome.stderr.as_str()), (125, wanted));
}

#[test]
fn signals_and_a_terminal_reach_the_container_of_an_ordinary_user() {
    needs_users!();
    needs!(gate::program("script"));
    let script = "for signal in TERM HUP; do \
        $user ./hull-build run --rm --name fore --network none x sh -c \
            'trap \"exit 5\" TERM; trap \"exit 7\" HUP; echo up; while :; do sleep 0.05; done' >out & \
        until grep -q up out; do sleep 0.05; done; kill -s $signal $!; wait $! || echo $?; : > out; done; \
        script -qec \"$user ./hull-build run --rm -it --network none x sh -c 'tty; exit 4'\" /dev/null </dev/null || echo $?";
    let outcome = play(&Scratch::new("ordinary-signals"), RANGE, "true", script);
    // A terminal shows the end of its input.
    let said: Vec<&str> =
        lines(&outcome).into_iter().map(|line| line.trim_start_matches("^@").trim_end()).collect();
    assert_eq!(said, ["5", "7", "/dev/pts/0", "4"], "{}", outcome.stderr);
}

#[test]
fn a_container_whose_command_was_killed_is_found_and_removed() {
    needs_users!();
    let script = "$user ./hull-build run --name fore --network none x sh -c 'echo up; sleep 1000' > out & \
        until grep -q up out; do sleep 0.05; done; child() { tr -d ' ' < /proc/$1/task/$1/children; }; inner=$(child $!); \
        until test -e home/store/holders/$(child $inner); do sleep 0.05; done; \
        kill -9 $! $inner; wait $! || echo $?; \
        b ps --format '{{.Names}} {{.State}}'; b exec fore echo joined; b run --rm --network none x echo beside; \
        b rm fore || echo $?; b stop -t 0 fore; b ps -a --format '{{.Names}} {{.State}}'; b rm fore";
    for prepare in ["true", NO_OVERLAY] {
        let outcome = play(&Scratch::new("ordinary-killed"), RANGE, prepare, script);
        let wanted = ["137", "fore running", "joined", "beside", "1", "fore", "fore exited", "fore"];
        assert_eq!(lines(&outcome), wanted, "{prepare}: {}", outcome.stderr);
    }
}

#[test]
fn containers_that_begin_at_once_are_in_the_same_namespaces() {
    needs_users!();
    let script = "for i in 1 2 3 4; do \
        b run -d --name d$i --network none x sh -c 'readlink /proc/self/ns/user; sleep 1000' >&2 & done; wait; \
        for i in 1 2 3 4; do until b logs d$i | grep -q user; do sleep 0.05; done; b logs d$i; done | sort -u | wc -l; \
        b stop -t 0 d1 d2 >&2; b exec d3 echo here; b exec d4 echo there; b rm -f d1 d2 d3 d4 >&2";
    let outcome = play(&Scratch::new("at-once"), RANGE, "true", script);
    assert_eq!(lines(&outcome), ["1", "here", "there"], "{}", outcome.stderr);
}

#[test]
fn nothing_below_sys_of_the_host_can_be_written() {
    needs_users!();
    let list = "grep ' /sys[ /]' /proc/self/mounts";
    let script = format!(
        "mkdir s; printf \"FROM x\\nRUN {list} > /step\\n\" > s/Dockerfile; \
         b build -q --network host -t y s >&2; b run --rm --network host y sh -c \"sed 's/^/step /' /step; {list}\""
    );
    for ranges in [RANGE, ""] {
        let outcome = play(&Scratch::new("sys"), ranges, "true", &script);
        let said = lines(&outcome);
        let (step, run): (Vec<&str>, Vec<&str>) = said.iter().partition(|line| line.starts_with("step "));
        for (mounts, options) in [(step, 4), (run, 3)] {
            let is_below = |line: &&str| line.contains(" /sys/fs/cgroup");
            assert!(mounts.iter().any(is_below), "control groups are there: {mounts:?} {}", outcome.stderr);
            for line in mounts {
                let field = line.split(' ').nth(options).unwrap();
                assert!(field.split(',').any(|option| option == "ro"), "{line}");
            }
        }
    }
}
