//! `inspect`: everything known of an image, in Docker's words.

use std::process::ExitCode;

use clap::Args;
use hull_image::{Image, Platform, Store, Tagged, canonical};
use serde_json::{Map, Value, json};

use super::template::Template;
use super::{Outcome, images};
use crate::host;

/// Arguments of `inspect`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids of images
    #[arg(required = true)]
    names: Vec<String>,
    /// A template for each, or json
    #[arg(short, long)]
    format: Option<String>,
    /// The platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
    /// Accepted: sizes are always shown
    #[arg(short, long)]
    size: bool,
    /// image is all there is
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

/// Prints images; every one that is there, and fails if any is not.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if let Some(kind) = arguments.kind.as_deref().filter(|kind| *kind != "image") {
        return Err(format!("inspect: type {kind} is not known here: image").into());
    }
    let store = host::open_store()?;
    let mut objects = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.names {
        match host::find_image(&store, name, arguments.platform.as_ref()) {
            Ok((tagged, image)) => objects.push(object(&store, &tagged, &image)?),
            Err(error) => {
                eprintln!("hull-build: inspect: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    match arguments.format.as_deref() {
        None => println!("{}", serde_json::to_string_pretty(&objects)?),
        Some("json") => println!("{}", serde_json::to_string(&objects)?),
        Some(text) => {
            let template = Template::parse(text)?;
            for object in &objects {
                println!("{}", template.render(object)?);
            }
        }
    }
    Ok(code)
}

fn object(store: &Store, tagged: &Tagged, image: &Image) -> Result<Value, hull_image::Error> {
    let all = store.images()?;
    let same = all.iter().filter(|other| other.descriptor.digest == tagged.descriptor.digest);
    let names: Vec<_> = same.filter_map(|other| other.reference.as_ref()).collect();
    let digests = names.iter().map(|name| format!("{}@{}", name.familiar_name(), tagged.descriptor.digest));
    let mut digests: Vec<String> = digests.collect();
    digests.dedup();
    let config = &image.config;
    let ids = &config.rootfs.diff_ids;
    let comment = config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default();
    Ok(json!({
        "Id": image.id(),
        "RepoTags": names.iter().map(|name| name.familiar()).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": config.created.clone().unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Config": run_config(image),
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": images::unpacked_size(store, image),
        "GraphDriver": graph_driver(store, ids),
        "RootFS": {"Type": "layers", "Layers": ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Descriptor": image.descriptor,
        "History": config.history,
    }))
}

/// The configuration with every field that Docker always shows.
fn run_config(image: &Image) -> Value {
    let own: Map<String, Value> =
        serde_json::from_slice(&canonical(&image.config.config)).unwrap_or_default();
    let mut config = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "WorkingDir": "", "Labels": null,
        "Volumes": null, "ExposedPorts": null, "OnBuild": null,
    });
    if let Value::Object(fields) = &mut config {
        fields.extend(own);
    }
    config
}

fn graph_driver(store: &Store, ids: &[hull_image::Digest]) -> Value {
    let layers = store.snapshot(ids).map(|snapshot| snapshot.layers).unwrap_or_default();
    let lower: Vec<String> = layers.iter().rev().map(|path| path.display().to_string()).collect();
    json!({"Name": "overlay", "Data": {"LowerDir": lower.join(":")}})
}
