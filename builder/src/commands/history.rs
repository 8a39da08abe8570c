//! `history`: how an image came to be, newest step first.

use std::process::ExitCode;

use clap::Args;
use hull_image::{Image, Platform, Store};
use serde_json::{Value, json};

use super::{Outcome, images, table};
use crate::host;

/// Arguments of `history`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the image
    image: String,
    /// A template for each step, `table TEMPLATE`, or json
    #[arg(long)]
    format: Option<String>,
    /// Sizes and dates for people (`false`: in bytes and as moments)
    #[arg(short = 'H', long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Do not shorten instructions and ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// The platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
}

/// Prints the steps.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let (_, image) = host::find_image(&store, &arguments.image, arguments.platform.as_ref())?;
    let rows = rows(&store, &image, arguments);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if let Some(format) = &arguments.format {
        print!("{}", table::formatted(format, &rows)?);
    } else if arguments.quiet {
        rows.iter().for_each(|row| println!("{}", text(row, "ID")));
    } else {
        let created = if arguments.human { "CreatedSince" } else { "CreatedAt" };
        let keys = ["ID", created, "CreatedBy", "Size", "Comment"];
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| keys.map(|key| text(row, key)).to_vec()).collect();
        print!("{}", table::table(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &cells));
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(store: &Store, image: &Image, arguments: &Arguments) -> Vec<Value> {
    let mut sizes = images::layer_sizes(store, image).into_iter().map(|(_, size)| size);
    let mut rows: Vec<Value> = Vec::new();
    for step in &image.config.history {
        let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        let created = step.created.as_deref().and_then(host::parse_rfc3339);
        let by = step.created_by.clone().unwrap_or_default().replace(['\t', '\n'], " ");
        rows.push(json!({
            "ID": "<missing>",
            "CreatedAt": created.map_or_else(|| "N/A".to_owned(), host::rfc3339),
            "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |time| host::ago(time, host::now())),
            "CreatedBy": if arguments.no_trunc { by } else { cut(&by, 45) },
            "Size": if arguments.human { host::size(size) } else { size.to_string() },
            "Comment": step.comment.clone().unwrap_or_default(),
        }));
    }
    rows.reverse();
    let id = if arguments.no_trunc { image.id().as_str() } else { image.id().short() };
    if let Some(first) = rows.first_mut() {
        first["ID"] = Value::from(id);
    }
    rows
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
