//! Who we are to a registry: Docker's and podman's files, and credential helpers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Error, Options, Party, Result};
use crate::progress;

const HELPER_DEADLINE: Duration = Duration::from_secs(10);
const MAX_FILE: u64 = 1 << 20;
/// What Docker files its own registry under.
const HUB: &str = "https://index.docker.io/v1/";

/// A text that is never shown: it has no `Display`, and its `Debug` tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Hides a text.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends or stores it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user and what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A password, or a token used as one.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token (Docker's `identitytoken`).
    Identity(Secret),
}

impl Credential {
    /// The value of an `Authorization: Basic` header; none for a refresh token.
    pub(crate) fn basic(&self) -> Option<Secret> {
        match self {
            Self::Password { user, password } => {
                Some(Secret(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())))))
            }
            Self::Identity(_) => None,
        }
    }
}

/// A file of credentials in Docker's format.
pub(crate) struct AuthFile {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// The credential for a registry: the command line's if it is for this one, else of the first file that has one.
///
/// # Errors
/// A helper that fails: asking anonymously instead could send other credentials elsewhere (CVE-2021-41092).
pub(crate) fn find(registry: &str, options: &Options) -> Result<Option<Credential>> {
    if let Some(credential) = options.credential.as_ref().filter(|_| options.party == Party::Named) {
        return Ok(Some(credential.clone()));
    }
    for path in files(options) {
        if let Some(credential) = AuthFile::read(&path)?.get(registry)? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

/// The files that are read: the given one alone, else podman's, then Docker's.
fn files(options: &Options) -> Vec<PathBuf> {
    if let Some(path) = &options.auth_file {
        return vec![path.clone()];
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let runtime = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let podman = variable("REGISTRY_AUTH_FILE").into_iter().chain(runtime);
    let all = podman.chain(docker_file());
    all.filter(|path| path.exists()).collect()
}

/// Docker's file: in `DOCKER_CONFIG`, else `~/.docker`.
pub(crate) fn docker_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let dir = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

impl AuthFile {
    /// Reads a file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Rule(format!("credentials file {}: {reason}", path.display()));
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => {
                let meta = file.metadata().map_err(|e| refuse(e.to_string()))?;
                if !meta.is_file() || meta.len() > MAX_FILE {
                    return Err(refuse("is not a regular file of at most 1 MiB".to_owned()));
                }
                if meta.permissions().mode() & 0o077 != 0 {
                    progress::notice(&format!("{} can be read by others", path.display()));
                }
                file.take(MAX_FILE).read_to_end(&mut text).map_err(|e| refuse(e.to_string()))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => text.extend_from_slice(b"{}"),
            Err(e) => return Err(refuse(e.to_string())),
        }
        // The parser's message could repeat a part of the file: only the place is told.
        let fields =
            serde_json::from_slice(&text).map_err(|e| refuse(format!("line {} is no JSON", e.line())))?;
        Ok(Self { path: path.to_owned(), fields })
    }

    /// The credential for a registry, if the file or a helper it names has one.
    pub(crate) fn get(&self, registry: &str) -> Result<Option<Credential>> {
        let helper = |field: &str| Some(self.fields.get(field)?.get(key(registry))?.as_str()?.to_owned());
        if let Some(helper) = helper("credHelpers") {
            return ask(&helper, key(registry));
        }
        if let Some(entry) = self.entry(registry) {
            if let Some(token) = entry["identitytoken"].as_str().filter(|token| !token.is_empty()) {
                return Ok(Some(Credential::Identity(Secret(token.to_owned()))));
            }
            if let Some(auth) = entry["auth"].as_str().filter(|auth| !auth.is_empty()) {
                return self.decode(auth).map(Some);
            }
        }
        match self.fields.get("credsStore").and_then(Value::as_str) {
            Some(helper) => ask(helper, key(registry)),
            None => Ok(None),
        }
    }

    /// Stores a credential, in the helper the file names or in the file; true for a helper.
    pub(crate) fn put(&mut self, registry: &str, user: &str, password: &Secret) -> Result<bool> {
        if let Some(helper) = self.helper(registry) {
            let text = json!({"ServerURL": key(registry), "Username": user, "Secret": password.reveal()});
            run(&helper, "store", &text.to_string())?;
            return Ok(true);
        }
        let auth = STANDARD.encode(format!("{user}:{}", password.reveal()));
        let auths = self.fields.entry("auths").or_insert_with(|| json!({}));
        auths[key(registry)] = json!({"auth": auth});
        self.write()?;
        Ok(false)
    }

    /// Forgets a credential; true if there was one.
    pub(crate) fn remove(&mut self, registry: &str) -> Result<bool> {
        if let Some(helper) = self.helper(registry) {
            run(&helper, "erase", key(registry))?;
            return Ok(true);
        }
        let auths = self.fields.get_mut("auths").and_then(Value::as_object_mut);
        let gone = auths.is_some_and(|auths| auths.remove(key(registry)).is_some());
        if gone {
            self.write()?;
        }
        Ok(gone)
    }

    fn helper(&self, registry: &str) -> Option<String> {
        let own = self.fields.get("credHelpers").and_then(|all| all.get(key(registry)));
        own.or_else(|| self.fields.get("credsStore"))?.as_str().map(str::to_owned)
    }

    /// The entry filed under the registry's name, with or without scheme and path.
    fn entry(&self, registry: &str) -> Option<&Value> {
        let auths: BTreeMap<&String, &Value> = self.fields.get("auths")?.as_object()?.iter().collect();
        let host = |name: &str| -> String {
            let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
            bare.split('/').next().unwrap_or_default().to_owned()
        };
        let exact = auths.get(&key(registry).to_owned()).copied();
        exact.or_else(|| {
            auths
                .into_iter()
                .find(|(name, _)| !name.contains("docker.io") && host(name) == registry)
                .map(|(_, v)| v)
        })
    }

    fn decode(&self, auth: &str) -> Result<Credential> {
        let refuse = || {
            Error::Rule(format!("credentials file {}: an entry is no user and password", self.path.display()))
        };
        let bytes = STANDARD.decode(auth).map_err(|_| refuse())?;
        let text = String::from_utf8(bytes).map_err(|_| refuse())?;
        let (user, password) = text.split_once(':').ok_or_else(refuse)?;
        let password = Secret(password.trim_end_matches('\0').to_owned());
        Ok(Credential::Password { user: user.to_owned(), password })
    }

    /// Replaces the file by one that only its owner reads.
    fn write(&self) -> Result<()> {
        let refuse = |e: std::io::Error| Error::Rule(format!("write {}: {e}", self.path.display()));
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(refuse)?;
        let temporary = dir.join(format!(".config.json.{}", std::process::id()));
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary).map_err(refuse)?;
        let text = serde_json::to_string_pretty(&self.fields).expect("a JSON tree can always be written");
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&temporary, &self.path)).map_err(refuse)
    }
}

fn key(registry: &str) -> &str {
    if registry == "docker.io" { HUB } else { registry }
}

fn ask(helper: &str, registry: &str) -> Result<Option<Credential>> {
    let answer = match run(helper, "get", registry) {
        Err(Error::Helper { reason, .. }) if reason.contains("credentials not found") => return Ok(None),
        other => other?,
    };
    let refuse =
        || Error::Helper { helper: helper.to_owned(), reason: "its answer is no credential".to_owned() };
    let answer: Value = serde_json::from_str(&answer).map_err(|_| refuse())?;
    let user = answer["Username"].as_str().ok_or_else(refuse)?.to_owned();
    let secret = Secret(answer["Secret"].as_str().ok_or_else(refuse)?.to_owned());
    Ok(Some(match user.as_str() {
        "<token>" => Credential::Identity(secret),
        _ => Credential::Password { user, password: secret },
    }))
}

/// Runs `docker-credential-NAME VERB` with a text on its standard input, for at most ten seconds.
fn run(name: &str, verb: &str, input: &str) -> Result<String> {
    let fail = |reason: String| Error::Helper { helper: name.to_owned(), reason };
    if name.is_empty() || name.contains('/') || name.starts_with('-') {
        return Err(fail("has no valid name".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(format!("cannot be started: {e}")))?;
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    // A helper may end without reading: then its answer tells why.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.take(MAX_FILE).read_to_string(&mut text).map(|_| text)
    });
    let status = wait(&mut child).map_err(fail)?;
    let text = reader.join().map_err(|_| fail("its answer cannot be read".to_owned()))?;
    let text = text.map_err(|e| fail(format!("its answer cannot be read: {e}")))?;
    drop(writer);
    match status.success() {
        true => Ok(text),
        false => Err(fail(format!("failed: {}", text.lines().next().unwrap_or_default()))),
    }
}

fn wait(child: &mut std::process::Child) -> std::result::Result<std::process::ExitStatus, String> {
    let end = Instant::now() + HELPER_DEADLINE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // Whether or not the kill succeeds, the answer is too late.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(format!("did not answer in {} s", HELPER_DEADLINE.as_secs()));
            }
            Err(e) => return Err(format!("cannot be waited for: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile { path: PathBuf::from("/x"), fields: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn entries_are_found_in_all_their_spellings() {
        let auth = STANDARD.encode("me:pass:word");
        for (name, registry, found) in [
            ("r.example", "r.example", true),
            ("https://r.example/v1/", "r.example", true),
            ("r.example:5000", "r.example", false),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("x.r.example", "r.example", false),
        ] {
            let credential =
                file(&format!(r#"{{"auths":{{"{name}":{{"auth":"{auth}"}}}}}}"#)).get(registry).unwrap();
            assert_eq!(credential.is_some(), found, "{name} for {registry}");
            if let Some(credential) = credential {
                let expected =
                    Credential::Password { user: "me".into(), password: Secret("pass:word".into()) };
                assert_eq!(credential, expected);
            }
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let credential = Credential::Password { user: "me".into(), password: Secret("hunter2".into()) };
        assert_eq!(format!("{credential:?}"), "Password { user: \"me\", password: (secret) }");
        assert!(!format!("{:?}", credential.basic()).contains("Basic"));
    }

    #[test]
    fn helpers_with_a_path_for_a_name_are_not_run() {
        for name in ["", "../x", "-x", "a/b"] {
            assert!(matches!(run(name, "get", ""), Err(Error::Helper { .. })), "{name}");
        }
    }
}
