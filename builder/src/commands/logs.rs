//! `logs`: what a detached container wrote.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::containers::{self, Place, Status};
use super::{Outcome, images};
use crate::host;

/// Arguments of `logs`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the container
    container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end, or all
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Only lines since then: RFC 3339, seconds since 1970, or a span before now such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
}

/// Prints the log, each stream to its own.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    drop(store);
    let Ok(file) = File::open(place.dir.join("log")) else {
        return Err(
            format!("logs: {} ran in the foreground: its output is not kept", place.container.name).into()
        );
    };
    let moment = |text: &Option<String>| text.as_deref().map(images::moment).transpose();
    let (since, until) = (moment(&arguments.since)?, moment(&arguments.until)?);
    let fits = |line: &[u8]| {
        let time = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let time = std::str::from_utf8(time).ok().and_then(host::parse_rfc3339).unwrap_or_default();
        since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
    };
    let mut reader = BufReader::new(file);
    let skip = match arguments.tail.as_str() {
        "all" => 0,
        text => {
            let wanted: usize = text.parse().map_err(|_| format!("logs: --tail {text} is no number"))?;
            let count =
                (&mut reader).split(b'\n').filter(|line| line.as_ref().is_ok_and(|line| fits(line))).count();
            reader.seek(SeekFrom::Start(0))?;
            count.saturating_sub(wanted)
        }
    };
    let mut line = Vec::new();
    let mut number = 0;
    let mut is_over = !arguments.follow;
    loop {
        let count = reader.read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") {
            if fits(&line) {
                if number >= skip {
                    show(&line, arguments.timestamps)?;
                }
                number += 1;
            }
            line.clear();
        } else if count == 0 {
            if is_over {
                return Ok(ExitCode::SUCCESS);
            }
            // What came since the last look is read all the same.
            is_over = has_all(&place)?;
            if !is_over {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Whether nothing more comes: the container has ended, and its monitor, which writes what was still in the pipes, has
/// noted how, or is gone.
fn has_all(place: &Place) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(match place.status()? {
        Status::Known(_) => false,
        Status::Exited(code) => code.is_some() || !place.has_monitor(),
    })
}

/// `TIME STREAM F|P TEXT`: of a part of a line no end is shown.
fn show(line: &[u8], timestamps: bool) -> io::Result<()> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (fields.next(), fields.next(), fields.next());
    let text = fields.next().unwrap_or(b"\n");
    let text = if tag == Some(b"P") { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    let mut sink: Box<dyn Write> = match stream {
        Some(b"stderr") => Box::new(io::stderr().lock()),
        _ => Box::new(io::stdout().lock()),
    };
    if timestamps {
        sink.write_all(time.unwrap_or_default())?;
        sink.write_all(b" ")?;
    }
    sink.write_all(text)?;
    sink.flush()
}
