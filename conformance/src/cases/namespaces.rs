//! Namespaces and id mappings.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::Table;
use super::lifecycle::namespace;
use crate::bundle::{probe, push};
use crate::hold::Held;
use crate::lab::Lab;
use crate::verdict::{Finding, holds, needs, same};

pub(super) const CASES: Table = &[
    ("N1", all_types_are_supported),
    ("N2", namespaces_without_a_path_are_new),
    ("N3", namespaces_with_a_path_are_joined),
    ("N4", paths_of_another_type_are_errors),
    ("N5", types_not_listed_are_inherited),
    ("N6", types_listed_twice_are_errors),
    ("N7", mappings_are_written),
    ("N8", mappings_leave_owners_alone),
    ("N10", joined_user_namespaces_own_new_ones),
    ("N11", time_offsets_are_written),
    ("N13", program_is_process_1),
];

/// The first host id that [`user_namespace`] maps to.
const FIRST: u32 = 100_000;

/// Asks for a new user namespace with one mapping.
pub(super) fn user_namespace(config: &mut Value) {
    push(config, "/linux/namespaces", json!({ "type": "user" }));
    for kind in ["uidMappings", "gidMappings"] {
        config["linux"][kind] = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Types as the configuration names them, and as `/proc/PID/ns` does.
const TYPES: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
];

fn all_types_are_supported(lab: &Lab) -> Finding {
    let time = Path::new("/proc/self/ns/time").exists();
    let report = lab.report(|config| {
        user_namespace(config);
        push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
        if time {
            push(config, "/linux/namespaces", json!({ "type": "time" }));
        }
    })?;
    let more = [("user", "user"), ("time", "time")];
    for (kind, name) in TYPES.iter().chain(&more).filter(|(kind, _)| time || *kind != "time") {
        let seen = text(&report["namespaces"][name]);
        holds(format!("a new {kind} namespace"), !seen.is_empty() && seen != namespace(0, name), seen)?;
    }
    Ok(())
}

fn namespaces_without_a_path_are_new(lab: &Lab) -> Finding {
    let report = lab.report(|config| push(config, "/linux/namespaces", json!({ "type": "cgroup" })))?;
    for (kind, name) in TYPES {
        let seen = text(&report["namespaces"][name]);
        holds(format!("a new {kind} namespace"), !seen.is_empty() && seen != namespace(0, name), seen)?;
    }
    Ok(())
}

/// Gives the entry of a type a path.
fn join(config: &mut Value, kind: &str, path: &str) {
    let list = config["linux"]["namespaces"].as_array_mut();
    if let Some(entry) = list.and_then(|list| list.iter_mut().find(|entry| entry["type"] == kind)) {
        entry["path"] = json!(path);
        return;
    }
    push(config, "/linux/namespaces", json!({ "type": kind, "path": path }));
}

fn namespaces_with_a_path_are_joined(lab: &Lab) -> Finding {
    let held = lab.keep(Held::new(lab.suite, &["net", "uts", "ipc"])?);
    let process = lab.keep(Held::new(lab.suite, &["pid"])?);
    let kinds =
        [("network", "net", held), ("uts", "uts", held), ("ipc", "ipc", held), ("pid", "pid", process)];
    let report = lab.report(|config| {
        for (kind, name, pid) in kinds {
            join(config, kind, &format!("/proc/{pid}/ns/{name}"));
        }
    })?;
    for (kind, name, pid) in kinds {
        same(
            &format!("the joined {kind} namespace"),
            namespace(pid, name).as_str(),
            text(&report["namespaces"][name]),
        )?;
    }
    Ok(())
}

fn paths_of_another_type_are_errors(lab: &Lab) -> Finding {
    let held = lab.keep(Held::new(lab.suite, &["net", "uts"])?);
    let of_uts = format!("/proc/{held}/ns/uts");
    lab.refuses("a uts namespace as network namespace", |config| join(config, "network", &of_uts))?;
    lab.refuses("a file that is no namespace", |config| join(config, "network", "/proc/self/status"))?;
    lab.refuses("a path that does not exist", |config| join(config, "network", "/nowhere/at/all"))?;
    lab.refuses("a relative path", |config| join(config, "network", "proc/self/ns/net"))
}

fn types_not_listed_are_inherited(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        config.as_object_mut().map(|members| members.remove("hostname"));
        config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }]);
    })?;
    for name in ["net", "uts", "ipc", "user"] {
        same(
            &format!("the runtime's {name} namespace"),
            namespace(0, name).as_str(),
            text(&report["namespaces"][name]),
        )?;
    }
    Ok(())
}

fn types_listed_twice_are_errors(lab: &Lab) -> Finding {
    lab.refuses("the type uts twice", |config| push(config, "/linux/namespaces", json!({ "type": "uts" })))
}

fn mappings_are_written(lab: &Lab) -> Finding {
    let entries: Vec<Value> =
        (0..40).map(|at| json!({ "containerID": at * 10, "hostID": FIRST + at * 20, "size": 5 })).collect();
    let wanted: Vec<String> = (0..40).map(|at| format!("{} {} 5", at * 10, FIRST + at * 20)).collect();
    let bundle = lab.bundle(|config| {
        user_namespace(config);
        probe(config, &["sleep", "30"]);
        // The group of terminals has to be mapped where devpts names it.
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["type"] != "devpts");
        }
        config["linux"]["uidMappings"] = json!(entries);
        config["linux"]["gidMappings"] = json!(entries);
    })?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    for file in ["uid_map", "gid_map"] {
        let seen = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let seen: Vec<String> =
            seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        same(file, &wanted, &seen)?;
    }
    Ok(())
}

fn mappings_leave_owners_alone(lab: &Lab) -> Finding {
    let bundle = lab.bundle(user_namespace)?;
    let owner = || -> Finding<[u32; 4]> {
        let (root, file) = (fs::metadata(bundle.inside("/"))?, fs::metadata(bundle.inside("tmp"))?);
        Ok([root.uid(), root.gid(), file.uid(), file.gid()])
    };
    let before = owner()?;
    lab.report_of(&bundle)?;
    same("owners of the root file system", &before, &owner()?)
}

/// Writes a mapping for a held user namespace.
fn map(pid: i32) -> Finding {
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), format!("0 {FIRST} 65536\n"))?;
    }
    Ok(())
}

fn joined_user_namespaces_own_new_ones(lab: &Lab) -> Finding {
    let held = lab.keep(Held::new(lab.suite, &["user", "ipc"])?);
    map(held)?;
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "report", "+", "hostname", "owned"]);
        join(config, "user", &format!("/proc/{held}/ns/user"));
        join(config, "ipc", &format!("/proc/{held}/ns/ipc"));
        let capabilities = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"] =
            json!({ "bounding": capabilities, "permitted": capabilities, "effective": capabilities });
    })?;
    let seen = lab.inside_of(&bundle)?;
    let report: Value = serde_json::from_str(&seen[0]).unwrap_or_default();
    for name in ["user", "ipc"] {
        same(
            &format!("the joined {name} namespace"),
            namespace(held, name).as_str(),
            text(&report["namespaces"][name]),
        )?;
    }
    for name in ["uts", "net", "pid"] {
        let own = text(&report["namespaces"][name]);
        holds(format!("a new {name} namespace"), own != namespace(0, name), own)?;
    }
    same(
        "sethostname in the new uts namespace, which needs a capability over its owner",
        "",
        seen[1].as_str(),
    )
}

fn time_offsets_are_written(lab: &Lab) -> Finding {
    needs(Path::new("/proc/self/ns/time").exists(), "needs time namespaces")?;
    let (monotonic, boottime) = (5_000, 70_000);
    let seen = lab.inside(&["clock", "monotonic", "+", "clock", "boottime"], |config| {
        push(config, "/linux/namespaces", json!({ "type": "time" }));
        config["linux"]["timeOffsets"] =
            json!({ "monotonic": { "secs": monotonic, "nanosecs": 1 }, "boottime": { "secs": boottime } });
    })?;
    let here = [ClockId::Monotonic, ClockId::Boottime].map(|clock| clock_gettime(clock).tv_sec);
    for ((name, offset), (here, inside)) in
        [("monotonic", monotonic), ("boottime", boottime)].iter().zip(here.iter().zip(&seen))
    {
        let differs = inside.parse::<i64>().unwrap_or(0) - here;
        // The clocks were read one after another.
        holds(
            format!("the clock {name} {offset} s ahead"),
            (differs - offset).abs() < 120,
            format!("{differs} s"),
        )?;
    }
    Ok(())
}

fn program_is_process_1(lab: &Lab) -> Finding {
    same("the program's own process id", &json!(1), &lab.report(|_| ())?["pid"])
}
