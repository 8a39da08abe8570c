//! `import`: an archive of files becomes an image of one layer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::Args;
use hull_image::{Hasher, History, ImageConfig, Manifest, Platform, Reference, Store};
use hull_layer::{Compressor, Decompressor, Encoding};

use super::{Outcome, change};
use crate::host;

/// Arguments of `import`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A file, or - for standard input
    source: String,
    /// Name of the image
    reference: Option<Reference>,
    /// Apply a Dockerfile instruction to the configuration
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the history
    #[arg(short, long, default_value = "")]
    message: String,
    /// Platform of the image
    #[arg(long)]
    platform: Option<Platform>,
}

/// Stores the archive as a layer, and prints the image's id.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let source: Box<dyn Read> = match arguments.source.as_str() {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(File::open(path).map_err(|e| format!("open {path}: {e}"))?),
    };
    let (diff_id, layer) = store_layer(&store, source)?;
    let platform = arguments.platform.clone().unwrap_or_else(Platform::host);
    let created = host::rfc3339(change::epoch()?);
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        created: Some(created.clone()),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids.push(diff_id);
    let comment = if arguments.message.is_empty() {
        format!("Imported from {}", arguments.source)
    } else {
        arguments.message.clone()
    };
    config.history.push(History { created: Some(created), comment: Some(comment), ..History::default() });
    for instruction in &arguments.change {
        change::apply(&mut config.config, instruction)?;
    }
    let config_descriptor = store.put_config(&config)?;
    let id = config_descriptor.digest.clone();
    let manifest = store.put_manifest(&Manifest::new(config_descriptor, vec![layer]), Some(platform))?;
    match &arguments.reference {
        Some(reference) => store.put_image(reference, &manifest)?,
        None => store.put_nameless(&manifest)?,
    }
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}

/// Compresses what the source holds; the bytes of the archive stay as they are.
fn store_layer(
    store: &Store,
    source: impl Read,
) -> Result<(hull_image::Digest, hull_image::Descriptor), Box<dyn std::error::Error>> {
    let mut archive = Decompressor::archive(source, 0)?;
    let mut sink = Compressor::new(store.blob_writer()?, Encoding::DEFAULT)?;
    let mut hasher = Hasher::new();
    // A pipe may give less than a header at once.
    let mut head = Vec::new();
    archive.by_ref().take(512).read_to_end(&mut head)?;
    if !looks_like_tar(&head) {
        return Err("import: the source is no tar archive".into());
    }
    let mut all = io::Cursor::new(head).chain(archive);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = all.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        sink.write_all(&buffer[..count])?;
    }
    let layer = sink.finish()?.finish(Encoding::DEFAULT.media_type())?;
    Ok((hasher.finish(), layer))
}

/// The magic of ustar and GNU, or an empty archive.
fn looks_like_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
        || start.get(..512).is_some_and(|block| block.iter().all(|b| *b == 0))
}
