//! Properties of the unit as pure values: the limits, and what the configuration's annotations ask for.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::wire::{Property, Value};
use crate::refusal::escape;
use crate::{Refusal, Write};

/// The limits as properties: systemd writes them again when it reloads, and would lift those that it does not know.
/// `current` is what is in force already.
pub(crate) fn limits(writes: &[Write], current: &LinuxResources) -> Vec<Property> {
    let mut found: Vec<Property> = Vec::new();
    for (file, value) in writes.iter().flat_map(|write| write.files.last()) {
        for property in property(file, value.trim()) {
            found.retain(|(name, _)| *name != property.0);
            found.push(property);
        }
    }
    found.extend(quota_v1(writes, current));
    found
}

/// Version 1 has quota and period in files of their own, of which an update may change one.
fn quota_v1(writes: &[Write], current: &LinuxResources) -> Vec<Property> {
    let value = |name: &str| {
        let mut files = writes.iter().flat_map(|write| write.files.last());
        files.find(|(file, _)| file == name).map(|(_, value)| value.clone())
    };
    let (new_quota, new_period) = (value("cpu.cfs_quota_us"), value("cpu.cfs_period_us"));
    if new_quota.is_none() && new_period.is_none() {
        return Vec::new();
    }
    let cpu = current.cpu().as_ref();
    let old_quota = cpu.and_then(LinuxCpu::quota).filter(|quota| *quota != 0).map(|quota| quota.to_string());
    let old_period =
        cpu.and_then(LinuxCpu::period).filter(|period| *period != 0).map(|period| period.to_string());
    let period = new_period.or(old_period).unwrap_or_else(|| DEFAULT_PERIOD.to_owned());
    // What is no number, as -1 is none here, is no quota.
    quota(&format!("{} {period}", new_quota.or(old_quota).as_deref().unwrap_or("max")))
}

/// Microseconds that a group of the kernel starts with.
const DEFAULT_PERIOD: &str = "100000";

/// What a file's value is as a property. Those of `unified` are in whatever form the kernel takes.
fn property(file: &str, value: &str) -> Vec<Property> {
    let number = || match value {
        "max" | "-1" => Some(u64::MAX),
        _ if file.starts_with("memory.") => bytes(value),
        _ => value.strip_prefix("default ").unwrap_or(value).trim().parse().ok(),
    };
    let one =
        |name: &'static str| number().map(|number| vec![(name, Value::Number(number))]).unwrap_or_default();
    match file {
        "memory.max" => one("MemoryMax"),
        "memory.high" => one("MemoryHigh"),
        "memory.low" => one("MemoryLow"),
        "memory.min" => one("MemoryMin"),
        "memory.swap.max" => one("MemorySwapMax"),
        "memory.zswap.max" => one("MemoryZSwapMax"),
        "memory.limit_in_bytes" => one("MemoryLimit"),
        "cpu.idle" => vec![("CPUWeight", Value::Number(if value == "1" { IDLE } else { DEFAULT_WEIGHT }))],
        "cpu.weight" => one("CPUWeight"),
        "cpu.shares" => one("CPUShares"),
        "io.weight" => one("IOWeight"),
        "blkio.weight" => one("BlockIOWeight"),
        "pids.max" => one("TasksMax"),
        "cpu.max" => quota(value),
        "cpuset.cpus" => vec![("AllowedCPUs", Value::Bytes(mask(value)))],
        "cpuset.mems" => vec![("AllowedMemoryNodes", Value::Bytes(mask(value)))],
        _ => Vec::new(),
    }
}

/// A number of bytes, which the kernel takes with a unit as well (memparse() in lib/cmdline.c).
fn bytes(value: &str) -> Option<u64> {
    let unit = value.chars().next_back()?.to_ascii_lowercase();
    let Some(power) = "kmgtpe".chars().position(|known| known == unit) else { return value.parse().ok() };
    let number: u64 = value[..value.len() - 1].parse().ok()?;
    number.checked_mul(1 << (10 * (power + 1)))
}

/// The weight that stands for "idle" (systemd.resource-control(5), since 252).
const IDLE: u64 = 0;
const DEFAULT_WEIGHT: u64 = 100;

/// The systemd that a property came with, where there are older ones in use.
pub(super) fn since((name, value): &Property) -> Option<u32> {
    match (*name, value) {
        ("CPUWeight", Value::Number(IDLE)) => Some(252),
        ("MemoryZSwapMax", _) => Some(253),
        _ => None,
    }
}

/// The number in what systemd says is its version, such as `252.38-1~deb12u1`.
pub(super) fn version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches('v');
    text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// `QUOTA PERIOD` in microseconds, of which the second may be missing.
fn parts(value: &str) -> (&str, &str) {
    let mut words = value.split_whitespace();
    (words.next().unwrap_or_default(), words.next().unwrap_or(DEFAULT_PERIOD))
}

/// The same as microseconds a second.
fn quota(value: &str) -> Vec<Property> {
    let (quota, period) = parts(value);
    let Ok(period) = period.parse::<u64>() else { return Vec::new() };
    let second = quota.parse::<u64>().map_or(u64::MAX, |quota| whole_percents(quota, period));
    vec![("CPUQuotaPerSecUSec", Value::Number(second)), ("CPUQuotaPeriodUSec", Value::Number(period))]
}

/// systemd keeps whole percents: rounded up, or what the container writes below would not fit.
fn whole_percents(quota: u64, period: u64) -> u64 {
    const PERCENT: u64 = 10_000;
    let second = quota.saturating_mul(1_000_000).div_ceil(period.max(1));
    second.checked_next_multiple_of(PERCENT).unwrap_or(u64::MAX)
}

/// The writes with what systemd makes of them at its next reload, so that a limit does not change then: a quota of version
/// 2 is rounded up as systemd's is. One of version 1 stays as it is, since the kernel refuses one above the parent's.
pub(crate) fn as_kept(mut writes: Vec<Write>) -> Vec<Write> {
    for (file, value) in writes.iter_mut().flat_map(|write| &mut write.files) {
        if file == "cpu.max" {
            *value = kept_quota(value).unwrap_or_else(|| value.clone());
        }
    }
    writes
}

fn kept_quota(value: &str) -> Option<String> {
    let (quota, period) = parts(value);
    let period: u64 = period.parse().ok()?;
    let kept = whole_percents(quota.parse().ok()?, period).checked_mul(period)? / 1_000_000;
    Some(format!("{kept} {period}"))
}

/// A list of numbers as a bit mask, lowest byte first.
fn mask(list: &str) -> Vec<u8> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
        for bit in usize::from(first)..=usize::from(last) {
            mask.resize(mask.len().max(bit / 8 + 1), 0);
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    mask
}

/// Annotations of this prefix set a property of the unit, as in runc.
const PREFIX: &str = "org.systemd.property.";

/// What a property's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    Number,
    Signal,
    Text,
    Texts,
}

/// The properties that a configuration may set. What would start other units, run programs or move the unit is not
/// among them (CVE-2024-3154).
const KNOWN: [(&str, Kind); 34] = [
    ("After", Kind::Texts),
    ("Before", Kind::Texts),
    ("CPUQuotaPerSecUSec", Kind::Number),
    ("CPUQuotaPeriodUSec", Kind::Number),
    ("CPUWeight", Kind::Number),
    ("CollectMode", Kind::Text),
    ("DefaultDependencies", Kind::Flag),
    ("DefaultMemoryLow", Kind::Number),
    ("DefaultMemoryMin", Kind::Number),
    ("Description", Kind::Text),
    ("FinalKillSignal", Kind::Signal),
    ("IOWeight", Kind::Number),
    ("IPAccounting", Kind::Flag),
    ("IgnoreOnIsolate", Kind::Flag),
    ("JobRunningTimeoutUSec", Kind::Number),
    ("JobTimeoutUSec", Kind::Number),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Signal),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("MemoryHigh", Kind::Number),
    ("MemoryLow", Kind::Number),
    ("MemoryMax", Kind::Number),
    ("MemoryMin", Kind::Number),
    ("MemorySwapMax", Kind::Number),
    ("OOMPolicy", Kind::Text),
    ("RuntimeMaxUSec", Kind::Number),
    ("SendSIGHUP", Kind::Flag),
    ("SendSIGKILL", Kind::Flag),
    ("StartupCPUWeight", Kind::Number),
    ("StartupIOWeight", Kind::Number),
    ("TasksMax", Kind::Number),
    ("TimeoutStopUSec", Kind::Number),
];

/// Reads the annotations that begin with `org.systemd.property.`: values in GVariant's text form, `Sec` names in
/// seconds.
///
/// # Errors
/// A property that a configuration may not set; a value that is not of its type.
pub(crate) fn asked_for(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Refusal> {
    let asked = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    asked
        .map(|(key, name, text)| {
            let refuse = |reason: String| Refusal::new(format!("/annotations/{}", escape(key)), reason);
            let (name, scale) = in_microseconds(name);
            let known = KNOWN.iter().find(|(known, _)| *known == name);
            let Some(&(name, kind)) = known else {
                return Err(refuse("a configuration may not set this property of a systemd unit".to_owned()));
            };
            let value = value_of(kind, text.trim(), scale);
            value.map(|value| (name, value)).ok_or_else(|| {
                refuse(format!("{text:?} is not what {name} takes ({kind:?}, in GVariant's text form)"))
            })
        })
        .collect()
}

/// `RuntimeMaxSec` stands for a million times `RuntimeMaxUSec`.
fn in_microseconds(name: &str) -> (String, Option<f64>) {
    match name.strip_suffix("Sec") {
        Some(stem) if !stem.ends_with('U') => (format!("{stem}USec"), Some(1e6)),
        _ => (name.to_owned(), None),
    }
}

fn value_of(kind: Kind, text: &str, scale: Option<f64>) -> Option<Value> {
    match kind {
        Kind::Flag => Some(Value::Flag(text.parse().ok()?)),
        Kind::Text => Some(Value::Text(quoted(text)?)),
        Kind::Texts => {
            let inner = text.strip_prefix("@as ").unwrap_or(text).strip_prefix('[')?.strip_suffix(']')?;
            let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(Value::Texts(parts.map(quoted).collect::<Option<_>>()?))
        }
        Kind::Signal => {
            Some(Value::Signal(bare(text).parse().ok().filter(|number| (1..=64).contains(number))?))
        }
        Kind::Number => match scale {
            None => Some(Value::Number(bare(text).parse().ok()?)),
            Some(scale) => {
                let seconds: f64 = bare(text).parse().ok()?;
                let fits = seconds >= 0.0 && seconds * scale < u64::MAX as f64;
                fits.then_some(Value::Number((seconds * scale) as u64))
            }
        },
    }
}

/// A number without the type that may stand before it.
fn bare(text: &str) -> &str {
    const TYPES: [&str; 8] =
        ["byte ", "int16 ", "uint16 ", "int32 ", "uint32 ", "int64 ", "uint64 ", "double "];
    TYPES.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text).trim()
}

/// A string in its quotes; one with an escape is not taken.
fn quoted(text: &str) -> Option<String> {
    let quote = ['\'', '"'].into_iter().find(|quote| text.starts_with(*quote) && text.len() > 1)?;
    let inner = text[1..].strip_suffix(quote)?;
    let plain = !inner.contains([quote, '\\']) && !inner.contains(char::is_control);
    plain.then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, text: &str) -> Result<Vec<Property>, Refusal> {
        asked_for(&BTreeMap::from([(key.to_owned(), text.to_owned()), ("other".to_owned(), "x".to_owned())]))
    }

    #[test]
    fn annotations_become_properties_of_their_type() {
        let cases = [
            ("TimeoutStopUSec", "uint64 5000000", ("TimeoutStopUSec", Value::Number(5_000_000))),
            ("RuntimeMaxSec", "double 1.5", ("RuntimeMaxUSec", Value::Number(1_500_000))),
            ("RuntimeMaxSec", "2", ("RuntimeMaxUSec", Value::Number(2_000_000))),
            (
                "CollectMode",
                "'inactive-or-failed'",
                ("CollectMode", Value::Text("inactive-or-failed".into())),
            ),
            ("SendSIGHUP", "true", ("SendSIGHUP", Value::Flag(true))),
            ("KillSignal", "int32 9", ("KillSignal", Value::Signal(9))),
            (
                "After",
                "['a.service', \"b.service\"]",
                ("After", Value::Texts(vec!["a.service".into(), "b.service".into()])),
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(read(&format!("{PREFIX}{name}"), text).unwrap(), [expected], "{name}={text}");
        }
        assert_eq!(read("com.example", "x").unwrap(), []);
    }

    #[test]
    fn what_acts_on_the_host_and_what_has_another_type_is_refused() {
        let cases = [
            ("ExecStop", "'/bin/sh'", "may not set"),
            ("Wants", "['reboot.target']", "may not set"),
            ("Slice", "'a.slice'", "may not set"),
            ("PIDs", "[1]", "may not set"),
            ("TimeoutStopUSec", "'1'", "is not what TimeoutStopUSec takes"),
            ("TimeoutStopUSec", "-1", "is not what"),
            ("RuntimeMaxSec", "-1", "is not what"),
            ("RuntimeMaxSec", "inf", "is not what"),
            ("KillSignal", "99", "is not what"),
            ("CollectMode", "inactive", "is not what"),
            ("CollectMode", "'a\\'b'", "is not what"),
            ("SendSIGHUP", "1", "is not what"),
            ("After", "'a.service'", "is not what"),
        ];
        for (name, text, reason) in cases {
            let refusal = read(&format!("{PREFIX}{name}"), text).unwrap_err();
            assert_eq!(refusal.field, format!("/annotations/{PREFIX}{name}"));
            assert!(refusal.reason.contains(reason), "{name}={text}: {}", refusal.reason);
        }
    }

    #[test]
    fn the_version_is_the_number_at_the_beginning() {
        let cases = [
            ("252.38-1~deb12u1", Some(252)),
            ("v257-rc1", Some(257)),
            ("249", Some(249)),
            ("", None),
            ("new", None),
        ];
        for (text, number) in cases {
            assert_eq!(version(text), number, "{text}");
        }
    }

    #[test]
    fn the_pointer_to_an_odd_annotation_is_escaped() {
        let refusal = read(&format!("{PREFIX}a/b~c"), "1").unwrap_err();
        assert_eq!(refusal.field, "/annotations/org.systemd.property.a~1b~0c");
    }

    #[test]
    fn values_are_read_in_every_form_that_the_kernel_takes() {
        for (file, value, number) in [
            ("memory.max", " 64M ", Some(64 << 20)),
            ("memory.high", "1g", Some(1 << 30)),
            ("memory.max", "99999999999e", None),
            ("memory.max", "some", None),
            ("memory.swap.max", "max", Some(u64::MAX)),
            ("io.weight", "default 500", Some(500)),
            ("pids.max", "7\t", Some(7)),
            ("cpu.max", " 20000   100000", Some(200_000)),
        ] {
            let found = property(file, value.trim()).into_iter().next();
            assert_eq!(found.map(|(_, value)| value), number.map(Value::Number), "{file} {value:?}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let write = |file: &str, value: &str| Write {
            place: 0,
            controller: String::new(),
            files: vec![(file.to_owned(), value.to_owned())],
            field: String::new(),
            retry: false,
            optional: false,
        };
        let writes = [
            write("memory.max", "4096"),
            write("memory.swap.max", "max"),
            write("cpu.max", "33333 100000"),
            write("pids.max", "7"),
            write("pids.max", "9"),
            write("cpuset.cpus", "0-2,9"),
            write("cpu.idle", "1"),
            write("io.max", "8:0 rbps=1"),
        ];
        let expected = [
            ("MemoryMax", Value::Number(4096)),
            ("MemorySwapMax", Value::Number(u64::MAX)),
            ("CPUQuotaPerSecUSec", Value::Number(340_000)),
            ("CPUQuotaPeriodUSec", Value::Number(100_000)),
            ("TasksMax", Value::Number(9)),
            ("AllowedCPUs", Value::Bytes(vec![7, 2])),
            ("CPUWeight", Value::Number(0)),
        ];
        assert_eq!(limits(&writes, &LinuxResources::default()), expected);
        assert_eq!(quota("max 50000")[0].1, Value::Number(u64::MAX));
        let current: LinuxResources =
            serde_json::from_str(r#"{"cpu":{"quota":30000,"period":50000}}"#).unwrap();
        let cases = [
            (vec![write("cpu.cfs_quota_us", "10000")], 200_000, 50_000),
            (vec![write("cpu.cfs_period_us", "100000")], 300_000, 100_000),
            (vec![write("cpu.cfs_quota_us", "-1")], u64::MAX, 50_000),
        ];
        for (writes, second, period) in cases {
            let expected = [
                ("CPUQuotaPerSecUSec", Value::Number(second)),
                ("CPUQuotaPeriodUSec", Value::Number(period)),
            ];
            assert_eq!(limits(&writes, &current), expected);
        }
        for (given, kept) in [
            ("500000 900000", "504000 900000"),
            ("600000 900000", "603000 900000"),
            ("50000 100000", "50000 100000"),
            ("1234", "2000 100000"),
            (" 50000  100000", "50000 100000"),
            ("max 100000", "max 100000"),
            ("18446744073709551615 1000000", "18446744073709551615 1000000"),
            ("many", "many"),
        ] {
            assert_eq!(as_kept(vec![write("cpu.max", given)]), [write("cpu.max", kept)]);
        }
        let untouched = [write("cpu.cfs_quota_us", "12345"), write("memory.max", "12345 900000")];
        assert_eq!(as_kept(untouched.to_vec()), untouched);
    }
}
