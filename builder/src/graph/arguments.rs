//! ARG: the global scope, what every build knows, and what a stage has declared.

use std::collections::BTreeMap;

use super::{Options, platform};
use crate::dockerfile::ast::{Dockerfile, Stage};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::expand::{Expanded, Lexer, Lookup};

/// Longest text that an expansion may give, in bytes: `ENV a=$a$a` doubles each time.
const MAX_EXPANDED: usize = 1 << 20;

/// Arguments that reach RUN without being declared, and count neither for the cache nor in the history.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The argument and variable that has the build's time.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What an ARG before the first FROM says of the build's time.
pub(crate) fn own_epoch(file: &Dockerfile, options: &Options) -> Result<Option<String>, Diagnostic> {
    match file.stages.last() {
        Some(stage) => Globals::read(file, options, stage)?.epoch.transpose(),
        None => Ok(None),
    }
}

/// The arguments before the first FROM.
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    /// What the last of them says of the build's time; an error counts only where nobody else says it.
    epoch: Option<Result<String, Diagnostic>>,
}

impl Globals {
    /// The platform's names and the file's global ARGs, expanded in order.
    pub(super) fn read(file: &Dockerfile, options: &Options, target: &Stage) -> Result<Self, Diagnostic> {
        let mut values = automatic(options, target);
        for name in values.clone().keys() {
            if let Some(given) = options.build_args.get(name) {
                values.insert(name.clone(), given.clone());
            }
        }
        let mut epoch = None;
        let lexer = Lexer::new(file.directives.escape);
        for line in &file.global_args {
            for argument in &line.node {
                let expanded = |default: &str| {
                    let lookup = |name: &str| values.get(name).cloned();
                    let expanded = expand(lexer, default, &lookup).map_err(|e| Diagnostic::new(line.span, e));
                    expanded.map(|expanded| expanded.text)
                };
                let value = match (options.build_args.get(&argument.name), &argument.default) {
                    // What it says may be the name of something that has a time.
                    (_, Some(default)) if argument.name == EPOCH => {
                        epoch = Some(expanded(default));
                        Some(options.epoch.to_string())
                    }
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => Some(expanded(default)?),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    values.insert(argument.name.clone(), value);
                }
            }
        }
        Ok(Self { values, epoch })
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }
}

fn automatic(options: &Options, target: &Stage) -> BTreeMap<String, String> {
    let (os, architecture, variant) = platform::parts(&options.platform);
    let stage = target.name.clone().unwrap_or_else(|| "default".into());
    let mut values = BTreeMap::from([("TARGETSTAGE".to_owned(), stage)]);
    for side in ["TARGET", "BUILD"] {
        values.insert(format!("{side}PLATFORM"), options.platform.clone());
        values.insert(format!("{side}OS"), os.into());
        values.insert(format!("{side}ARCH"), architecture.into());
        values.insert(format!("{side}VARIANT"), variant.into());
    }
    values
}

/// Expands a word within bounds.
pub(super) fn expand(lexer: Lexer, text: &str, lookup: Lookup<'_>) -> Result<Expanded, String> {
    let expanded = lexer.expand(text, lookup)?;
    match expanded.text.len() > MAX_EXPANDED {
        true => Err(format!("the expanded text is longer than {MAX_EXPANDED} bytes")),
        false => Ok(expanded),
    }
}

/// The proxies of the command line.
pub(super) fn proxies(options: &Options) -> Vec<(String, String)> {
    let given = |name: &&str| options.build_args.get(*name).map(|value| ((*name).to_owned(), value.clone()));
    PROXIES.iter().filter_map(given).collect()
}

/// Whether an argument never enters cache and history unless declared.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}
