//! The probe as a hook: writes down who called it, with what, and where it is.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;
use std::{env, path::Path};

use serde_json::{Value, json};

/// Logs the call with its standard input, then ends as `end` says: `exit N`, `sleep N`, or well.
pub fn run(file: &str, name: &str, end: &[String]) -> ExitCode {
    let input = super::input().unwrap_or_default();
    if let Err(error) = log(file, name, input) {
        eprintln!("probe: {file}: {error}");
        return ExitCode::FAILURE;
    }
    let number = end.get(1).and_then(|word| word.parse::<u8>().ok()).unwrap_or(0);
    match end.first().map(String::as_str) {
        Some("exit") => return ExitCode::from(number),
        Some("sleep") => sleep(Duration::from_secs(number.into())),
        _ => (),
    }
    ExitCode::SUCCESS
}

/// Appends one line of JSON to `file`.
pub fn log(file: &str, name: &str, input: String) -> io::Result<()> {
    let state = serde_json::from_str::<Value>(&input).unwrap_or(Value::String(input));
    let container = state["pid"].as_i64().unwrap_or(0);
    let mut line = json!({
        "name": name,
        "container": namespaces(&container.to_string()),
        "container root is switched": Path::new(&format!("/proc/{container}/root/probe")).exists(),
        "state": state,
        "argv": env::args().collect::<Vec<_>>(),
        "env": env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "namespaces": namespaces("self"),
        "pid": std::process::id(),
        "probe at the root": Path::new("/probe").exists(),
    })
    .to_string();
    line.push('\n');
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

fn namespaces(process: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(format!("/proc/{process}/ns")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| {
        let to = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), to.to_string_lossy().into_owned()))
    });
    links.collect()
}
