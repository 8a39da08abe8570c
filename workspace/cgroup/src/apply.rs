//! Carrying out planned writes.

use hull_sys::SysError;

use crate::Write;
use crate::error::{CgroupError, RefusedLimit, Result};
use crate::node::Node;

/// Writes every value, one controller's group after the other.
pub(crate) fn writes(writes: &[Write], nodes: &[Node]) -> Result<()> {
    groups(writes).try_for_each(|group| write_group(group, &nodes[group[0].place]))
}

/// Puts back what [`values`] has found, as far as the kernel takes it and where something else is held by now; a set that is
/// empty has not been written to. Last first: what was written later may stand in the way of the rest.
pub(crate) fn put_back(values: &[Write], nodes: &[Node]) {
    let holds_it = |write: &Write| {
        let (file, text) = &write.files[0];
        let present = nodes[write.place].read(file).ok().flatten();
        present.is_some_and(|present| ["", text.as_str()].contains(&present.trim_end()))
    };
    let mut left: Vec<&Write> = values.iter().rev().filter(|write| !holds_it(write)).collect();
    // What is refused for the order alone is taken the second time; one that is not keeps no other one from it.
    for _ in 0..2 {
        left.retain(|write| write_one(write, &nodes[write.place]).is_err());
    }
}

fn groups(writes: &[Write]) -> impl Iterator<Item = &[Write]> {
    writes.chunk_by(|a, b| a.place == b.place && a.controller == b.controller)
}

/// What the files of planned writes hold, as writes of it in the same order. Files that say something else than what is
/// written to them, as those of devices do, are left out.
pub(crate) fn values(writes: &[Write], nodes: &[Node]) -> Vec<Write> {
    let held = |write: &Write| {
        let node = nodes.get(write.place)?;
        let (file, text) =
            write.files.iter().find_map(|(file, _)| Some((file, node.read(file).ok().flatten()?)))?;
        // A set that has nothing of its own stands for the parent's, and cannot be emptied while somebody is in there.
        let text = match text.trim_end_matches('\n') {
            "" => node.read(&format!("{file}.effective")).ok().flatten()?.trim_end().to_owned(),
            text => text.to_owned(),
        };
        is_plain(&text).then(|| Write { files: vec![(file.clone(), text)], ..write.clone() })
    };
    writes.iter().filter_map(held).collect()
}

/// Numbers, lists of them, and words for none and the usual one.
fn is_plain(text: &str) -> bool {
    let text = text.strip_prefix("default ").unwrap_or(text).replace("max", "");
    text.bytes().all(|byte| byte.is_ascii_digit() || b" ,-".contains(&byte))
}

/// Writes one controller's values; those that may only be refused for their order get a second try.
fn write_group(group: &[Write], node: &Node) -> Result<()> {
    let mut again = Vec::new();
    for write in group {
        if node.dir()?.is_none() {
            let (controller, field) = (write.controller.clone(), write.field.clone());
            return Err(CgroupError::NotJoined { controller, field });
        }
        match write_one(write, node) {
            Err((_, _, error)) if write.retry && error.is(libc::EINVAL) && group.len() > 1 => {
                again.push(write)
            }
            Err(failed) => return Err(explain(write, node, failed)),
            Ok(()) => {}
        }
    }
    for write in again {
        write_one(write, node).map_err(|failed| explain(write, node, failed))?;
    }
    Ok(())
}

type Failed<'a> = (&'a str, &'a str, SysError);

/// Writes to the first file that exists.
fn write_one<'a>(write: &'a Write, node: &Node) -> std::result::Result<(), Failed<'a>> {
    let mut missing = None;
    for (file, value) in &write.files {
        match node.write(file, value) {
            Ok(()) => return Ok(()),
            Err(error) if error.is(libc::ENOENT) => missing = Some((file.as_str(), value.as_str(), error)),
            Err(error) if write.optional && error.is(libc::EOPNOTSUPP) => return Ok(()),
            Err(error) => return Err((file, value, error)),
        }
    }
    match missing {
        Some(failed) if !write.optional => Err(failed),
        _ => Ok(()),
    }
}

fn explain(write: &Write, node: &Node, (file, value, source): Failed<'_>) -> CgroupError {
    CgroupError::Limit(Box::new(RefusedLimit {
        controller: write.controller.clone(),
        file: node.path_of(file),
        value: value.to_owned(),
        field: write.field.clone(),
        hint: hint(node, &write.controller, file, &source),
        source,
    }))
}

/// What a person needs to know to get over the kernel's answer.
fn hint(node: &Node, controller: &str, file: &str, error: &SysError) -> String {
    let read = |file: &str| node.read(file).ok().flatten().map(|text| text.trim().to_owned());
    let text = match (controller, error.errno) {
        ("memory", libc::EBUSY) => {
            let usage = read("memory.usage_in_bytes").or_else(|| read("memory.current"));
            usage.map(|bytes| format!("{bytes} bytes are in use and could not be reclaimed"))
        }
        ("hugetlb", libc::ENOENT) => {
            Some("the kernel has no pages of that size: see /sys/kernel/mm/hugepages".to_owned())
        }
        (_, libc::ENOENT) if file.starts_with("memory.memsw") || file.starts_with("memory.swap") => {
            Some("the kernel does not account swap: swapaccount=1 on its command line".to_owned())
        }
        (_, libc::ENOENT) => Some(format!("this kernel's {controller} controller has no such file")),
        ("cpuset", libc::EINVAL | libc::EACCES | libc::ENODEV | libc::ERANGE) => {
            Some("must be part of what the parent group has and not empty".to_owned())
        }
        ("cpu", libc::EINVAL) if file.starts_with("cpu.rt_") => {
            Some("the parent group must have as much real-time bandwidth".to_owned())
        }
        ("cpu", libc::EINVAL) if file.starts_with("cpu.cfs_") || file.starts_with("cpu.max") => Some(
            "out of the kernel's range, a burst above the quota, or more than the parent group has"
                .to_owned(),
        ),
        ("cpu", libc::EINVAL) => Some("out of range, or the group is idle (cpu.idle)".to_owned()),
        (_, libc::ENODEV) => Some("no such device".to_owned()),
        (_, libc::EACCES | libc::EPERM) => Some("the group must be delegated to the caller".to_owned()),
        _ => None,
    };
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::rc::Rc;

    use hull_testkit::Scratch;

    use super::{is_plain, put_back, values};
    use crate::node::Node;
    use crate::{Place, Version, Write};

    #[test]
    fn one_value_that_is_refused_keeps_no_other_from_being_put_back() {
        let scratch = Scratch::new("put-back");
        let open = || File::open(scratch.path()).unwrap().into();
        let place = Place {
            version: Version::V2,
            hierarchy: String::new(),
            mount_point: scratch.path().display().to_string(),
            path: "/".to_owned(),
        };
        let nodes = [Node::opened(place, Rc::new(open()), Some(open()))];
        let write = |file: &str| Write {
            place: 0,
            controller: "cpu".to_owned(),
            files: vec![(file.to_owned(), "5".to_owned())],
            field: String::new(),
            retry: false,
            optional: false,
        };
        let file = |name: &str| scratch.join(name);
        let writes = ["first", "refused", "last"].map(write);
        for write in &writes {
            fs::write(file(&write.files[0].0), "1\n").unwrap();
        }
        let before = values(&writes, &nodes);
        let expected = ["first", "refused", "last"].map(|name| (name.to_owned(), "1".to_owned()));
        assert_eq!(before.iter().map(|write| write.files[0].clone()).collect::<Vec<_>>(), expected);
        fs::remove_file(file("refused")).unwrap();
        fs::create_dir(file("refused")).unwrap();
        for name in ["first", "last"] {
            fs::write(file(name), "5").unwrap();
        }
        put_back(&before, &nodes);
        assert_eq!(["first", "last"].map(|name| fs::read_to_string(file(name)).unwrap()), ["1", "1"]);
    }

    #[test]
    fn what_can_be_written_back_is_a_line_of_numbers() {
        for text in ["", "0", "-1", "max", "max 100000", "20000 50000", "0-3,7", "default 100"] {
            assert!(is_plain(text), "{text:?}");
        }
        for text in ["8:0 1048576", "1\n2", "oom_kill_disable 0", "some avg10=0.00", "cpu memory", "member"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }
}
