//! Where the Dockerfile and the context come from.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cache::Cache;
use crate::commands::build::Arguments;
use crate::context::file_cache::FileCache;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lines::MAX_BYTES;
use crate::error::{Error, Result};
use crate::inputs::{Directory, Inputs, ignore_rules};
use crate::pattern::ignore::Ignore;

/// The Dockerfile's text and the places it belongs to.
pub(crate) struct Source {
    /// What people call it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) dockerfile: String,
    /// Its path, if it has one.
    path: Option<PathBuf>,
    /// The context directory, if there is one.
    pub(crate) context: Option<PathBuf>,
    /// Keeps a context that came through standard input.
    _unpacked: Option<Unpacked>,
}

/// A directory that is removed at the end.
struct Unpacked(PathBuf);

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What stays behind lies in the system's own temporary directory.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Reads the Dockerfile that the command line means.
pub(crate) fn read(arguments: &Arguments) -> Result<Source> {
    let context =
        arguments.context.clone().ok_or_else(|| Error::fact("the context is missing: a directory, or -"))?;
    let from_stdin = arguments.file.as_deref() == Some(Path::new("-"));
    if context.as_os_str() == "-" {
        if from_stdin {
            return Err(Error::fact("standard input can't be both the Dockerfile and the context"));
        }
        return stdin_context(arguments);
    }
    if is_url(&context) {
        return Err(Error::fact(
            "a context from a URL is not supported yet: fetch it and give its directory",
        ));
    }
    if !context.is_dir() {
        return Err(Error::fact(format!("the context {} is not a directory", context.display())));
    }
    if from_stdin {
        let dockerfile = text_of(&mut std::io::stdin(), "-")?;
        return Ok(Source {
            name: "-".into(),
            dockerfile,
            path: None,
            context: Some(context),
            _unpacked: None,
        });
    }
    in_directory(arguments, context, None)
}

fn in_directory(arguments: &Arguments, context: PathBuf, unpacked: Option<Unpacked>) -> Result<Source> {
    let path = match (&arguments.file, &unpacked) {
        // In an archive, the file is named from its root.
        (Some(file), Some(_)) => context.join(file.strip_prefix("/").unwrap_or(file)),
        (Some(file), None) => file.clone(),
        (None, _) => default_file(&context)?,
    };
    let mut file = fs::File::open(&path).map_err(Error::io("open", &path))?;
    let dockerfile = text_of(&mut file, &path.display().to_string())?;
    let name =
        path.file_name().map_or_else(|| "Dockerfile".into(), |name| name.to_string_lossy().into_owned());
    Ok(Source { name, dockerfile, path: Some(path), context: Some(context), _unpacked: unpacked })
}

fn default_file(context: &Path) -> Result<PathBuf> {
    let names = ["Dockerfile", "Containerfile", "dockerfile"];
    let found = names.iter().map(|name| context.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::fact(format!("there is no Dockerfile in {}", context.display())))
}

/// An archive with everything, or the text of a Dockerfile that needs no context.
fn stdin_context(arguments: &Arguments) -> Result<Source> {
    let mut head = Vec::new();
    let mut stdin = std::io::stdin();
    (&mut stdin).take(512).read_to_end(&mut head).map_err(Error::io("read", "-"))?;
    let is_archive = head.len() == 512
        && (head.starts_with(&[0x1f, 0x8b])
            || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || head[257..262] == *b"ustar");
    let mut whole = std::io::Cursor::new(head).chain(stdin);
    if !is_archive {
        let dockerfile = text_of(&mut whole, "-")?;
        return Ok(Source { name: "-".into(), dockerfile, path: None, context: None, _unpacked: None });
    }
    let directory = std::env::temp_dir().join(format!("hull-build-context-{}", std::process::id()));
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(&directory).map_err(Error::io("make directory", &directory))?;
    let unpacked = Unpacked(directory.clone());
    let options =
        hull_layer::Extractor { whiteouts: hull_layer::Whiteouts::Refuse, ..hull_layer::Extractor::layer() };
    let root = crate::snapshot::open_directory(&directory)?;
    use std::os::fd::AsFd;
    hull_layer::extract(hull_layer::Decompressor::new(whole, 200)?, root.as_fd(), &options)?;
    in_directory(arguments, directory, Some(unpacked))
}

fn text_of(from: &mut dyn Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", name))?;
    String::from_utf8(bytes).map_err(|_| Error::fact(format!("{name} is not UTF-8 text")))
}

fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    ["http://", "https://", "git://", "git@", "ssh://", "github.com/"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// Opens the context and the directories given by name.
pub(crate) fn open_directories(
    arguments: &Arguments,
    source: &Source,
    cache: &Cache<'_>,
    inputs: &mut Inputs,
) -> Result<()> {
    if let Some(context) = &source.context {
        let ignore = ignore_rules(&source.ignore_files(arguments, context))?;
        inputs.context = Some(open(context, ignore, cache)?);
    }
    for given in &arguments.build_context {
        let (name, value) = super::options::named_context(given)?;
        if !value.contains("://") {
            let path = PathBuf::from(value);
            let ignore = ignore_rules(&[path.join(".dockerignore")])?;
            inputs.directories.insert(name.to_owned(), open(&path, ignore, cache)?);
        }
    }
    Ok(())
}

fn open(path: &Path, ignore: Ignore, cache: &Cache<'_>) -> Result<Directory> {
    let real = fs::canonicalize(path).map_err(Error::io("resolve", path))?;
    Directory::open(&real, ignore, FileCache::open(&cache.file_cache(&real)))
}

impl Source {
    fn ignore_files(&self, arguments: &Arguments, context: &Path) -> Vec<PathBuf> {
        if let Some(given) = &arguments.ignorefile {
            return vec![given.clone()];
        }
        let beside = self.path.as_ref().map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        beside.into_iter().chain([context.join(".dockerignore"), context.join(".containerignore")]).collect()
    }

    /// What stays the same from build to build of one thing.
    pub(crate) fn place(&self) -> String {
        let context = self.context.as_ref().and_then(|path| fs::canonicalize(path).ok());
        format!("{} {}", context.unwrap_or_default().display(), self.name)
    }

    /// Shows an error with its excerpt.
    pub(crate) fn complain(&self, error: &Diagnostic) -> ExitCode {
        eprint!("{}", error.render(&self.name, &self.dockerfile));
        ExitCode::FAILURE
    }

    /// Shows findings that are no errors.
    pub(crate) fn warn(&self, warnings: &[Diagnostic]) {
        warnings.iter().for_each(|warning| eprint!("{}", warning.render(&self.name, &self.dockerfile)));
    }

    /// Shows the findings of parser and resolver, in order.
    pub(crate) fn warn_unless_quiet(
        &self,
        arguments: &Arguments,
        parsed: &[Diagnostic],
        resolved: &[Diagnostic],
    ) {
        if arguments.quiet {
            return;
        }
        let mut all = [parsed, resolved].concat();
        all.sort_by_key(|warning| warning.span.first);
        for warning in all {
            let rule = warning.rule.unwrap_or("warning");
            eprintln!("{}:{}: {rule}: {}", self.name, warning.span.first, warning.message);
        }
    }
}
