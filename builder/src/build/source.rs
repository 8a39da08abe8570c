//! Where the Dockerfile and the context come from.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hull_image::Store;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::options::ContextKind;
use crate::cache::Cache;
use crate::commands::build::Arguments;
use crate::context::file_cache::FileCache;
use crate::directory::open_directory;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lines::MAX_BYTES;
use crate::error::{Error, Result};
use crate::git::Repository;
use crate::inputs::{Directory, Inputs, ignore_rules};
use crate::pattern::ignore::Ignore;
use crate::steps::place::open_in_root;
use crate::{host, registry};

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
    /// When the context was made, where it tells: seconds since 1970.
    pub(super) time: Option<u64>,
    /// Keeps a context that was no directory of the host.
    unpacked: Option<Unpacked>,
}

/// A directory that is removed at the end, and what it was made from.
pub(crate) struct Unpacked {
    /// In the store's temporary directory.
    directory: PathBuf,
    /// As long as this is held, nobody takes the directory for what a dead process left.
    _store: Store,
    origin: String,
    /// That of the commit, or of the newest entry of an archive.
    time: Option<u64>,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What stays behind is collected with the store's temporary files.
        drop(hull_image::remove(&self.directory));
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
    if let Some(url) = context.to_str().filter(|text| is_remote(text)) {
        return remote_context(arguments, url);
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
            time: None,
            unpacked: None,
        });
    }
    in_directory(arguments, context, None)
}

fn in_directory(arguments: &Arguments, context: PathBuf, unpacked: Option<Unpacked>) -> Result<Source> {
    let (mut file, path) = match &unpacked {
        Some(_) => in_fetched(arguments, &context)?,
        None => {
            let path = arguments.file.clone().map_or_else(|| default_file(&context), Ok)?;
            (fs::File::open(&path).map_err(Error::io("open", &path))?, path)
        }
    };
    let dockerfile = text_of(&mut file, &path.display().to_string())?;
    let name =
        path.file_name().map_or_else(|| "Dockerfile".into(), |name| name.to_string_lossy().into_owned());
    let time = unpacked.as_ref().and_then(|unpacked| unpacked.time);
    Ok(Source { name, dockerfile, path: Some(path), context: Some(context), time, unpacked })
}

/// What a Dockerfile is called when nobody says.
const NAMES: [&str; 3] = ["Dockerfile", "Containerfile", "dockerfile"];

fn default_file(context: &Path) -> Result<PathBuf> {
    let found = NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| no_dockerfile(context))
}

fn no_dockerfile(context: &Path) -> Error {
    Error::fact(format!("there is no Dockerfile in {}", context.display()))
}

/// The Dockerfile of a context that came from elsewhere: named from its root, and never a file of the host, wherever
/// links of the context lead (CVE-2020-10696).
fn in_fetched(arguments: &Arguments, context: &Path) -> Result<(fs::File, PathBuf)> {
    let root = open_directory(context)?;
    let given = arguments.file.as_deref();
    let names = given.map_or_else(|| NAMES.map(Path::new).to_vec(), |file| vec![file]);
    for name in names {
        let path = context.join(name.strip_prefix("/").unwrap_or(name));
        let opened = open_in_root(&root, name.as_os_str().as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK);
        match opened.map(fs::File::from) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => return Ok((file, path)),
            Ok(_) => return Err(Error::fact(format!("{} is not a regular file", path.display()))),
            Err(Errno::NOENT) if given.is_none() => {}
            Err(errno) => return Err(Error::io("open", path)(errno.into())),
        }
    }
    Err(no_dockerfile(context))
}

/// An archive with everything, or the text of a Dockerfile that needs no context.
fn stdin_context(arguments: &Arguments) -> Result<Source> {
    let mut head = Vec::new();
    let mut stdin = std::io::stdin();
    (&mut stdin).take(512).read_to_end(&mut head).map_err(Error::io("read", "-"))?;
    let is_archive = is_archive(&head);
    let mut whole = std::io::Cursor::new(head).chain(stdin);
    if is_archive {
        let unpacked = Unpacked::archive("-", whole)?;
        return in_directory(arguments, unpacked.directory.clone(), Some(unpacked));
    }
    let dockerfile = text_of(&mut whole, "-")?;
    Ok(Source { name: "-".into(), dockerfile, path: None, context: None, time: None, unpacked: None })
}

/// A repository, an archive or a Dockerfile from elsewhere.
fn remote_context(arguments: &Arguments, url: &str) -> Result<Source> {
    if Repository::is_meant(url) {
        let (unpacked, context) = Unpacked::repository(arguments, url)?;
        return in_directory(arguments, context, Some(unpacked));
    }
    let Fetched { mut file, is_archive, changed: time } = fetched(url)?;
    if is_archive {
        let mut unpacked = Unpacked::archive(url, file)?;
        // The server knows better than the entries.
        unpacked.time = time.or(unpacked.time);
        return in_directory(arguments, unpacked.directory.clone(), Some(unpacked));
    }
    let name = registry::redacted(url);
    let dockerfile = text_of(&mut file, &name)?;
    Ok(Source { name, dockerfile, path: None, context: None, time, unpacked: None })
}

/// What a URL gives.
struct Fetched {
    /// Has no name.
    file: fs::File,
    is_archive: bool,
    /// When the server says that it last changed: seconds since 1970.
    changed: Option<u64>,
}

fn fetched(url: &str) -> Result<Fetched> {
    use std::io::Seek;
    let temporary = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = rustix::fs::open(&temporary, flags, mode)
        .map(fs::File::from)
        .map_err(|errno| Error::io("make a temporary file in", &temporary)(errno.into()))?;
    let downloaded = crate::steps::add::download(url, &mut file)?;
    let mut head = Vec::new();
    let failed = || Error::io("read", registry::redacted(url));
    file.rewind().map_err(failed())?;
    (&mut file).take(512).read_to_end(&mut head).map_err(failed())?;
    file.rewind().map_err(failed())?;
    Ok(Fetched { file, is_archive: is_archive(&head), changed: downloaded.changed })
}

fn is_archive(head: &[u8]) -> bool {
    let compressed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh", b"\xfd7zXZ\0"];
    compressed.iter().any(|magic| head.starts_with(magic)) || head.len() == 512 && head[257..262] == *b"ustar"
}

impl Unpacked {
    /// A new directory that only this user sees.
    fn make(origin: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let store = host::open_store()?;
        let directory = store.temporary_path();
        let made = fs::DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(Error::io("make directory", &directory))?;
        Ok(Self { directory, _store: store, origin: origin.to_owned(), time: None })
    }

    fn archive(origin: &str, archive: impl Read) -> Result<Self> {
        use std::os::fd::AsFd;
        let mut unpacked = Self::make(origin)?;
        // Owners of a context don't count, so nothing is told of those that are not to be had.
        let options = hull_layer::Extractor::archive();
        let root = open_directory(&unpacked.directory)?;
        let archive = hull_layer::Decompressor::archive(archive, 200)?;
        let done = hull_layer::extract(archive, root.as_fd(), &options)?;
        unpacked.time = done.newest.and_then(|newest| newest.try_into().ok());
        Ok(unpacked)
    }

    /// Checks a repository out; the directory of it that is meant.
    fn repository(arguments: &Arguments, url: &str) -> Result<(Self, PathBuf)> {
        let repository = Repository::parse(url)?;
        let mut unpacked = Self::make(&repository.to_string())?;
        let agent = super::options::agent(arguments)?;
        let keep = super::options::build_args(arguments)?
            .get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
            .is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        let commit = repository.resolve(agent.as_deref())?;
        let place = unpacked.directory.join("checkout");
        let found = repository.check_out(&commit, &place, keep, agent.as_deref())?;
        unpacked.time = found.time;
        Ok((unpacked, found.directory))
    }

    /// A context by name from a URL: a repository or an archive.
    fn named(arguments: &Arguments, url: &str) -> Result<(Self, PathBuf)> {
        if Repository::is_meant(url) {
            return Self::repository(arguments, url);
        }
        let Fetched { file, is_archive, .. } = fetched(url)?;
        if !is_archive {
            return Err(Error::fact(format!("the context {} is no archive", registry::redacted(url))));
        }
        let unpacked = Self::archive(url, file)?;
        let directory = unpacked.directory.clone();
        Ok((unpacked, directory))
    }
}

fn text_of(from: &mut dyn Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", name))?;
    String::from_utf8(bytes).map_err(|_| Error::fact(format!("{name} is not UTF-8 text")))
}

/// Whether a context is fetched: a URL, or a repository.
pub(crate) fn is_remote(text: &str) -> bool {
    ["http://", "https://"].iter().any(|start| text.starts_with(start)) || Repository::is_meant(text)
}

/// Opens the context and the directories given by name.
pub(crate) fn open_directories(
    arguments: &Arguments,
    source: &Source,
    cache: &Cache<'_>,
    inputs: &mut Inputs,
) -> Result<()> {
    if let Some(context) = &source.context {
        let ignore = source.ignore_rules(arguments, context)?;
        inputs.context = Some(open(context, ignore, cache)?);
    }
    for given in &arguments.build_context {
        let (name, value) = super::options::named_context(given)?;
        let path = match super::options::context_kind(value)? {
            ContextKind::Image => continue,
            ContextKind::Directory => PathBuf::from(value),
            ContextKind::Remote => {
                let (unpacked, directory) = Unpacked::named(arguments, value)?;
                inputs.unpacked.push(unpacked);
                directory
            }
        };
        let ignore = ignore_rules(&[path.join(".dockerignore")], Some(&path))?;
        inputs.directories.insert(name, open(&path, ignore, cache)?);
    }
    Ok(())
}

fn open(path: &Path, ignore: Ignore, cache: &Cache<'_>) -> Result<Directory> {
    let real = fs::canonicalize(path).map_err(Error::io("resolve", path))?;
    Directory::open(&real, ignore, FileCache::open(&cache.file_cache(&real)))
}

impl Source {
    /// The ignore rules of the context, if there is one.
    pub(crate) fn ignore(&self, arguments: &Arguments) -> Result<Option<Ignore>> {
        self.context.as_ref().map(|context| self.ignore_rules(arguments, context)).transpose()
    }

    fn ignore_rules(&self, arguments: &Arguments, context: &Path) -> Result<Ignore> {
        let within = arguments.ignorefile.is_none().then_some(context);
        ignore_rules(&self.ignore_files(arguments, context), within)
    }

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
        if let Some(unpacked) = &self.unpacked {
            return format!("{} {}", unpacked.origin, self.name);
        }
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
