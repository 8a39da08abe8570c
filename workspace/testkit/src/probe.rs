//! What a process sees of itself and of its surroundings, as one JSON object; all of it is read from `/proc` and `/dev`.
//!
//! `hull-probe` prints it inside a container; tests compare the objects of several runtimes.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::{env, fs};

use serde_json::{Value, json};

/// Looks round. A part that cannot be read is `null`: without `/proc` nearly all of it.
#[must_use]
pub fn look() -> Value {
    let status = status();
    let field = |name: &str| status.get(name).map(String::as_str);
    json!({
        "argv": env::args().collect::<Vec<_>>(),
        "capabilities": capabilities(&status),
        "cgroup": lines("/proc/self/cgroup"),
        "cpus": field("Cpus_allowed_list"),
        "cwd": env::current_dir().ok(),
        "devices": devices(Path::new("/dev")),
        "domainname": text("/proc/sys/kernel/domainname"),
        "env": environment(),
        "exe": fs::read_link("/proc/self/exe").ok(),
        "fds": fds(),
        "hostname": text("/proc/sys/kernel/hostname"),
        "ids": { "uid": numbers(field("Uid")), "gid": numbers(field("Gid")), "groups": numbers(field("Groups")) },
        "id_maps": { "uid": lines("/proc/self/uid_map"), "gid": lines("/proc/self/gid_map"), "setgroups": text("/proc/self/setgroups") },
        "limits": limits(),
        "mounts": mounts(),
        "namespaces": links("/proc/self/ns"),
        "no_new_privs": field("NoNewPrivs"),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "paths": paths(),
        "personality": text("/proc/self/personality"),
        "pid": std::process::id(),
        "scheduler": scheduler(),
        "seccomp": { "mode": field("Seccomp"), "filters": field("Seccomp_filters") },
        "signals": { "blocked": field("SigBlk"), "ignored": field("SigIgn") },
        "timens_offsets": lines("/proc/self/timens_offsets"),
        "umask": field("Umask"),
    })
}

/// `/proc/self/status` as a map.
fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn capabilities(status: &BTreeMap<String, String>) -> Value {
    json!({
        "inheritable": status.get("CapInh"), "permitted": status.get("CapPrm"), "effective": status.get("CapEff"),
        "bounding": status.get("CapBnd"), "ambient": status.get("CapAmb"),
    })
}

fn numbers(field: Option<&str>) -> Option<Vec<u64>> {
    Some(field?.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// `/proc/self/limits`: name to soft and hard limit.
fn limits() -> BTreeMap<String, Value> {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let rows = text.lines().skip(1).filter(|line| line.len() > 67);
    rows.map(|line| (line[..26].trim().to_owned(), json!([line[26..47].trim(), line[47..67].trim()])))
        .collect()
}

/// `/proc/self/mountinfo` without the ids that differ from run to run.
fn mounts() -> Option<Vec<Value>> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(text.lines().filter_map(mount).collect())
}

/// One line of mountinfo (proc(5)): id, parent, device, root, target, options, optional fields, `-`, type, source, super.
fn mount(line: &str) -> Option<Value> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let back: Vec<&str> = back.split(' ').collect();
    let shared: Vec<&str> =
        front.get(6..)?.iter().map(|field| field.split(':').next().unwrap_or(field)).collect();
    Some(json!({
        "root": front.get(3)?, "target": front.get(4)?, "options": front.get(5)?, "propagation": shared,
        "type": back.first()?, "source": back.get(1)?, "super": back.get(2)?,
    }))
}

/// Everything below `/dev` with its kind, mode, owner, and device number or link target.
fn devices(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(meta) = path.symlink_metadata() else { continue };
        found.insert(path.display().to_string(), describe(&path, &meta));
        if meta.is_dir() {
            found.extend(devices(&path));
        }
    }
    found
}

fn describe(path: &Path, meta: &fs::Metadata) -> String {
    let kind = meta.file_type();
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    match () {
        () if kind.is_symlink() => format!("link {}", fs::read_link(path).unwrap_or_default().display()),
        () if kind.is_char_device() => format!("char {major}:{minor} {mode:o} {uid}:{gid}"),
        () if kind.is_block_device() => format!("block {major}:{minor} {mode:o} {uid}:{gid}"),
        () if kind.is_fifo() => format!("fifo {mode:o} {uid}:{gid}"),
        () if kind.is_dir() => format!("directory {mode:o} {uid}:{gid}"),
        () => format!("file {mode:o} {uid}:{gid} {} bytes", meta.len()),
    }
}

/// Open descriptors and what they are; the one that reads the directory is left out.
fn fds() -> BTreeMap<String, String> {
    let mut all = links("/proc/self/fd");
    all.retain(|_, to| !to.ends_with("/fd"));
    all
}

/// Policy, static priority and nice value from `/proc/self/stat` (proc(5): fields 41, 40 and 19).
fn scheduler() -> Option<Value> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(json!({ "nice": rest.get(16)?, "rt_priority": rest.get(37)?, "policy": rest.get(38)? }))
}

/// What is left to see of paths that runtimes usually hide or protect.
fn paths() -> BTreeMap<&'static str, String> {
    const LOOKED_AT: [&str; 9] = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/acpi",
        "/proc/scsi",
        "/sys/firmware",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
    ];
    LOOKED_AT.iter().map(|path| (*path, seen(Path::new(path)))).collect()
}

fn seen(path: &Path) -> String {
    let Ok(meta) = path.metadata() else { return "absent".into() };
    if meta.is_dir() {
        let count = fs::read_dir(path).map_or(0, Iterator::count);
        return if count == 0 { "empty directory".into() } else { "directory with entries".into() };
    }
    let size = fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut [0; 16]));
    // Opened for writing, never written: that alone tells whether the path is read-only.
    let writable = fs::OpenOptions::new().write(true).open(path);
    let read = match size {
        Ok(0) => "empty".to_owned(),
        Ok(_) => "readable".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let write = writable.map_or_else(|error| format!("{:?}", error.kind()), |_| "writable".into());
    format!("{read}, {write}{}", if meta.file_type().is_char_device() { ", device" } else { "" })
}

fn links(directory: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let pairs = entries.flatten().filter_map(|entry| {
        let to = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), to.display().to_string()))
    });
    pairs.collect()
}

fn lines(path: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn environment() -> Vec<String> {
    env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect()
}
