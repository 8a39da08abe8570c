//! Which CRIU, and what it can do here.

use super::messages::{FEATURE_CHECK, Features, Request, Response, VERSION};
use super::worker::{Start, Streams, Worker};
use crate::errand::{self, DEFAULT_PATH};
use crate::error::{Code, Error, Result};
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// 3.15: external pid namespaces, and the notification that the page server is ready.
const OLDEST: (i32, i32) = (3, 15);

/// How long a question without effect may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A CRIU that works here.
#[derive(Debug)]
pub struct Criu {
    path: PathBuf,
    version: String,
}

impl Criu {
    /// Takes the program at `given`, or the first one in `PATH`, and asks it for its version: one that does not work on
    /// this kernel ends right then.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => in_path()?,
        };
        let mut criu = Self { path, version: String::new() };
        let answer = criu.ask(Request { kind: VERSION, ..Request::default() })?;
        let version = answer.version.ok_or_else(|| criu.unclear("it gave no version"))?;
        let sublevel = version.sublevel.map_or_else(String::new, |sublevel| format!(".{sublevel}"));
        criu.version = format!("{}.{}{sublevel}", version.major, version.minor);
        if (version.major, version.minor) < OLDEST {
            return Err(Error::new(Code::Criu, format!("criu {} is too old", criu.version))
                .object(criu.path.display().to_string())
                .hint(format!("{}.{} is the oldest one that has what is needed", OLDEST.0, OLDEST.1)));
        }
        Ok(criu)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, for the log.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What of `wanted` this build can do on this kernel.
    pub fn features(&self, wanted: Features) -> Result<Features> {
        let answer =
            self.ask(Request { kind: FEATURE_CHECK, features: Some(wanted), ..Request::default() })?;
        answer.features.ok_or_else(|| self.unclear("it did not say what it can do"))
    }

    /// One question without effect.
    fn ask(&self, request: Request) -> Result<Response> {
        let start = Start { program: &self.path, streams: Streams::Caught, inherited: &[], prepare: None };
        let worker = Worker::start(start)?;
        worker.send(&request)?;
        let answer = worker
            .hear(Some(Instant::now() + DEADLINE))
            .map_err(|error| self.cannot_start(error, &worker))?;
        if answer.response.success {
            return Ok(answer.response);
        }
        Err(self.unclear(answer.response.message.as_deref().unwrap_or("it refused to answer")))
    }

    fn unclear(&self, why: &str) -> Error {
        Error::new(Code::Criu, format!("criu at {}: {why}", self.path.display()))
            .object(self.path.display().to_string())
    }

    /// It ended without an answer: what it wrote last says why.
    fn cannot_start(&self, error: Error, worker: &Worker) -> Error {
        let said = worker.said();
        let said = if said.is_empty() { error.message } else { said };
        self.unclear(&format!("it does not work on this kernel: {said}"))
            .hint("a newer kernel needs a newer criu: 'criu check' says what is missing")
    }
}

fn in_path() -> Result<PathBuf> {
    errand::in_path("criu").ok_or_else(|| {
        Error::new(Code::Criu, "criu: executable file not found in $PATH")
            .object("criu")
            .hint("install criu (3.15 or newer), or name it by --criu")
    })
}

/// What of our environment CRIU gets: where its tools are, where its configuration is, and its own variables.
pub fn environment() -> Vec<CString> {
    let ours =
        |name: &OsString| name == "PATH" || name == "HOME" || name.as_encoded_bytes().starts_with(b"CRIU_");
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| ours(name)).collect();
    if !variables.iter().any(|(name, _)| name == "PATH") {
        variables.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    // No variable of an environment can hold a NUL byte.
    variables.into_iter().filter_map(|(name, value)| CString::new(errand::entry(name, value)).ok()).collect()
}
