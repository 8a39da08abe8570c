//! `-info`: what the runtime can do, for containerd 2.x.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hull_sys::process;
use prost::Message;

use crate::api::{Any, RuntimeInfo, RuntimeVersion};
use crate::bundle::options_from;
use crate::runtime::{Runtime, output_file, read_output};
use crate::spawn::{Program, find_program};

use super::NAME;

const STDIN_LIMIT: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(4);

/// Prints the runtime's features and version; standard input may hold its options.
pub fn info() -> Result<(), String> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(STDIN_LIMIT)
        .read_to_end(&mut input)
        .map_err(|error| format!("read standard input: {error}"))?;
    let options = Any::decode(input.as_slice()).ok().filter(|any| !any.type_url.is_empty());
    let parsed = options_from(options.as_ref()).map_err(|error| format!("read options: {error}"))?;
    let runtime = Runtime::new(parsed, "");
    let features = ask(&runtime, "features");
    let version = ask(&runtime, "--version").unwrap_or_default();
    let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned();
    let answer = RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), revision: version }),
        options,
        features: features.map(|value| Any { type_url: FEATURES.to_owned(), value }),
        annotations: HashMap::new(),
    };
    std::io::stdout().write_all(&answer.encode_to_vec()).map_err(|error| format!("print the answer: {error}"))
}

/// The type under which containerd expects the JSON of `features`.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// What the runtime prints for one word; nothing when it fails or hangs.
fn ask(runtime: &Runtime, word: &str) -> Option<Vec<u8>> {
    let path = find_program(runtime.name())?;
    let output = output_file().ok()?;
    let program = Program::new(path, vec![runtime.name().to_owned(), word.to_owned()]).fd(output.as_fd(), 1);
    let child = program.start().ok()?;
    let ended = process::wait_until(child.pidfd.as_fd(), Instant::now() + LIMIT);
    match ended {
        Ok(Some(status)) if status.code() == 0 => Some(read_output(&output)),
        Ok(Some(_)) => None,
        _ => {
            // Nothing more can be done about one that hangs.
            let _ = process::kill_group(child.pid, 9);
            None
        }
    }
}
