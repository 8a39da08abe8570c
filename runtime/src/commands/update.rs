//! `hull update`: changes the limits of a container that runs.

use super::find;
use crate::cli::UpdateOptions;
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::host;
use crate::log::Level;
use crate::spec_of;
use crate::state::Status;
use hull_cgroup::Cgroup;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// Longest resources document that is read, in bytes (R19).
const LONGEST: u64 = 4 << 20;

/// Applies the options, or the document of `--resources`, to the container's control groups.
pub fn run(options: &UpdateOptions, globals: &Globals) -> Result<u8> {
    let mut directory = find(&options.id, globals)?;
    // Before the lock: a stream may take its time, and other commands would wait for it.
    let new = match &options.resources {
        Some(path) => read_document(path)?,
        None => from_options(options)?,
    };
    directory.lock()?;
    let record = directory.read()?;
    if !Status::of(&directory, &record).has_process() {
        return Err(Error::new(Code::ContainerState, "container not running"));
    }
    let current = spec_of::resources(&directory)?;
    let facts = host::probe(&record.bundle, globals.rootless)?;
    // Everything that can be refused has been read by now.
    for schema in options.l3_cache_schema.iter().chain(&options.mem_bw_schema) {
        record.resctrl.change(schema)?;
    }
    let cgroup = Cgroup::open(&record.cgroup);
    let left_out = cgroup.update(&new, &current, facts.rootless)?;
    left_out.into_iter().for_each(|text| globals.log.write(Level::Warning, text));
    spec_of::keep_resources(&directory, &current, &as_carried_out(new))?;
    Ok(0)
}

/// Memory without a limit took the limit of memory and swap together with it.
fn as_carried_out(mut new: LinuxResources) -> LinuxResources {
    let mut memory = new.memory().unwrap_or_default();
    // 0 is how a document leaves a value that it names.
    if memory.limit() == Some(-1) && memory.swap().unwrap_or(0) == 0 {
        memory.set_swap(Some(-1));
        new.set_memory(Some(memory));
    }
    new
}

fn read_document(path: &Path) -> Result<LinuxResources> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(LONGEST).read_to_end(&mut text).context(|| "read standard input")?;
    } else {
        let file = std::fs::File::open(path).context(|| format!("open {}", path.display()))?;
        file.take(LONGEST).read_to_end(&mut text).context(|| format!("read {}", path.display()))?;
    }
    hull_plan::parse_resources(&text)
        .map_err(|refusal| Error::from(refusal).within(format!("resources in {}", path.display())))
}

/// The options as the document they stand for.
fn from_options(options: &UpdateOptions) -> Result<LinuxResources> {
    let mut memory = Map::new();
    for (name, text) in [
        ("limit", &options.memory),
        ("reservation", &options.memory_reservation),
        ("swap", &options.memory_swap),
    ] {
        if let Some(text) = text {
            memory.insert(name.to_owned(), json!(bytes(text)?));
        }
    }
    let mut cpu = Map::new();
    let numbers = [
        ("shares", options.cpu_share.map(Value::from)),
        ("period", options.cpu_period.map(Value::from)),
        ("quota", options.cpu_quota.map(Value::from)),
        ("burst", options.cpu_burst.map(Value::from)),
        ("realtimePeriod", options.cpu_rt_period.map(Value::from)),
        ("realtimeRuntime", options.cpu_rt_runtime.map(Value::from)),
        ("idle", options.cpu_idle.map(Value::from)),
        ("cpus", options.cpuset_cpus.clone().map(Value::from)),
        ("mems", options.cpuset_mems.clone().map(Value::from)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    }
    let mut document = Map::new();
    insert(&mut document, "memory", memory);
    insert(&mut document, "cpu", cpu);
    if let Some(limit) = options.pids_limit {
        document.insert("pids".to_owned(), json!({ "limit": limit }));
    }
    if let Some(weight) = options.blkio_weight.filter(|weight| *weight != 0) {
        document.insert("blockIO".to_owned(), json!({ "weight": weight }));
    }
    serde_json::from_value(Value::Object(document))
        .map_err(|error| Error::new(Code::Usage, format!("the options: {error}")))
}

fn insert(document: &mut Map<String, Value>, name: &str, section: Map<String, Value>) {
    if !section.is_empty() {
        document.insert(name.to_owned(), Value::Object(section));
    }
}

/// Bytes with an optional suffix of 1024s (`64m`, `1.5g`, `10kb`), or -1.
fn bytes(text: &str) -> Result<i64> {
    let refused = || Error::new(Code::Usage, format!("invalid value for memory: {text:?}"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let suffix = lower[digits.len()..].trim_end_matches('b').trim_end_matches('i');
    let power = match suffix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(refused()),
    };
    let unit = 1024_i64.pow(power);
    if !digits.contains('.') {
        let whole: i64 = digits.parse().map_err(|_| refused())?;
        return whole.checked_mul(unit).filter(|value| *value >= 0).ok_or_else(refused);
    }
    let fraction: f64 = digits.parse().map_err(|_| refused())?;
    let value = (fraction * unit as f64) as i64;
    if fraction.is_finite() && value >= 0 { Ok(value) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::{as_carried_out, bytes};

    #[test]
    fn memory_without_a_limit_is_kept_as_swap_without_one() {
        let kept = |new: &str| {
            let new = serde_json::from_str(new).expect("resources");
            as_carried_out(new).memory().and_then(|memory| memory.swap())
        };
        assert_eq!(kept(r#"{"memory":{"limit":-1}}"#), Some(-1));
        assert_eq!(kept(r#"{"memory":{"limit":-1,"swap":0}}"#), Some(-1));
        assert_eq!(kept(r#"{"memory":{"limit":-1,"swap":7}}"#), Some(7));
        assert_eq!(kept(r#"{"memory":{"limit":5}}"#), None);
        assert_eq!(kept(r#"{"cpu":{"shares":5}}"#), None);
    }

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        for (text, value) in
            [("-1", -1), ("0", 0), ("1024", 1024), ("64m", 64 << 20), ("1.5G", 3 << 29), ("10KiB", 10240)]
        {
            assert_eq!(bytes(text).expect(text), value, "{text}");
        }
        for bad in ["", "-5", "12x", "nan", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad:?} was taken");
        }
    }
}
