//! `images`: what is in the store.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use hull_image::{Digest, Image, Platform, Store, Tagged};
use serde_json::{Value, json};

use super::{Outcome, table};
use crate::host;

/// Arguments of `images`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this repository, or this name with its tag
    repository: Option<String>,
    /// Accepted: there are no intermediate images here
    #[arg(short, long)]
    all: bool,
    /// Show manifest digests
    #[arg(long)]
    digests: bool,
    /// dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME or reference=PATTERN
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template for each image, `table TEMPLATE`, or json
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the platforms of each image below it
    #[arg(long)]
    tree: bool,
}

/// An image as the list shows it.
struct Row {
    tagged: Tagged,
    image: Image,
    created: i64,
    size: u64,
}

/// Lists images, newest first.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let mut rows = rows(&store)?;
    for filter in &arguments.filter {
        apply(&store, filter, &mut rows)?;
    }
    if let Some(wanted) = &arguments.repository {
        rows.retain(|row| row.tagged.reference.as_ref().is_some_and(|name| pattern_fits(wanted, name)));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    let shared = shared_sizes(&rows);
    let objects: Vec<Value> = rows.iter().map(|row| object(row, arguments, &shared)).collect();
    print!("{}", shown(arguments, &rows, &objects)?);
    Ok(ExitCode::SUCCESS)
}

fn shown(arguments: &Arguments, rows: &[Row], objects: &[Value]) -> Result<String, String> {
    if let Some(format) = &arguments.format {
        return table::formatted(format, objects);
    }
    let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    if arguments.quiet {
        return Ok(objects.iter().map(|object| text(object, "ID") + "\n").collect());
    }
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if arguments.digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let mut cells = Vec::new();
    for (row, object) in rows.iter().zip(objects) {
        cells.push(columns.iter().map(|(_, key)| text(object, key)).collect());
        if arguments.tree {
            let platform = row.image.config.platform();
            cells.push(vec![
                format!("└─ {platform}"),
                String::new(),
                row.image.descriptor.digest.short().to_owned(),
            ]);
        }
    }
    let full = |mut row: Vec<String>| {
        row.resize(header.len(), String::new());
        row
    };
    Ok(table::table(&header, &cells.into_iter().map(full).collect::<Vec<_>>()))
}

fn rows(store: &Store) -> Result<Vec<Row>, hull_image::Error> {
    let mut rows = Vec::new();
    for tagged in store.images()? {
        // Images of other platforms only, and artifacts, are listed by nobody else either.
        let Ok(image) = store.image(&tagged.descriptor, None).or_else(|_| any_platform(store, &tagged))
        else {
            continue;
        };
        let created = image.config.created.as_deref().and_then(host::parse_rfc3339).unwrap_or(0);
        let size = unpacked_size(store, &image);
        rows.push(Row { tagged, image, created, size });
    }
    Ok(rows)
}

/// An index without an image for this host shows the first one that is there.
fn any_platform(store: &Store, tagged: &Tagged) -> hull_image::Result<Image> {
    let none = || hull_image::Error::NoImage(tagged.descriptor.digest.to_string());
    match store.document(&tagged.descriptor)? {
        hull_image::Document::Index(index) => {
            index.manifests.iter().find_map(|entry| store.image(entry, None).ok()).ok_or_else(none)
        }
        hull_image::Document::Manifest(_) => Err(none()),
    }
}

/// Bytes of all files, as far as layers are unpacked; else of the compressed layers.
pub(crate) fn unpacked_size(store: &Store, image: &Image) -> u64 {
    layer_sizes(store, image).iter().map(|(_, size)| size).sum()
}

/// The size of each layer, base first: unpacked where it is, else compressed.
pub(crate) fn layer_sizes(store: &Store, image: &Image) -> Vec<(Digest, u64)> {
    let ids = &image.config.rootfs.diff_ids;
    let size = |(index, layer): (usize, &hull_image::Descriptor)| {
        (ids[index].clone(), store.layer_size(ids, index).unwrap_or(layer.size))
    };
    image.manifest.layers.iter().enumerate().map(size).collect()
}

/// How many of the listed images have each layer.
fn shared_sizes(rows: &[Row]) -> BTreeMap<Digest, usize> {
    let mut count = BTreeMap::new();
    let mut seen = Vec::new();
    for row in rows {
        if seen.contains(&row.image.id()) {
            continue;
        }
        seen.push(row.image.id());
        for id in &row.image.config.rootfs.diff_ids {
            *count.entry(id.clone()).or_insert(0) += 1;
        }
    }
    count
}

fn object(row: &Row, arguments: &Arguments, shared: &BTreeMap<Digest, usize>) -> Value {
    let id = row.image.id();
    let none = || "<none>".to_owned();
    let name = row.tagged.reference.as_ref();
    let is_shared = |id: &&Digest| shared.get(*id).is_some_and(|count| *count > 1);
    let common = row.image.config.rootfs.diff_ids.iter().filter(is_shared).count();
    json!({
        "Repository": name.map_or_else(none, hull_image::Reference::familiar_name),
        "Tag": name.and_then(|name| name.tag.clone()).unwrap_or_else(none),
        "Digest": row.tagged.descriptor.digest.to_string(),
        "ID": if arguments.no_trunc { id.to_string() } else { id.short().to_owned() },
        "CreatedAt": host::rfc3339(row.created),
        "CreatedSince": host::ago(row.created, host::now()),
        "Size": host::size(row.size),
        "VirtualSize": host::size(row.size),
        "SharedLayers": common.to_string(),
        "Containers": "N/A",
        "Platform": row.image.config.platform().to_string(),
    })
}

fn apply(store: &Store, filter: &str, rows: &mut Vec<Row>) -> Result<(), String> {
    let (key, value) = filter.split_once('=').ok_or_else(|| format!("filter {filter:?} is not KEY=VALUE"))?;
    let created = |name: &str| {
        let image = host::find_image(store, name, None::<&Platform>).map_err(|e| e.to_string())?.1;
        Ok::<i64, String>(image.config.created.as_deref().and_then(host::parse_rfc3339).unwrap_or(0))
    };
    match key {
        "dangling" => {
            let wanted = match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(format!("filter dangling={value} is neither true nor false")),
            };
            rows.retain(|row| row.tagged.reference.is_none() == wanted);
        }
        "label" => rows.retain(|row| label_fits(&row.image, value)),
        "before" => {
            let limit = created(value)?;
            rows.retain(|row| row.created < limit);
        }
        "since" => {
            let limit = created(value)?;
            rows.retain(|row| row.created > limit);
        }
        "until" => {
            let limit = moment(value)?;
            rows.retain(|row| row.created < limit);
        }
        "reference" => {
            rows.retain(|row| row.tagged.reference.as_ref().is_some_and(|name| pattern_fits(value, name)));
        }
        _ => {
            return Err(format!(
                "filter {key} is not known: dangling, label, before, since, until, reference"
            ));
        }
    }
    Ok(())
}

/// True when the image has a label `KEY`, or `KEY=VALUE`.
pub(crate) fn label_fits(image: &Image, wanted: &str) -> bool {
    let labels = &image.config.config.labels;
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

/// A moment: RFC 3339, seconds since 1970, or a span before now such as `24h`.
pub(crate) fn moment(text: &str) -> Result<i64, String> {
    let spans = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    for (unit, length) in spans {
        if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<i64>().ok()) {
            return Ok(host::now().saturating_sub(count.saturating_mul(length)));
        }
    }
    host::parse_rfc3339(text).ok_or_else(|| format!("{text:?} is neither a moment nor a span such as 24h"))
}

/// A repository, a name with its tag, or a pattern with `*` and `?` that stop at slashes.
fn pattern_fits(pattern: &str, name: &hull_image::Reference) -> bool {
    let names = [name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    names.iter().any(|name| glob_fits(pattern.as_bytes(), name.as_bytes()))
}

fn glob_fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob_fits(&pattern[1..], text)
                || text.first().is_some_and(|c| *c != b'/') && glob_fits(pattern, &text[1..])
        }
        (Some(b'?'), Some(c)) => *c != b'/' && glob_fits(&pattern[1..], &text[1..]),
        (Some(wanted), Some(found)) => wanted == found && glob_fits(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, name, fits) in [
            ("busybox", "busybox:1", true),
            ("busybox:1", "busybox:1", true),
            ("busy*", "busybox:1", true),
            ("busy*:2", "busybox:1", false),
            ("*", "a/b:1", false),
            ("a/*", "a/b:1", true),
            ("*/b:?", "a/b:1", true),
            ("docker.io/library/busybox", "busybox:1", true),
        ] {
            assert_eq!(pattern_fits(pattern, &name.parse().unwrap()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn moments_are_given_in_three_ways() {
        assert_eq!(moment("12").unwrap(), 12);
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap(), 60);
        assert!((host::now() - 3600 - moment("1h").unwrap()).abs() <= 2);
        assert!(moment("soon").is_err());
        // Longer ago than anything, and not to come.
        assert!(moment("9223372036854775807h").unwrap() < 0);
    }
}
