//! A bundle directory: what the shim reads there and what it leaves there for the delete action.

use std::fs;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::api::{Any, Options, RuntimeOptions, Timestamp};
use crate::task::Exit;

/// Largest `config.json` that is read.
const CONFIG_LIMIT: u64 = 16 << 20;
/// Largest of the small files.
const SMALL_LIMIT: u64 = 1 << 20;

/// A bundle of a container.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its directory.
    pub dir: PathBuf,
}

/// What the shim wants to know of `config.json`; everything else there is the runtime's.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    annotations: Option<std::collections::BTreeMap<String, String>>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, serde::Deserialize)]
struct Namespace {
    r#type: String,
    #[serde(default)]
    path: String,
}

impl Config {
    /// The containers of a pod share one shim: the name of the pod, or `id` for one that stands alone.
    pub fn group<'a>(&'a self, id: &'a str) -> &'a str {
        let annotation = |name| self.annotations.as_ref()?.get(name).map(String::as_str);
        annotation("io.containerd.runc.v2.group")
            .or_else(|| annotation("io.kubernetes.cri.sandbox-id"))
            .unwrap_or(id)
    }

    /// True when init's end does not end every process of the container, because it made no pid namespace.
    pub fn shares_pid_namespace(&self) -> bool {
        let Some(namespaces) = self.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()) else {
            return true;
        };
        !namespaces.iter().any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty())
    }
}

impl Bundle {
    /// The bundle at `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// A file of the bundle.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads `config.json`.
    pub fn config(&self) -> Result<Config, Error> {
        let bytes = read_limited(&self.file("config.json"), CONFIG_LIMIT)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
    }

    /// Leaves the options and the runtime's name for the delete action, which may run after this process's death.
    pub fn remember(&self, options: &Options) -> Result<(), Error> {
        let text = serde_json::to_vec(options).map_err(Error::other)?;
        write_private(&self.file("options.json"), &text)?;
        write_private(&self.file("runtime"), options.binary_name.as_bytes())
    }

    /// What [`Bundle::remember`] left, or the defaults where it did not get that far.
    pub fn remembered(&self) -> Options {
        let text = read_limited(&self.file("options.json"), SMALL_LIMIT).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The path of the socket that `start` answered with.
    pub fn address(&self) -> Result<PathBuf, Error> {
        let text = read_limited(&self.file("address"), SMALL_LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        text.trim().strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| Error::other("no address in it"))
    }

    /// Leaves how init ended for the delete action, should the shim be killed before a client has asked.
    pub fn record_exit(&self, exit: Exit) -> Result<(), Error> {
        let text = format!("{} {} {}\n", exit.status, exit.at.seconds, exit.at.nanos);
        write_private(&self.file("init.exit"), text.as_bytes())
    }

    /// What [`Bundle::record_exit`] left.
    pub fn recorded_exit(&self) -> Option<Exit> {
        let text = read_limited(&self.file("init.exit"), 64).ok()?;
        let text = String::from_utf8(text).ok()?;
        let mut words = text.split_whitespace();
        let status = words.next()?.parse().ok()?;
        let (seconds, nanos) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Exit { status, at: Timestamp { seconds, nanos } })
    }

    /// The pid that the runtime wrote to a file of the bundle.
    pub fn pid(&self, file: &str) -> Result<u32, Error> {
        read_pid(&self.file(file))
    }
}

/// Reads a file that holds one process id.
pub fn read_pid(path: &Path) -> Result<u32, Error> {
    let text = read_limited(path, 64)?;
    let text = String::from_utf8_lossy(&text);
    text.trim().parse().ok().filter(|&pid| pid > 0).ok_or_else(|| Error::other("no process id in it"))
}

/// Reads a file of at most `limit` bytes.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, "file is too large"));
    }
    Ok(bytes)
}

/// Writes a file that only the owner may read, whole or not at all, and follows no link on the way.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    // What a crash left, or somebody who may write there.
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The write's own error is the one to report; what is left of it is in our directory.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads the options that a caller passed, in either of the two messages that are in use.
pub fn options_from(any: Option<&Any>) -> Result<Options, Error> {
    let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Options::default()) };
    let invalid = |error: prost::DecodeError| Error::new(ErrorKind::InvalidData, error);
    match any.name() {
        "containerd.runc.v1.Options" | "containerd.linux.runc.Options" => {
            Options::decode(any.value.as_slice()).map_err(invalid)
        }
        "runtimeoptions.v1.Options" | "cri.runtimeoptions.v1.Options" => {
            let generic = RuntimeOptions::decode(any.value.as_slice()).map_err(invalid)?;
            let body = if generic.config_body.is_empty() && !generic.config_path.is_empty() {
                read_limited(Path::new(&generic.config_path), SMALL_LIMIT)?
            } else {
                generic.config_body
            };
            options_from_toml(&String::from_utf8_lossy(&body))
        }
        other => Err(Error::new(ErrorKind::InvalidData, format!("options of unknown type {other}"))),
    }
}

/// Reads the flat `Key = value` lines that CRI makes of a runtime's options table. Unknown keys are passed over, as
/// containerd's own decoder does; a line that is no such pair is an error.
fn options_from_toml(text: &str) -> Result<Options, Error> {
    let mut options = Options::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            continue;
        }
        let invalid =
            || Error::new(ErrorKind::InvalidData, format!("option line {line:?} is no key and value"));
        let (key, value) = line.split_once('=').ok_or_else(invalid)?;
        let value = without_comment(value.trim());
        let flag = || value.parse::<bool>().map_err(|_| invalid());
        let number = || value.parse::<u32>().map_err(|_| invalid());
        let string = || {
            let quoted = |mark| value.strip_prefix(mark)?.strip_suffix(mark);
            quoted('"').or_else(|| quoted('\'')).map(str::to_owned).ok_or_else(invalid)
        };
        match key.trim().trim_matches('"') {
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "ShimCgroup" => options.shim_cgroup = string()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "BinaryName" => options.binary_name = string()?,
            "Root" => options.root = string()?,
            "CriuPath" => options.criu_path = string()?,
            "SystemdCgroup" => options.systemd_cgroup = flag()?,
            "CriuImagePath" => options.criu_image_path = string()?,
            "CriuWorkPath" => options.criu_work_path = string()?,
            _ => {}
        }
    }
    Ok(options)
}

/// A value without the comment behind it; in quotes a `#` is none.
fn without_comment(value: &str) -> &str {
    let quoted = match value.chars().next() {
        Some(mark @ ('"' | '\'')) => value[1..].find(mark).map_or(value.len(), |at| at + 2),
        _ => 0,
    };
    value[quoted..].find('#').map_or(value, |at| value[..quoted + at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_both_messages() {
        let wanted =
            Options { systemd_cgroup: true, binary_name: "/x/hull".into(), io_uid: 7, ..Options::default() };
        let direct = Any::pack("containerd.runc.v1.Options", &wanted);
        assert_eq!(options_from(Some(&direct)).unwrap(), wanted);
        let toml = "# from CRI\n[options]\n  BinaryName = \"/x/hull\" # ours\nSystemdCgroup = true# yes\nIoUid=7\nNew = [1]\n";
        let generic = RuntimeOptions { config_body: toml.into(), ..RuntimeOptions::default() };
        let generic = Any::pack("type.googleapis.com/runtimeoptions.v1.Options", &generic);
        assert_eq!(options_from(Some(&generic)).unwrap(), wanted);
        assert_eq!(options_from(None).unwrap(), Options::default());
    }

    #[test]
    fn files_of_another_version_of_the_shim_are_read() {
        let dir = std::env::temp_dir().join(format!("hull-shim-bundle-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        // As version 0.1 writes them, but for a key that it does not know and all that it leaves at their defaults.
        let options = r#"{"binary_name":"/x/hull","root":"/r","systemd_cgroup":true,"of_the_future":[1]}"#;
        for (name, text) in [
            ("options.json", options),
            ("init.exit", "7 1700000000 5\n"),
            ("init.pid", "42"),
            ("address", "unix:///run/containerd/s/abc"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let bundle = Bundle::new(&dir);
        let wanted = Options {
            binary_name: "/x/hull".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        assert_eq!(bundle.remembered(), wanted);
        let at = Timestamp { seconds: 1_700_000_000, nanos: 5 };
        assert_eq!(bundle.recorded_exit(), Some(Exit { status: 7, at }));
        assert_eq!(bundle.pid("init.pid").unwrap(), 42);
        assert_eq!(bundle.address().unwrap(), Path::new("/run/containerd/s/abc"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn comments_end_a_value_but_not_in_quotes() {
        let options = options_from_toml("Root = '/a#b' # 'c'\nShimCgroup = \"\" # none").unwrap();
        assert_eq!((options.root.as_str(), options.shim_cgroup.as_str()), ("/a#b", ""));
        assert!(options_from_toml("Root = 'open # c").is_err());
    }

    #[test]
    fn broken_options_are_refused() {
        for text in ["SystemdCgroup = maybe", "BinaryName = bare", "IoUid = -1", "nonsense"] {
            assert!(options_from_toml(text).is_err(), "{text}");
        }
        let other = Any { type_url: "what.Options".into(), value: vec![1] };
        assert!(options_from(Some(&other)).is_err());
    }

    #[test]
    fn group_prefers_the_explicit_annotation() {
        let config = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        assert_eq!(config("{}").group("c1"), "c1");
        let cri = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(config(cri).group("c1"), "pod");
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(config(both).group("c1"), "g");
    }

    #[test]
    fn only_a_new_pid_namespace_is_private() {
        let shares = |text: &str| serde_json::from_str::<Config>(text).unwrap().shares_pid_namespace();
        assert!(shares("{}"));
        assert!(shares(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#));
        assert!(shares(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#));
        assert!(!shares(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#));
    }
}
