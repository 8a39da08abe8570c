//! The formats of statistics files: pure, but for fetching the text. What is not a number counts as nothing.

use std::collections::BTreeMap;

use super::{BlkioEntry, Pressure, PressureLine};
use crate::error::Result;
use crate::node::Node;

/// A file's text; empty when it is missing.
pub(super) fn text(node: &Node, file: &str) -> Result<String> {
    Ok(node.read(file)?.unwrap_or_default())
}

/// A file with one number; 0 when it is missing.
pub(super) fn number(node: &Node, file: &str) -> Result<u64> {
    Ok(text(node, file)?.trim().parse().unwrap_or(0))
}

/// A file with one number or `max`; `None` when it is missing or `max`.
pub(super) fn limit(node: &Node, file: &str) -> Result<Option<u64>> {
    Ok(text(node, file)?.trim().parse().ok())
}

/// Lines of `name number`.
pub(super) fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The kernel's list format: `0-2,5`.
pub(super) fn list(text: &str) -> Vec<u16> {
    let ranges = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}

/// Numbers in one line.
pub(super) fn row(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// `cpuacct.usage_all`: a heading, then processor, user and kernel time a line. Gives (kernel, user).
pub(super) fn usage_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    let lines = text.lines().skip(1).map(row).filter(|row| row.len() >= 3);
    lines.map(|row| (row[2], row[1])).unzip()
}

/// Version 1's `blkio` files: `8:0 Read 4096`, or `8:0 4096`; the grand total is left out.
pub(super) fn block_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let words: Vec<_> = line.split([' ', ':']).collect();
        let (major, minor) = (words.first()?.parse().ok()?, words.get(1)?.parse().ok()?);
        let (op, value) = match words[2..] {
            [value] => ("", value),
            [op, value] => (op, value),
            _ => return None,
        };
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Version 2's `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`. Gives (bytes, requests).
pub(super) fn io_stat(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut requests, "Read"),
                "wios" => (&mut requests, "Write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            table.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
    (bytes, requests)
}

/// A `.pressure` file; `None` when the kernel does not count it.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let share = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let total = value("total")?.parse().ok()?;
        Some(PressureLine { avg10: share("avg10"), avg60: share("avg60"), avg300: share("avg300"), total })
    };
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}
