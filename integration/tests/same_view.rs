//! The same bundle shows the same world under the runtime under test, runc and crun.
//!
//! A probe program prints everything it sees. What differs is either one of the listed differences, each with its
//! reason, or a failure. crun refuses the hybrid layout of cgroups, so it and its partner run in a private mount
//! namespace that shows version 1 only.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use hull_testkit::call::nothing;
use hull_testkit::runtime::{LIMIT, under_test};
use hull_testkit::{Bundle, Runtime, call, gate, needs};
use serde_json::{Value, json};

/// A way to set up a bundle, by name.
type Variant = (&'static str, fn(&mut Value));

const VARIANTS: [Variant; 9] = [
    ("default", |_| ()),
    ("user", |config| {
        config["process"]["user"] =
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6, 1001], "umask": 63 });
        config["process"]["cwd"] = json!("/home/user");
    }),
    ("read-only", |config| config["root"]["readonly"] = json!(true)),
    ("capabilities", |config| {
        let some = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"]);
        config["process"]["capabilities"] = json!({ "bounding": some, "effective": ["CAP_KILL"], "permitted": some, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    }),
    ("user namespace", |config| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
    }),
    ("seccomp", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["chroot", "swapon"], "action": "SCMP_ACT_ERRNO" }]
        });
    }),
    ("devices", |config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
            { "path": "/dev/deep/er/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600 }
        ]);
        config["linux"]["resources"]["devices"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" }));
    }),
    ("limits", |config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608 }
        ]);
        config["process"]["oomScoreAdj"] = json!(321);
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "42", "kernel.msgmax": "9000" });
    }),
    ("shared network, mounts", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "network");
        config["mounts"].as_array_mut().expect("a list").extend([
            json!({ "destination": "/made/by/runtime", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=1m", "mode=1777"] }),
            json!({ "destination": "/etc/bound", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro", "nosuid"] }),
            json!({ "destination": "/slave", "type": "bind", "source": "/usr/share", "options": ["rbind", "rslave", "noexec"] }),
        ]);
        config["linux"]["rootfsPropagation"] = json!("slave");
    }),
];

/// A difference from a peer that is right, with the reason: peer, JSON pointer, reason (`*` stands for anything).
const EXPECTED: [(&str, &str, &str); 10] = [
    (
        "*",
        "/ids/groups",
        "the primary group is always among the supplementary ones, so that it cannot be dropped to gain access",
    ),
    (
        "*",
        "/mounts/proc/keys/*",
        "masked with a null device proven on the host, never with a node of the container",
    ),
    (
        "*",
        "/mounts/proc/timer_list/*",
        "masked with a null device proven on the host, never with a node of the container",
    ),
    (
        "*",
        "/mounts/sys/fs/cgroup/0/options",
        "read-only as the configuration says; others leave the directory of the hierarchies writable",
    ),
    ("*", "/mounts/*/source", "a name without meaning for a kernel file system"),
    (
        "*",
        "/mounts/*/super",
        "sizes and flags of file systems that are made anew; the flags of the mount itself are compared",
    ),
    ("crun", "/devices/dev/core", "crun makes a link that the specification does not have"),
    (
        "crun",
        "/devices/dev/null",
        "crun gives the host's node to the user of the process, which must not happen",
    ),
    ("crun", "/mounts/dev/*/options", "crun adds flags to device nodes that it binds in a user namespace"),
    ("crun", "/env", "crun sets no HOME for a user without an entry in passwd"),
];

#[test]
fn the_view_is_that_under_runc() {
    needs!(gate::root(), gate::program("busybox"), gate::program("runc"), gate::cgroup_v1());
    compare("runc", &[]);
}

#[test]
fn the_view_is_that_under_crun() {
    needs!(gate::root(), gate::program("busybox"), gate::program("crun"), gate::cgroup_v1());
    compare("crun", &[concat!(env!("CARGO_MANIFEST_DIR"), "/pure-v1.sh")]);
}

/// Runs every variant under both and fails with the list of unexpected differences.
#[track_caller]
fn compare(peer: &str, wrapper: &[&str]) {
    let program = gate::find(peer).expect("the peer is installed");
    let mut found = Vec::new();
    for (name, change) in VARIANTS {
        let bundle = Bundle::new(&["/bin/hull-probe"]).with(change);
        let ours = view(&under_test(), &bundle, wrapper);
        let theirs = view(&program, &bundle, wrapper);
        assert!(
            ours["mounts"].as_object().is_some_and(|mounts| mounts.len() > 5),
            "{name}: the probe saw no mounts: {ours}"
        );
        for (pointer, left, right) in differences(&ours, &theirs) {
            if !EXPECTED.iter().any(|(whose, pattern, _)| matches(whose, peer) && matches(pattern, &pointer))
            {
                found.push(format!("{name}: {pointer}: {left} here, {right} under {peer}"));
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// What the probe prints, without what must differ from run to run.
#[track_caller]
fn view(program: &Path, bundle: &Bundle, wrapper: &[&str]) -> Value {
    let runtime = Runtime::at(program);
    let plain = runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    let outcome = match wrapper.first() {
        None => call({ plain }.stdin(nothing()), LIMIT),
        Some(first) => {
            call(Command::new(first).arg(plain.get_program()).args(plain.get_args()).stdin(nothing()), LIMIT)
        }
    };
    let mut seen: Value =
        serde_json::from_str(outcome.text()).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    settle(&mut seen);
    seen
}

/// Namespaces become `own` or `host`; mounts become a map by target; output files get one name.
fn settle(seen: &mut Value) {
    let host = hull_testkit::probe::look();
    for (kind, id) in seen["namespaces"].as_object_mut().expect("namespaces") {
        *id = json!(if *id == host["namespaces"][kind] { "host" } else { "own" });
    }
    let mut mounts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mount in seen["mounts"].as_array().expect("mounts") {
        mounts
            .entry(mount["target"].as_str().unwrap_or_default().to_owned())
            .or_default()
            .push(mount.clone());
    }
    seen["mounts"] = json!(mounts);
    // A runtime may pass the caller's streams on, or copy between pipes; either way they are three.
    for (_, to) in seen["fds"].as_object_mut().expect("descriptors") {
        let path = to.as_str().unwrap_or_default().to_owned();
        if path.starts_with("pipe:") || path.contains("/testkit-call-") || path == "/dev/null" {
            *to = json!("a stream");
        }
    }
    // Signals 32 and 33 belong to the C library that the runtime was built with.
    let ignored = seen["signals"]["ignored"].as_str().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    seen["signals"]["ignored"] = json!(ignored.map(|mask| mask & !(3 << 31)));
}

/// Tells whether a pointer fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, pointer: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == pointer };
    let Some(tail) = pointer.strip_prefix(head) else { return false };
    (0..=tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..]))
}

/// Every leaf that differs: its pointer and both values.
fn differences(left: &Value, right: &Value) -> Vec<(String, Value, Value)> {
    let mut found = Vec::new();
    walk("", left, right, &mut found);
    found
}

fn walk(at: &str, left: &Value, right: &Value, found: &mut Vec<(String, Value, Value)>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                walk(&format!("{at}/{}", key.trim_start_matches('/')), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (x, y)) in a.iter().zip(b).enumerate() {
                walk(&format!("{at}/{index}"), x, y, found);
            }
        }
        _ if left != right => found.push((at.to_owned(), left.clone(), right.clone())),
        _ => {}
    }
}
