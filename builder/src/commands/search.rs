//! `search`: repositories of a registry by a part of their name.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::registry_options::RegistryArguments;
use super::{Outcome, table};
use crate::registry::{Client, Options, Request};

const MAX_PAGE: u64 = 8 << 20;

/// Arguments of `search`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A part of the name; REGISTRY/TERM for another registry than docker.io
    term: String,
    /// is-official=BOOL, is-automated=BOOL or stars=N
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template for each result, `table TEMPLATE`, or json
    #[arg(long)]
    format: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Asks Docker's search, or lists a private registry's catalogue.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let options = arguments.registry.options()?;
    let mut rows = match arguments.term.split_once('/') {
        Some((registry, term)) if registry.contains(['.', ':']) || registry == "localhost" => {
            catalogue(registry, term, arguments, &options)?
        }
        _ => hub(&arguments.term, arguments, &options)?,
    };
    for filter in &arguments.filter {
        let (key, value) =
            filter.split_once('=').ok_or_else(|| format!("filter {filter:?} is not KEY=VALUE"))?;
        match key {
            "stars" => {
                let least: i64 = value.parse().map_err(|_| format!("filter stars={value} is no number"))?;
                rows.retain(|row| row["StarCount"].as_i64().unwrap_or(0) >= least);
            }
            "is-official" => rows.retain(|row| row["IsOfficial"].as_bool() == value.parse().ok()),
            "is-automated" => rows.retain(|row| row["IsAutomated"].as_bool() == value.parse().ok()),
            _ => return Err(format!("filter {key} is not known: stars, is-official, is-automated").into()),
        }
    }
    rows.truncate(arguments.limit);
    match &arguments.format {
        Some(format) => print!("{}", table::formatted(format, &rows)?),
        None => {
            let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
            print!("{}", table::table(&["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], &cells));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &Value) -> Vec<String> {
    let official = if row["IsOfficial"] == true { "[OK]" } else { "" };
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    vec![text("Name"), text("Description"), row["StarCount"].to_string(), official.to_owned()]
}

fn hub(
    term: &str,
    arguments: &Arguments,
    options: &Options,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let client = Client::connect("index.docker.io", options)?;
    let query: String = term
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect();
    let url = client.url(&format!("/v1/search?q={query}&n={}", arguments.limit.clamp(1, 100)));
    let page: Value =
        serde_json::from_slice(&client.send(Request::new("GET", &url), "")?.read_all(MAX_PAGE)?)?;
    let results = page["results"].as_array().cloned().unwrap_or_default();
    let cut = |text: &str| match arguments.no_trunc || text.chars().count() <= 45 {
        true => text.to_owned(),
        false => text.chars().take(44).chain(['…']).collect(),
    };
    Ok(results.iter().map(|result| json!({
        "Name": result["name"], "Description": cut(result["description"].as_str().unwrap_or_default()),
        "StarCount": result["star_count"].as_i64().unwrap_or(0),
        "IsOfficial": result["is_official"] == true, "IsAutomated": result["is_automated"] == true,
    })).collect())
}

fn catalogue(
    registry: &str,
    term: &str,
    arguments: &Arguments,
    options: &Options,
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let client = Client::connect(registry, options)?;
    let mut url = client.url("/v2/_catalog?n=1000");
    let mut rows = Vec::new();
    for _ in 0..1000 {
        let mut answer = client.send(Request::new("GET", &url), "registry:catalog:*")?;
        let next = answer.header("link").and_then(crate::registry::next_page).map(str::to_owned);
        let from = answer.url().to_owned();
        let page: Value = serde_json::from_slice(&answer.read_all(MAX_PAGE)?)?;
        let names = page["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str);
        rows.extend(names.filter(|name| name.contains(term)).map(|name| json!({
            "Name": format!("{registry}/{name}"), "Description": "", "StarCount": 0, "IsOfficial": false, "IsAutomated": false,
        })));
        match next {
            Some(next) if rows.len() < arguments.limit => url = crate::registry::resolve(&from, &next)?,
            _ => break,
        }
    }
    Ok(rows)
}
