//! Where a finished image goes: the store has it; files and archives when asked for.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use hull_image::{Image, Reference, Store, Tagged};
use hull_layer::{Devices, Extractor, Limits, Owners, TarWriter, TimeRule, Whiteouts};
use serde_json::json;

use super::describe::Built;
use super::{epoch, options};
use crate::commands::build::Arguments;
use crate::commands::whole_file::write_whole;
use crate::commands::{pull, save};
use crate::directory::open_directory;
use crate::error::chain;
use crate::error::{Error, Result};
use crate::host;
use crate::registry;
use crate::snapshot;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Output {
    /// The store, which has it anyway.
    Store,
    /// A registry: under these names, or those of the build.
    Push(Vec<String>),
    /// An archive that is an image layout and Docker's format at once; `-` is standard output.
    Archive(PathBuf),
    /// An image layout in a directory.
    Layout(PathBuf),
    /// The files of the image as an archive.
    Tar(PathBuf),
    /// The files of the image in a directory.
    Local(PathBuf),
}

/// The names that the image gets, each once: those of `-t`, and of outputs that are not only a push.
pub(crate) fn own_names(arguments: &Arguments) -> Result<Vec<Reference>> {
    let is_own = |text: &&String| Output::parse(text).is_ok_and(|output| !matches!(output, Output::Push(_)));
    let more = arguments.output.iter().filter(|text| text.contains('=')).filter(is_own);
    let all = arguments.tag.iter().cloned().chain(more.flat_map(|text| names(text)));
    let one = |name: String| {
        let reference: Reference = name.parse()?;
        match reference.digest {
            Some(_) => {
                Err(Error::fact(format!("an image that is built can't have a digest in its name: {name}")))
            }
            None => Ok(reference),
        }
    };
    let mut found = Vec::new();
    for name in all {
        let reference = one(name)?;
        if !found.contains(&reference) {
            found.push(reference);
        }
    }
    Ok(found)
}

/// Refuses an `--output` that can't be written and a name that can't be given, before anything is built.
pub(crate) fn check(arguments: &Arguments) -> Result<()> {
    let outputs = arguments.output.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>>>()?;
    let to_stdout = outputs.iter().filter(|output| output.is_stdout()).count();
    if to_stdout > 1 {
        let text =
            format!("{to_stdout} outputs are for standard output: name a file with dest= for all but one");
        return Err(Error::fact(text));
    }
    if to_stdout > 0 && io::stdout().is_terminal() {
        return Err(Error::fact("an archive is not for a terminal: name a file with dest= or redirect"));
    }
    let pushed = outputs.iter().any(|output| *output == Output::Push(Vec::new()));
    if (pushed || arguments.accepted.push) && own_names(arguments)?.is_empty() {
        return Err(Error::fact("to push, the image needs a name: -t REGISTRY/NAME"));
    }
    for name in
        outputs.iter().flat_map(|output| if let Output::Push(names) = output { &names[..] } else { &[] })
    {
        name.parse::<Reference>()?;
    }
    own_names(arguments).map(drop)
}

/// What sends large layers while they are written, if the image is to be pushed: to the first place that it goes to.
///
/// Not where a build is looked over once it is done, and pushed only if nothing is found.
pub(crate) fn ahead(arguments: &Arguments) -> Option<registry::Ahead> {
    if arguments.audit_secrets || arguments.verify_reproducible {
        return None;
    }
    let names = pushes(arguments).into_iter().next()?;
    // A name that is none is told of when the image gets it.
    let first = match names.first() {
        Some(name) => name.parse().ok()?,
        None => own_names(arguments).ok()?.into_iter().next()?,
    };
    Some(registry::Ahead::new(first, options::registry(arguments).ok()?))
}

/// The names of each push that is asked for; without one, those of the image are meant.
fn pushes(arguments: &Arguments) -> Vec<Vec<String>> {
    let outputs = arguments.output.iter().filter_map(|text| Output::parse(text).ok());
    let pushed =
        outputs.filter_map(|output| if let Output::Push(names) = output { Some(names) } else { None });
    pushed.chain(arguments.accepted.push.then(Vec::new)).collect()
}

/// The registries that the image goes to, or would by its names if it is not pushed.
pub(crate) fn registries(arguments: &Arguments) -> BTreeSet<String> {
    let mut pushes = pushes(arguments);
    if pushes.is_empty() {
        pushes.push(Vec::new());
    }
    // A name that is none is refused before anything is asked of a registry.
    let references = |names: Vec<String>| match names.is_empty() {
        true => own_names(arguments).unwrap_or_default(),
        false => names.iter().filter_map(|name| name.parse().ok()).collect(),
    };
    pushes.into_iter().flat_map(references).map(|reference| reference.registry).collect()
}

/// Writes everything that the command line asks for, and tells the image's id.
pub(crate) fn hand_over(
    arguments: &Arguments,
    store: &Store,
    built: &Built,
    ahead: Option<&registry::Ahead>,
) -> Result<()> {
    let mut to_stdout = false;
    for text in &arguments.output {
        let output = Output::parse(text)?;
        to_stdout |= output.is_stdout();
        match output {
            Output::Push(names) => push(arguments, store, built, (&names, ahead))?,
            output => output.write(store, built, epoch::epoch(arguments))?,
        }
    }
    if arguments.accepted.push {
        push(arguments, store, built, (&[], ahead))?;
    }
    let id = built.config.digest.to_string();
    if let Some(path) = &arguments.iidfile {
        write(path, id.as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        let names: Vec<String> = built.names.iter().map(ToString::to_string).collect();
        let metadata = json!({
            "containerimage.config.digest": id,
            "containerimage.digest": built.manifest.digest.to_string(),
            "containerimage.descriptor": built.manifest,
            "image.name": names.join(","),
        });
        write(path, &hull_image::canonical(&metadata))?;
    }
    if to_stdout {
        eprintln!("{id}");
    } else {
        println!("{id}");
    }
    Ok(())
}

impl Output {
    fn parse(text: &str) -> Result<Self> {
        if !text.contains('=') {
            return Ok(if text == "-" { Self::Tar(text.into()) } else { Self::Local(text.into()) });
        }
        let field = |name: &str| {
            text.split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let place = || {
            let place = field("dest").or_else(|| field("destination")).map(PathBuf::from);
            place.ok_or_else(|| Error::fact(format!("--output {text} has no dest")))
        };
        // An archive that has no place goes to standard output.
        let stream = || place().unwrap_or_else(|_| "-".into());
        match field("type").as_deref() {
            Some("registry") => Ok(Self::Push(names(text))),
            Some("image") if field("push").as_deref() == Some("true") => Ok(Self::Push(names(text))),
            Some("image" | "cacheonly" | "none") => Ok(Self::Store),
            Some("docker") if field("dest").is_none() => Ok(Self::Store),
            Some("oci") if field("tar").as_deref() == Some("false") => Ok(Self::Layout(place()?)),
            Some("oci" | "docker") => Ok(Self::Archive(stream())),
            Some("tar") => Ok(Self::Tar(stream())),
            Some("local") => Ok(Self::Local(place()?)),
            Some(other) => Err(Error::fact(format!(
                "unknown output \"{other}\": oci, docker, tar, local, image, registry or cacheonly"
            ))),
            None => Err(Error::fact(format!("--output {text} has no type"))),
        }
    }

    fn is_stdout(&self) -> bool {
        matches!(self, Self::Archive(path) | Self::Tar(path) if path.as_os_str() == "-")
    }

    fn write(&self, store: &Store, built: &Built, epoch: u64) -> Result<()> {
        let image = store.image(&built.manifest, None)?;
        let times = TimeRule::Clamp(epoch.try_into().unwrap_or(i64::MAX));
        match self {
            Self::Store | Self::Push(_) => Ok(()),
            Self::Archive(path) => {
                save::archive(store, &tagged(built), path).map_err(|e| Error::fact(chain(e.as_ref())))
            }
            Self::Layout(path) => layout(store, &image, built, path),
            Self::Local(path) => {
                fs::create_dir_all(path).map_err(Error::io("make directory", path))?;
                local(store, &image, open_directory(path)?.as_fd())
            }
            Self::Tar(path) if path.as_os_str() == "-" => files(store, &image, times, io::stdout().lock()),
            Self::Tar(path) => write_whole(path, |file| files(store, &image, times, file)),
        }
    }
}

/// The image under each of its names, or without any. It is this very one: another may have the same configuration.
fn tagged(built: &Built) -> Vec<Tagged> {
    let entry = |reference| Tagged { reference, descriptor: built.manifest.clone() };
    match built.names.as_slice() {
        [] => vec![entry(None)],
        names => names.iter().cloned().map(Some).map(entry).collect(),
    }
}

/// What `name=` says; a comma in it parts names, as Docker writes it in quotes.
fn names(text: &str) -> Vec<String> {
    let mut fields = text.split(',').skip_while(|field| !field.trim_start_matches('"').starts_with("name="));
    let first = fields.next().map(|field| field.trim_matches('"').trim_start_matches("name=").to_owned());
    let more =
        fields.take_while(|field| !field.contains('=')).map(|field| field.trim_matches('"').to_owned());
    first.into_iter().chain(more).filter(|name| !name.is_empty()).collect()
}

/// Sends the image to where these names are, or those that it has.
fn push(
    arguments: &Arguments,
    store: &Store,
    built: &Built,
    (names, ahead): (&[String], Option<&registry::Ahead>),
) -> Result<()> {
    let given = names.iter().map(|name| name.parse()).collect::<std::result::Result<Vec<Reference>, _>>()?;
    let options = options::registry(arguments)?;
    let image = store.image(&built.manifest, None)?;
    for target in if given.is_empty() { &built.names } else { &given } {
        let from = pull::sources(store, &image, target);
        let sent = registry::push(store, &built.manifest, target, (&from, ahead), &options);
        sent.map_err(|error| Error::fact(format!("push {target}: {}", super::with_causes(&error))))?;
        pull::remember(store, &image, target);
        if !arguments.quiet {
            eprintln!("pushed {target}@{}", built.manifest.digest);
        }
    }
    Ok(())
}

/// The files of an image, all layers applied, as one archive.
fn files(store: &Store, image: &Image, times: TimeRule, sink: impl Write) -> Result<()> {
    let (empty, tree) = (store.temporary_path(), store.temporary_path());
    for path in [&empty, &tree] {
        fs::create_dir(path).map_err(Error::io("make directory", path))?;
    }
    let outcome = (|| {
        let (old, new) = (open_directory(&empty)?, open_directory(&tree)?);
        let unpacker = host::unpacker(store);
        unpacker.apply(image, new.as_fd()).map_err(host::with_hint)?;
        snapshot::tell(unpacker.left_out());
        let changes = hull_layer::diff_trees(old.as_fd(), new.as_fd())?;
        let mut writer = TarWriter::new(io::BufWriter::with_capacity(1 << 20, sink), times);
        hull_layer::pack(&changes, new.as_fd(), &mut writer)?;
        writer.finish()?.flush().map_err(Error::io("write", "the archive"))
    })();
    for path in [&empty, &tree] {
        // What stays behind is collected with the store's temporary files.
        drop(fs::remove_dir_all(path));
    }
    outcome
}

/// The same in a directory, beside what is there: nothing goes but files that the image has, too.
fn local(store: &Store, image: &Image, to: BorrowedFd<'_>) -> Result<()> {
    let is_root = !crate::ids::in_user_namespace();
    let options = Extractor {
        whiteouts: Whiteouts::Refuse,
        devices: if is_root { Devices::Make } else { Devices::Skip },
        owners: if is_root { Owners::Keep } else { Owners::Process },
        keeps_kinds: true,
        // The layers were within theirs.
        limits: Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() },
        ..Extractor::layer()
    };
    let (mut reader, writer) = io::pipe().map_err(Error::io("make a pipe", ""))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| files(store, image, TimeRule::Keep, writer));
        let extracted = hull_layer::extract(&mut reader, to, &options);
        if extracted.is_ok() {
            // What follows the last entry: who packs must be able to write it.
            io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read", "the archive"))?;
        }
        drop(reader);
        let packed = packing.join().expect("packing doesn't panic");
        // When the extraction fails the packing does too, as nobody reads any more.
        extracted?;
        packed
    })
}

/// Copies an image into a layout directory, which is made or added to.
fn layout(store: &Store, image: &Image, built: &Built, path: &Path) -> Result<()> {
    let target = Store::open(path)?;
    for blob in image.manifest.layers.iter().chain([&image.manifest.config, &built.manifest]) {
        if !target.has_blob(blob) {
            target.put_expected_blob(blob, &mut store.blob(blob)?)?;
        }
    }
    match built.names.as_slice() {
        [] => target.put_nameless(&built.manifest)?,
        names => names.iter().try_for_each(|name| target.put_image(name, &built.manifest))?,
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_whole(path, |mut file| file.write_all(content).map_err(Error::io("write", path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_docker_writes_them() {
        let rows = [
            ("out", Some(Output::Local("out".into()))),
            ("-", Some(Output::Tar("-".into()))),
            ("type=oci,dest=a.tar", Some(Output::Archive("a.tar".into()))),
            ("type=docker,dest=-", Some(Output::Archive("-".into()))),
            ("type=docker", Some(Output::Store)),
            ("type=oci,dest=d,tar=false", Some(Output::Layout("d".into()))),
            ("type=tar,dest=f", Some(Output::Tar("f".into()))),
            ("type=local,dest=d", Some(Output::Local("d".into()))),
            ("type=cacheonly", Some(Output::Store)),
            ("type=oci", Some(Output::Archive("-".into()))),
            ("type=tar", Some(Output::Tar("-".into()))),
            ("type=local", None),
            ("type=magic,dest=x", None),
            ("dest=x", None),
            ("type=image,push=true", Some(Output::Push(Vec::new()))),
            ("type=registry,name=h/a:1", Some(Output::Push(vec!["h/a:1".into()]))),
            (
                "type=image,\"name=h/a:1,h/b\",push=true",
                Some(Output::Push(vec!["h/a:1".into(), "h/b".into()])),
            ),
        ];
        for (text, wanted) in rows {
            assert_eq!(Output::parse(text).ok(), wanted, "{text}");
        }
    }
}
