//! `RUN --mount=...`: every option a field of ours, nothing is passed through.

use super::diagnostic::did_you_mean;

/// The kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image; writes are thrown away.
    Bind,
    /// A directory kept between builds.
    Cache,
    /// An empty file system in memory.
    Tmpfs,
    /// A secret of the command line, as a file or a variable.
    Secret,
    /// A forwarded agent's socket.
    Ssh,
}

/// How steps that run at once share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// One `--mount`, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kind.
    pub kind: MountKind,
    /// Where it appears.
    pub target: Option<String>,
    /// The path within what it comes from.
    pub source: Option<String>,
    /// The stage, image or named context it comes from.
    pub from: Option<String>,
    /// The name of a cache, secret or agent.
    pub id: Option<String>,
    /// How a cache is shared.
    pub sharing: Sharing,
    /// Whether it can be written to, when said.
    pub writable: Option<bool>,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// Mode bits of a cache's root, a secret's file or a socket.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes a tmpfs may take.
    pub size: Option<u64>,
    /// The variable a secret is put in.
    pub env: Option<String>,
    /// Options that hold variables in the place of a number or a word: they are read when those are known.
    pub open: Vec<String>,
}

const NAMES: [&str; 19] = [
    "env",
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "id",
    "sharing",
    "ro",
    "readonly",
    "rw",
    "readwrite",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
];
const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// What is wrong with a mount: the option, the text, a hint.
pub(super) struct MountError {
    pub(super) option: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Reads the value of one `--mount`: comma-separated options, quoted where they hold commas.
pub(super) fn parse(text: &str) -> Result<Mount, MountError> {
    let options = fields(text);
    let mut mount = Mount {
        kind: MountKind::Bind,
        target: None,
        source: None,
        from: None,
        id: None,
        sharing: Sharing::Shared,
        writable: None,
        required: false,
        mode: None,
        uid: None,
        gid: None,
        size: None,
        env: None,
        open: Vec::new(),
    };
    let is_type = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("type");
    if let Some((_, kind)) = options.iter().filter_map(|option| option.split_once('=')).rfind(is_type) {
        mount.kind = kind_named(kind)?;
    }
    for option in options {
        match is_open(&option) {
            true => mount.open.push(option),
            false => set(&mut mount, &option)?,
        }
    }
    check(&mount, text)?;
    Ok(mount)
}

impl Mount {
    /// Takes an option whose variables were expanded; the error is a lower-case fragment.
    pub(crate) fn complete(&mut self, option: &str) -> Result<(), String> {
        set(self, option).map_err(|error| error.message)
    }
}

/// Whether an option can't be read yet. Paths and ids are texts whatever is in them, and `from` and the type hold no variables.
fn is_open(option: &str) -> bool {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let texts = ["type", "from", "target", "dst", "destination", "source", "src", "id"];
    value.contains('$') && !texts.iter().any(|text| name.eq_ignore_ascii_case(text))
}

fn kind_named(kind: &str) -> Result<MountKind, MountError> {
    Ok(match kind.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => {
            let hint = did_you_mean(kind, KINDS);
            return Err(error(kind, format!("unsupported mount type \"{kind}\"")).with(hint));
        }
    })
}

fn set(mount: &mut Mount, option: &str) -> Result<(), MountError> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name.to_ascii_lowercase(), Some(value)),
        None => (option.to_ascii_lowercase(), None),
    };
    let allowed = allowed(mount.kind, &name);
    if !allowed {
        let hint = did_you_mean(&name, NAMES);
        let text = format!("unexpected option \"{name}\" of a {} mount", KINDS[mount.kind as usize]);
        return Err(error(option, text).with(hint));
    }
    let flag = || boolean(option, value);
    let text = || value.filter(|v| !v.is_empty()).map(str::to_owned).ok_or_else(|| needs_value(option));
    match name.as_str() {
        "type" => {}
        "target" | "dst" | "destination" => mount.target = Some(text()?),
        "source" | "src" => mount.source = Some(text()?),
        "from" => mount.from = Some(text()?),
        "id" => mount.id = Some(text()?),
        "env" => mount.env = Some(text()?),
        "sharing" => mount.sharing = sharing(option, &text()?)?,
        "ro" | "readonly" => mount.writable = Some(!flag()?),
        "rw" | "readwrite" => mount.writable = Some(flag()?),
        "required" => mount.required = flag()?,
        "mode" => mount.mode = Some(number(option, &text()?, 8)?).filter(|mode| *mode <= 0o7777),
        "uid" => mount.uid = Some(number(option, &text()?, 10)?),
        "gid" => mount.gid = Some(number(option, &text()?, 10)?),
        "size" => mount.size = Some(size(&text()?).ok_or_else(|| invalid(option))?),
        _ => return Err(error(option, format!("unexpected option \"{name}\""))),
    }
    match (name.as_str(), mount.mode) {
        ("mode", None) => Err(invalid(option)),
        _ => Ok(()),
    }
}

fn allowed(kind: MountKind, name: &str) -> bool {
    use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
    match name {
        "type" | "target" | "dst" | "destination" => true,
        "source" | "src" => matches!(kind, Bind | Cache | Secret),
        "from" => matches!(kind, Bind | Cache),
        "ro" | "readonly" | "rw" | "readwrite" => matches!(kind, Bind | Cache),
        "id" => matches!(kind, Cache | Secret | Ssh),
        "sharing" => kind == Cache,
        "required" => matches!(kind, Secret | Ssh),
        "mode" | "uid" | "gid" => matches!(kind, Cache | Secret | Ssh),
        "size" => kind == Tmpfs,
        "env" => kind == Secret,
        _ => false,
    }
}

fn check(mount: &Mount, text: &str) -> Result<(), MountError> {
    use MountKind::{Bind, Cache, Secret, Tmpfs};
    if matches!(mount.kind, Bind | Cache | Tmpfs) && mount.target.is_none() {
        return Err(error(text, format!("a {} mount needs a target", KINDS[mount.kind as usize])));
    }
    if mount.kind == Secret && mount.id.is_none() && mount.source.is_none() && mount.target.is_none() {
        return Err(error(text, "a secret mount needs an id or a target".into()));
    }
    if let Some(from) = mount.from.as_ref().filter(|from| from.contains('$')) {
        return Err(error(from, "from doesn't expand variables: name a stage instead".into()));
    }
    Ok(())
}

fn boolean(option: &str, value: Option<&str>) -> Result<bool, MountError> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("1" | "t" | "true") => Ok(true),
        Some("0" | "f" | "false") => Ok(false),
        Some(_) => Err(invalid(option)),
    }
}

fn sharing(option: &str, value: &str) -> Result<Sharing, MountError> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(invalid(option).with(did_you_mean(value, ["shared", "private", "locked"]))),
    }
}

fn number(option: &str, value: &str, radix: u32) -> Result<u32, MountError> {
    u32::from_str_radix(value, radix).map_err(|_| invalid(option))
}

/// Bytes with an optional unit: `64m`, `1.5g`, `512k`, `100b`.
pub fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1u64 << 40,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let value: f64 = plain.then(|| digits.trim().parse().ok()).flatten()?;
    let bytes = value * unit as f64;
    (bytes <= (1u64 << 60) as f64).then_some(bytes as u64)
}

/// Comma-separated fields; one that begins with a quote holds commas up to the next quote.
fn fields(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    out.into_iter().map(|field| field.trim().to_owned()).collect()
}

impl MountError {
    fn with(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

fn error(option: &str, message: String) -> MountError {
    MountError { option: option.to_owned(), message, hint: None }
}

fn invalid(option: &str) -> MountError {
    error(option, format!("invalid value of the mount option \"{option}\""))
}

fn needs_value(option: &str) -> MountError {
    error(option, format!("the mount option \"{option}\" needs a value"))
}
