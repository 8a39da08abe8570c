//! What holds for every input: no panic, the same plan from the same bytes, a pointer that is there.

mod common;

use common::{facts, load_value, plan_for, with_user_namespace};
use hull_plan::{ExecRequest, HostFacts, Plan, exec_process, load};
use serde_json::{Value, json};

/// A configuration that uses nearly every member that is read.
fn rich() -> Value {
    let mut config = with_user_namespace(common::config());
    let hook = json!({"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 5});
    config["hooks"] = json!({"prestart": [hook], "createRuntime": [hook], "createContainer": [hook],
        "startContainer": [hook], "poststart": [hook], "poststop": [hook]});
    config["domainname"] = json!("dom");
    config["annotations"] = json!({"a": "1"});
    config["process"] = json!({
        "terminal": true, "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
        "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
        "noNewPrivileges": true, "oomScoreAdj": 5, "apparmorProfile": "p", "selinuxLabel": "l",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {"policy": "SCHED_FIFO", "priority": 1, "nice": 0, "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 0, "deadline": 0, "period": 0},
        "execCPUAffinity": {"initial": "0", "final": "1"}
    });
    let map = json!([{"containerID": 0, "hostID": 5, "size": 6}]);
    config["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/data", "type": "none", "source": "/srv", "options": ["rbind", "ridmap"],
            "uidMappings": map, "gidMappings": map}
    ]);
    rich_linux(&mut config["linux"]);
    config
}

fn rich_linux(linux: &mut Value) {
    linux["namespaces"] = json!([
        {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        {"type": "user"}, {"type": "time"}, {"type": "cgroup"}
    ]);
    linux["timeOffsets"] = json!({"monotonic": {"secs": 1, "nanosecs": 2}});
    linux["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    linux["devices"] =
        json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}]);
    linux["maskedPaths"] = json!(["/proc/kcore"]);
    linux["readonlyPaths"] = json!(["/proc/sys"]);
    linux["cgroupsPath"] = json!("/a");
    linux["rootfsPropagation"] = json!("rslave");
    linux["mountLabel"] = json!("l");
    linux["personality"] = json!({"domain": "LINUX", "flags": []});
    linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    linux["netDevices"] = json!({"eth0": {"name": "eth1"}});
    linux["intelRdt"] = json!({"closID": "a", "schemata": ["x"], "l3CacheSchema": "y", "memBwSchema": "z", "enableMonitoring": true});
    linux["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/s", "listenerMetadata": "m",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
            "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}]});
    linux["resources"] = json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {"limit": 1, "reservation": 1, "swap": 1, "swappiness": 1, "disableOOMKiller": true, "useHierarchy": true,
            "checkBeforeUpdate": true},
        "cpu": {"shares": 1, "quota": 1, "period": 1, "burst": 1, "idle": 1, "mems": "0", "realtimeRuntime": 1, "realtimePeriod": 1},
        "pids": {"limit": 5},
        "blockIO": {"weight": 10, "leafWeight": 10, "weightDevice": [{"major": 1, "minor": 2, "weight": 3, "leafWeight": 4}],
            "throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
        "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 5}]},
        "rdma": {"mlx5": {"hcaHandles": 1, "hcaObjects": 2}},
        "unified": {"memory.high": "5"}
    });
}

fn able() -> HostFacts {
    HostFacts { apparmor: true, selinux: true, resctrl: true, ..facts() }
}

/// Pointers of all values of the document, the document itself apart.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut one = |name: String, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        all.push(pointer.clone());
        pointers(value, &pointer, all);
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| one(index.to_string(), item))
        }
        Value::Object(members) => members.iter().for_each(|(name, item)| one(name.clone(), item)),
        _ => {}
    }
}

fn all_pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    pointers(value, "", &mut all);
    all
}

fn replaced(mut config: Value, pointer: &str, value: Value) -> Value {
    *config.pointer_mut(pointer).expect("the pointer is there") = value;
    config
}

/// Values of the JSON types that `value` is not of.
fn wrong_types(value: &Value) -> Vec<Value> {
    let kinds = [json!(true), json!(-7.5), json!("\u{1}wrong"), json!([[]]), json!({"wrong": {}})];
    let same = |other: &Value| std::mem::discriminant(other) == std::mem::discriminant(value);
    // Every number of a configuration is whole.
    kinds.into_iter().filter(|other| !same(other) || other.is_f64()).collect()
}

#[test]
fn the_rich_configuration_is_accepted() {
    let loaded = load_value(&rich()).expect("it is valid");
    let plan = Plan::build(&loaded.spec, &able()).expect("it can be carried out");
    assert_eq!((loaded.warnings, plan.warnings), (vec![], vec![]));
}

#[test]
fn every_wrong_type_is_refused_with_a_pointer_to_it() {
    let config = rich();
    let mut refused = 0;
    for pointer in all_pointers(&config) {
        let value = config.pointer(&pointer).expect("the pointer is there");
        for wrong in wrong_types(value) {
            let changed = replaced(config.clone(), &pointer, wrong.clone());
            let refusal = plan_for(&changed, &able()).expect_err(&format!("{wrong} at {pointer}"));
            assert!(changed.pointer(&refusal.field).is_some(), "{} is not in the document", refusal.field);
            let near = refusal.field.starts_with(&pointer) || pointer.starts_with(&refusal.field);
            assert!(
                near && !refusal.field.is_empty(),
                "{wrong} at {pointer} was told at {:?}",
                refusal.field
            );
            refused += 1;
        }
    }
    assert!(refused > 1000, "{refused} are too few");
}

#[test]
fn a_missing_member_never_panics_and_is_told_where_it_should_be() {
    let config = rich();
    for pointer in all_pointers(&config) {
        let mut changed = config.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        match changed.pointer_mut(parent).expect("the parent is there") {
            Value::Object(members) => drop(members.remove(name)),
            Value::Array(items) => drop(items.remove(name.parse().expect("an index"))),
            _ => unreachable!("only these have members"),
        }
        if let Err(refusal) = plan_for(&changed, &able()) {
            assert!(changed.pointer(&refusal.field).is_some(), "without {pointer}: {refusal}");
        }
    }
}

/// xorshift64: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 1).expect("64 bits") % bound
    }
}

fn odd_value(numbers: &mut Numbers) -> Value {
    let strings = [
        "",
        "/",
        "..",
        "/proc/self",
        "a/b",
        "rbind,ro",
        "0-3",
        "CAP_CHOWN",
        "user",
        "=",
        "SCHED_DEADLINE",
        "\0",
        "é",
    ];
    match numbers.below(8) {
        0 => Value::Null,
        1 => json!(numbers.below(2) == 0),
        2 => json!(numbers.below(10)),
        3 => json!([0, -1, i64::MIN, i64::MAX][numbers.below(4)]),
        4 => json!([u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX, 65535][numbers.below(4)]),
        5 => json!([]),
        6 => json!({}),
        _ => json!(strings[numbers.below(strings.len())]),
    }
}

#[test]
fn changed_configurations_never_panic_and_always_give_the_same_answer() {
    let config = rich();
    let all = all_pointers(&config);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..1500 {
        let mut changed = config.clone();
        for _ in 0..=numbers.below(3) {
            let pointer = &all[numbers.below(all.len())];
            if let Some(value) = changed.pointer_mut(pointer) {
                *value = odd_value(&mut numbers);
            }
        }
        let facts = if numbers.below(4) == 0 {
            HostFacts { uid: 5, gid: 5, rootless: true, ..able() }
        } else {
            able()
        };
        let text = changed.to_string();
        let once = answer(&text, &facts);
        assert_eq!(once, answer(&text, &facts));
        match once {
            Ok(_) => accepted += 1,
            Err(field) => {
                refused += 1;
                assert!(changed.pointer(&field).is_some(), "{field} is not in {text}");
            }
        }
    }
    assert!(accepted > 50 && refused > 500, "{accepted} accepted, {refused} refused");
}

fn answer(text: &str, facts: &HostFacts) -> Result<String, String> {
    let spec = load(text.as_bytes()).map_err(|refusal| refusal.field)?.spec;
    let request = ExecRequest {
        args: vec!["a".into()],
        capabilities: vec!["CAP_KILL".into()],
        ..ExecRequest::default()
    };
    let exec = exec_process(&spec, &request, facts);
    let plan = Plan::build(&spec, facts).map_err(|refusal| refusal.field)?;
    assert!(!plan.summary().is_empty());
    Ok(format!("{}{:?}", plan.to_json(), exec.map(|exec| exec.process)))
}

#[test]
fn broken_text_never_panics() {
    let text = rich().to_string().into_bytes();
    let mut numbers = Numbers(0x0123_4567_89ab_cdef);
    for round in 0..1500 {
        let mut bytes = text.clone();
        match round % 3 {
            0 => bytes.truncate(numbers.below(text.len())),
            1 => bytes[numbers.below(text.len())] = u8::try_from(numbers.below(256)).expect("a byte"),
            _ => drop(bytes.drain(numbers.below(text.len())..).take(numbers.below(40))),
        }
        if let Err(refusal) = load(&bytes) {
            assert!(!refusal.reason.is_empty() && !refusal.reason.contains('\n'), "{:?}", refusal.reason);
        }
    }
}
