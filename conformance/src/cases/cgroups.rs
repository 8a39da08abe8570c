//! Control groups: places, owners, devices, and the files of version 2; Intel RDT.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Table;
use super::limits::MEGABYTE;
use crate::bundle::{Bundle, push};
use crate::cgroup::{self, Layout};
use crate::lab::Lab;
use crate::verdict::{Finding, fail, holds, needs, same, skip};

pub(super) const CASES: Table = &[
    ("C1", absolute_paths_start_at_the_mount),
    ("C2", relative_paths_lead_to_one_place),
    ("C5", paths_cannot_climb_out),
    ("C6", missing_cgroups_are_made),
    ("C8", ownership_changes_only_where_it_is_safe),
    ("C9", only_files_of_delegation_change_owner),
    ("C10", device_rules_apply_in_order),
    ("C11", device_rules_have_exceptions_on_version_2),
    ("C28", unified_files_are_written),
    ("C29", unified_controllers_are_enabled),
    ("C30", unified_on_version_1_is_converted_or_an_error),
    ("C31", settings_of_version_1_are_converted),
    ("C32", limits_without_their_controller_are_errors),
    ("I1", rdt_without_resctrl_is_an_error),
];

/// Creates a container with these resources beside the rules for devices, and returns its first process.
pub(super) fn limited(lab: &Lab, name: &str, resource: Value) -> Finding<(Bundle, i32)> {
    let bundle = lab.waiting(|config| config["linux"]["resources"][name] = resource)?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    Ok((bundle, pid))
}

/// Where the controller's files of a process are, with the version that the machine has it in.
pub(super) fn place(lab: &Lab, pid: i32, controller: &str) -> Finding<PathBuf> {
    available(lab, controller)?;
    let found = cgroup::directory(pid, controller);
    found.map_or_else(|| fail(format!("a control group with {controller}"), "none"), Ok)
}

/// The version in which a controller serves containers here: on a hybrid layout the side tree does not count.
pub(super) fn available(lab: &Lab, controller: &str) -> Finding<u8> {
    match cgroup::version(controller) {
        Some(1) => Ok(1),
        Some(version) if lab.suite.layout == Layout::V2 => Ok(version),
        _ => skip(format!("needs the controller {controller}")),
    }
}

fn needs_version_2(lab: &Lab) -> Finding {
    needs(lab.suite.layout == Layout::V2, "needs version 2 alone")
}

pub(super) fn read(directory: &Path, file: &str) -> Finding<String> {
    let text = fs::read_to_string(directory.join(file));
    text.map_or_else(|error| fail(format!("the file {file}"), error), |text| Ok(text.trim().to_owned()))
}

/// Values that files of a container's control group should have: file and text.
pub(super) type Values<'a> = &'a [(&'a str, &'a str)];

/// Creates a container with a resource and compares files, which differ between the versions.
pub(super) fn sets(
    lab: &Lab,
    controller: &str,
    resource: (&str, Value),
    old: Values,
    new: Values,
) -> Finding {
    let wanted = if available(lab, controller)? == 1 { old } else { new };
    needs(!wanted.is_empty(), format!("needs {controller} in the other version of control groups"))?;
    let (name, value) = resource;
    let (_, pid) = limited(lab, name, value)?;
    let directory = place(lab, pid, controller)?;
    for (file, text) in wanted {
        same(&format!("{file} of the container's cgroup"), *text, read(&directory, file)?.as_str())?;
    }
    Ok(())
}

/// Whether the root of a hierarchy or any group in it has a file: kernels are built with and without some.
pub(super) fn offered(lab: &Lab, controller: &str, file: &str) -> Finding<bool> {
    let bundle = lab.waiting(|_| ())?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    Ok(place(lab, pid, controller)?.join(file).exists())
}

/// A controller that most machines have, to find a container's place.
const ANY: &str = "memory";

fn not_systemd(lab: &Lab) -> Finding {
    needs(!lab.suite.systemd(), "systemd's paths have a form of their own")
}

fn absolute_paths_start_at_the_mount(lab: &Lab) -> Finding {
    not_systemd(lab)?;
    let mut bundle = lab.waiting(|_| ())?;
    let path = format!("/{}/below", bundle.id);
    bundle.config["linux"]["cgroupsPath"] = json!(path);
    bundle.write()?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    available(lab, ANY)?;
    let line = membership.lines().find(|line| line.contains(":memory:") || line.starts_with("0::"));
    let seen = line.and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or_default();
    same("the path of the container's cgroup", path.as_str(), seen)
}

fn relative_paths_lead_to_one_place(lab: &Lab) -> Finding {
    not_systemd(lab)?;
    let mut places = Vec::new();
    let shared = lab.waiting(|_| ())?.id;
    for _ in 0..2 {
        let bundle =
            lab.waiting(|config| config["linux"]["cgroupsPath"] = json!(format!("{shared}/below")))?;
        lab.create(&bundle)?;
        places.push(place(lab, lab.pid(&bundle)?, ANY)?);
        lab.call(&["delete", "--force", &bundle.id])?.done("delete --force")?;
    }
    cgroup::remove_named(&shared);
    holds(
        "the same place twice, below the given path",
        places[0] == places[1] && places[0].ends_with(format!("{shared}/below")),
        format!("{places:?}"),
    )
}

fn paths_cannot_climb_out(lab: &Lab) -> Finding {
    not_systemd(lab)?;
    let mut bundle = lab.waiting(|_| ())?;
    let name = lab.group(&format!("climbed-{}", bundle.id));
    // The directory before the dots is one that a runtime may make and forget: it has the name as well.
    for path in [format!("/../{name}"), format!("../../{name}"), format!("/{name}/../../{name}")] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        bundle.write()?;
        lab.try_create(&bundle)?;
        let escaped = cgroup::outside(&name);
        let seen = escaped.as_ref().map_or_else(String::new, |path| path.display().to_string());
        lab.call(&["delete", "--force", &bundle.id])?;
        cgroup::remove_named(&name);
        holds(format!("nothing outside of the hierarchy for {path}"), escaped.is_none(), seen)?;
    }
    Ok(())
}

fn missing_cgroups_are_made(lab: &Lab) -> Finding {
    not_systemd(lab)?;
    let mut bundle = lab.waiting(|_| ())?;
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}/one/two", bundle.id));
    bundle.write()?;
    lab.start_waiting(&bundle)?;
    let pid = lab.pid(&bundle)?;
    let directory = place(lab, pid, ANY)?;
    let members = read(&directory, "cgroup.procs")?;
    holds("the container's process in it", members.lines().any(|line| line == pid.to_string()), members)
}

/// A container in user and cgroup namespaces with a cgroup mount; `mode` is `rw` or `ro`.
fn delegated(lab: &Lab, mode: &str) -> Finding<PathBuf> {
    let bundle = lab.waiting(|config| {
        super::namespaces::user_namespace(config);
        push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
        crate::bundle::mount(
            config,
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", mode],
        );
        crate::bundle::mount(config, "/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        crate::bundle::probe(config, &["sleep", "30"]);
    })?;
    lab.create(&bundle)?;
    place(lab, lab.pid(&bundle)?, ANY)
}

fn owner(path: &Path) -> Finding<u32> {
    Ok(std::os::unix::fs::MetadataExt::uid(&fs::metadata(path)?))
}

fn ownership_changes_only_where_it_is_safe(lab: &Lab) -> Finding {
    available(lab, ANY)?;
    let two = lab.suite.layout == Layout::V2;
    for (mode, wanted) in [("rw", if two { 100_000 } else { 0 }), ("ro", 0)] {
        let seen = owner(&delegated(lab, mode)?)?;
        same(&format!("the owner of the cgroup with a cgroup mount that is {mode}"), &wanted, &seen)?;
    }
    Ok(())
}

fn only_files_of_delegation_change_owner(lab: &Lab) -> Finding {
    needs_version_2(lab)?;
    let directory = delegated(lab, "rw")?;
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
    let listed: Vec<&str> = listed.lines().collect();
    for entry in fs::read_dir(&directory)?.flatten().filter(|entry| entry.path().is_file()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = if listed.contains(&name.as_str()) { 100_000 } else { 0 };
        same(&format!("the owner of {name}"), &wanted, &owner(&entry.path())?)?;
    }
    Ok(())
}

/// A device without a driver: opening it is refused by the rules, or else tells that nothing is there.
const DRIVERLESS: (u32, u32) = (240, 99);

/// What opening it for reading and for writing gives under these rules.
fn opened(lab: &Lab, rules: &Value) -> Finding<Vec<String>> {
    let (major, minor) = DRIVERLESS;
    lab.inside(&["open", "/dev/odd", "+", "open-write", "/dev/odd"], |config| {
        config["linux"]["resources"]["devices"] = rules.clone();
        let node = json!({ "path": "/dev/odd", "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 });
        config["linux"]["devices"] = json!([node]);
    })
}

fn device_rules_apply_in_order(lab: &Lab) -> Finding {
    needs(
        lab.suite.layout == Layout::V2 || cgroup::version("devices") == Some(1),
        "needs the controller devices",
    )?;
    let all = |allow: bool| json!({ "allow": allow, "access": "rwm" });
    let one = |allow: bool, access: &str| json!({ "allow": allow, "type": "c", "major": DRIVERLESS.0, "minor": DRIVERLESS.1, "access": access });
    let block =
        json!({ "allow": true, "type": "b", "major": DRIVERLESS.0, "minor": DRIVERLESS.1, "access": "rwm" });
    let major = json!({ "allow": true, "type": "c", "major": DRIVERLESS.0, "access": "rwm" });
    let minor = json!({ "allow": true, "type": "c", "minor": DRIVERLESS.1, "access": "rwm" });
    let (refused, nothing) = ("!EPERM", "!ENXIO");
    for (rules, wanted) in [
        (json!([all(false)]), [refused, refused]),
        (json!([all(false), one(true, "rw")]), [nothing, nothing]),
        (json!([all(false), one(true, "r")]), [nothing, refused]),
        (json!([one(true, "rwm"), all(false)]), [refused, refused]),
        (json!([all(false), one(true, "rwm"), one(false, "w")]), [nothing, refused]),
        (json!([all(false), all(true)]), [nothing, nothing]),
        (json!([all(false), { "allow": true, "type": "a", "access": "rwm" }]), [nothing, nothing]),
        (json!([all(false), block]), [refused, refused]),
        (json!([all(false), major]), [nothing, nothing]),
        (json!([all(false), minor]), [nothing, nothing]),
    ] {
        same(
            &format!("opening a device to read and to write with {rules}"),
            &wanted[..],
            &opened(lab, &rules)?[..],
        )?;
    }
    Ok(())
}

fn device_rules_have_exceptions_on_version_2(lab: &Lab) -> Finding {
    needs_version_2(lab)?;
    let range = |allow: bool, minor: Option<u32>| json!({ "allow": allow, "type": "c", "major": DRIVERLESS.0, "minor": minor.unwrap_or(0), "access": "rwm" });
    let mut whole = range(true, None);
    whole.as_object_mut().map(|rule| rule.remove("minor"));
    let rules = json!([{ "allow": false, "access": "rwm" }, whole, range(false, Some(DRIVERLESS.1))]);
    same("an exception in an allowed range", &["!EPERM"; 2][..], &opened(lab, &rules)?[..])?;
    let rules = json!([{ "allow": false, "access": "rwm" }, whole, range(false, Some(1))]);
    same("a range beside its exception", &["!ENXIO"; 2][..], &opened(lab, &rules)?[..])
}

fn unified_files_are_written(lab: &Lab) -> Finding {
    needs_version_2(lab)?;
    // cgroup.max.depth belongs to no controller and to no setting of the configuration.
    let given = json!({ "memory.high": "67108864", "cgroup.max.depth": "5" });
    let values = [("memory.high", "67108864"), ("cgroup.max.depth", "5")];
    sets(lab, "memory", ("unified", given), &[], &values)
}

fn unified_controllers_are_enabled(lab: &Lab) -> Finding {
    needs_version_2(lab)?;
    sets(lab, "pids", ("unified", json!({ "pids.max": "12" })), &[], &[("pids.max", "12")])?;
    lab.refuses("unified with a controller that does not exist", |config| {
        config["linux"]["resources"]["unified"] = json!({ "weather.max": "1" });
    })
}

fn unified_on_version_1_is_converted_or_an_error(lab: &Lab) -> Finding {
    needs(available(lab, "memory")? == 1, "needs version 1")?;
    let bundle =
        lab.waiting(|config| config["linux"]["resources"]["unified"] = json!({ "memory.max": "67108864" }))?;
    if !lab.try_create(&bundle)?.succeeded() {
        return lab.gone(&bundle.id, "after a failed create");
    }
    let limit = read(&place(lab, lab.pid(&bundle)?, "memory")?, "memory.limit_in_bytes")?;
    same("memory.limit_in_bytes converted from memory.max, or an error", "67108864", limit.as_str())
}

fn settings_of_version_1_are_converted(lab: &Lab) -> Finding {
    needs_version_2(lab)?;
    sets(lab, "memory", ("memory", json!({ "limit": 64 * MEGABYTE })), &[], &[("memory.max", "67108864")])?;
    sets(lab, "pids", ("pids", json!({ "limit": 9 })), &[], &[("pids.max", "9")])?;
    lab.refuses("network.classID, which has no equal in version 2", |config| {
        config["linux"]["resources"]["network"] = json!({ "classID": 1_048_577 });
    })
}

fn limits_without_their_controller_are_errors(lab: &Lab) -> Finding {
    let lacking = [
        ("net_cls", "network", json!({ "classID": 1_048_577 })),
        ("rdma", "rdma", json!({ "card0": { "hcaHandles": 3 } })),
        ("hugetlb", "hugepageLimits", json!([{ "pageSize": "2MB", "limit": 0 }])),
    ];
    let Some((controller, name, value)) =
        lacking.into_iter().find(|(controller, ..)| cgroup::version(controller).is_none())
    else {
        return skip("needs a machine that lacks net_cls, rdma or hugetlb");
    };
    lab.refuses(&format!("{name} on a machine without {controller}"), |config| {
        config["linux"]["resources"][name] = value
    })
}

fn rdt_without_resctrl_is_an_error(lab: &Lab) -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    needs(!mounts.contains(" - resctrl "), "the case is for machines where resctrl is not mounted")?;
    lab.refuses("intelRdt where resctrl is not mounted", |config| {
        config["linux"]["intelRdt"] = json!({ "closID": "guaranteed" })
    })
}
