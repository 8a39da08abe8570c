//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Test Anything Protocol, version 13.
    Tap,
    /// JUnit's XML.
    Junit,
    /// One JSON document, which `--table` reads.
    Json,
}

/// Tests any OCI runtime by its command line against the runtime specification.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "hull-conformance",
    version,
    after_help = "Exit status: 0 all passed or skipped, 1 some failed, 2 usage or no runtime."
)]
pub struct Options {
    /// The runtime's program.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["list", "table"])]
    pub runtime: Option<PathBuf>,
    /// A word before each of the runtime's commands, e.g. --runtime-arg=--systemd-cgroup; may be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub runtime_arg: Vec<String>,
    /// Only the requirement of this id, or those whose text or section has this in it; may be repeated.
    #[arg(long, value_name = "ID|TEXT")]
    pub filter: Vec<String>,
    /// Only requirements of this level: must, should, may; may be repeated. All of them when absent.
    #[arg(long, value_name = "LEVEL")]
    pub level: Vec<String>,
    /// tap, junit or json.
    #[arg(long, value_name = "FORMAT", default_value = "tap", value_parser = format)]
    pub format: Format,
    /// A requirement that may fail without changing the exit status; may be repeated.
    #[arg(long, value_name = "ID")]
    pub todo: Vec<String>,
    /// How many cases run at once.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub jobs: usize,
    /// Seconds that a case may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub deadline: u64,
    /// List the requirements with their level and section, and whether they have a case.
    #[arg(long)]
    pub list: bool,
    /// Write a table in Markdown from documents of --format json.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub table: Vec<PathBuf>,
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "tap" => Ok(Format::Tap),
        "junit" => Ok(Format::Junit),
        "json" => Ok(Format::Json),
        _ => Err("tap, junit or json".to_owned()),
    }
}
