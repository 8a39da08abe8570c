//! A configuration to start from, and a host to plan for.
#![allow(dead_code)] // each test program uses a part of it

use hull_plan::{HostFacts, Loaded, Plan, Refusal, load};
use serde_json::{Value, json};

/// A root caller with all capabilities of this kernel on a host without label modules.
pub fn facts() -> HostFacts {
    HostFacts {
        rootless: false,
        in_user_namespace: false,
        uid: 0,
        gid: 0,
        bounding: (1 << 41) - 1,
        last_capability: 40,
        apparmor: false,
        selinux: false,
        resctrl: false,
        cgroup_v2: false,
        bundle: "/bundle".into(),
    }
}

/// What `mode=755`, `size=64k` and the like need around them.
pub fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ]
        }
    })
}

/// The configuration with `value` at `pointer`; objects on the way are made, `null` removes, `-` appends.
pub fn with(mut config: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
    let mut at = &mut config;
    for segment in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[segment.parse::<usize>().expect("an index")],
            _ => {
                if at[segment].is_null() {
                    at[segment] = json!({});
                }
                &mut at[segment]
            }
        };
    }
    match (at, value) {
        (Value::Array(items), value) if name == "-" => items.push(value),
        (Value::Object(members), Value::Null) => drop(members.remove(name)),
        (at, value) if name == "-" => *at = json!([value]),
        (Value::Array(items), value) => items[name.parse::<usize>().expect("an index")] = value,
        (at, value) => at[name] = value,
    }
    config
}

/// The default configuration with one change.
pub fn changed(pointer: &str, value: Value) -> Value {
    with(config(), pointer, value)
}

/// The configuration with a new user namespace of 65536 ids.
pub fn with_user_namespace(config: Value) -> Value {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let config = with(config, "/linux/namespaces/-", json!({"type": "user"}));
    with(with(config, "/linux/uidMappings", map.clone()), "/linux/gidMappings", map)
}

pub fn load_value(config: &Value) -> Result<Loaded, Refusal> {
    load(config.to_string().as_bytes())
}

pub fn plan_for(config: &Value, facts: &HostFacts) -> Result<Plan, Refusal> {
    Plan::build(&load_value(config)?.spec, facts)
}

pub fn plan(config: &Value) -> Result<Plan, Refusal> {
    plan_for(config, &facts())
}

/// Asserts that the configuration is refused at `field`, with `phrase` in the reason, and that `field` is there.
#[track_caller]
pub fn assert_refused_for(config: &Value, facts: &HostFacts, field: &str, phrase: &str) {
    match plan_for(config, facts) {
        Ok(_) => panic!("accepted: expected a refusal of {field}: {phrase}"),
        Err(refusal) => {
            assert_eq!(refusal.field, field, "{refusal}");
            assert!(refusal.reason.contains(phrase), "{:?} lacks {phrase:?}", refusal.reason);
            assert!(config.pointer(field).is_some(), "{field} is not in the document");
        }
    }
}

#[track_caller]
pub fn assert_refused(config: &Value, field: &str, phrase: &str) {
    assert_refused_for(config, &facts(), field, phrase);
}
