//! `ps`: containers.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::containers::{self, Place, Status};
use super::{Outcome, ports, table};
use crate::host;

/// Arguments of `ps`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Show those that have ended too
    #[arg(short, long)]
    all: bool,
    /// name=TEXT, status=WORD, id=TEXT or ancestor=IMAGE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template for each container, `table TEMPLATE`, or json
    #[arg(long)]
    format: Option<String>,
    /// The newest N, ended or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// The newest one, ended or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

/// Lists containers, newest first.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let mut rows = Vec::new();
    let most = if arguments.latest { Some(1) } else { arguments.last };
    let any = arguments.all || most.is_some() || arguments.filter.iter().any(|f| f.starts_with("status="));
    for place in containers::all(&store)?.iter().rev() {
        if most.is_some_and(|most| rows.len() >= most) {
            break;
        }
        let status = place.status()?;
        let shown = any || status.is_alive();
        if shown && fits(place, &status, &arguments.filter)? {
            rows.push(object(place, &status, arguments.no_trunc));
        }
    }
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if let Some(format) = &arguments.format {
        print!("{}", table::formatted(format, &rows)?);
    } else if arguments.quiet {
        rows.iter().for_each(|row| println!("{}", text(row, "ID")));
    } else {
        let keys = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| keys.map(|key| text(row, key)).to_vec()).collect();
        let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        print!("{}", table::table(&header, &cells));
    }
    Ok(ExitCode::SUCCESS)
}

fn word(status: &Status) -> &str {
    match status {
        Status::Known(word) => word,
        Status::Exited(_) => "exited",
    }
}

fn fits(place: &Place, status: &Status, filters: &[String]) -> Result<bool, String> {
    for filter in filters {
        let (key, value) =
            filter.split_once('=').ok_or_else(|| format!("filter {filter:?} is not KEY=VALUE"))?;
        let fits = match key {
            "name" => place.container.name.contains(value),
            "id" => place.container.id.starts_with(value),
            "status" => word(status) == value,
            "ancestor" => place.container.image == value || place.container.image_id.contains(value),
            _ => return Err(format!("filter {key} is not known: name, id, status, ancestor")),
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

fn object(place: &Place, status: &Status, full: bool) -> Value {
    let container = &place.container;
    let age = host::span((host::now() - container.created).max(0));
    let shown = match status {
        Status::Known(word) if word == "running" => format!("Up {age}"),
        Status::Known(word) => word.clone(),
        Status::Exited(Some(code)) => format!("Exited ({code})"),
        Status::Exited(None) => "Exited".to_owned(),
    };
    let command = container.command.join(" ");
    let command = match full || command.chars().count() <= 30 {
        true => command,
        false => command.chars().take(29).chain(['…']).collect(),
    };
    json!({
        "ID": if full { &container.id } else { &container.id[..12] },
        "Image": container.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": host::rfc3339(container.created),
        "RunningFor": format!("{age} ago"),
        "Status": shown,
        "State": word(status),
        "Ports": ports::shown(&container.ports),
        "Names": container.name,
        "Networks": container.network,
    })
}
