//! The root file system and the paths in it that are hidden or read-only.

use crate::paths;
use crate::plan::{EntryScript, HostFacts, NamespaceKind, Propagation, PropagationPlan, RootPlan};
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use oci_spec::runtime::{Linux, Spec};

/// Propagation words of `linux.rootfsPropagation` and of the mount options.
pub(crate) const PROPAGATIONS: [(&str, Propagation, bool); 8] = [
    ("private", Propagation::Private, false),
    ("rprivate", Propagation::Private, true),
    ("rshared", Propagation::Shared, true),
    ("rslave", Propagation::Slave, true),
    ("runbindable", Propagation::Unbindable, true),
    ("shared", Propagation::Shared, false),
    ("slave", Propagation::Slave, false),
    ("unbindable", Propagation::Unbindable, false),
];

/// Plans the root file system.
pub(crate) fn plan(spec: &Spec, facts: &HostFacts) -> Result<RootPlan, Refusal> {
    let root = spec.root().as_ref().ok_or_else(|| Refusal::new("", "root is missing"))?;
    let path = root.path().to_str().unwrap_or_default();
    if path.is_empty() {
        return Err(Refusal::new("/root", "root.path is missing"));
    }
    Ok(RootPlan {
        path: paths::absolute(&facts.bundle, path),
        readonly: root.readonly().unwrap_or(false),
        propagation: propagation(spec.linux().as_ref())?,
    })
}

fn propagation(linux: Option<&Linux>) -> Result<Option<PropagationPlan>, Refusal> {
    let word = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    if word.is_empty() {
        return Ok(None);
    }
    propagation_named(word).map(Some).ok_or_else(|| {
        let words: Vec<_> = PROPAGATIONS.iter().map(|(word, ..)| *word).collect();
        let reason = format!("unknown propagation {word:?}, expected one of {}", words.join(", "));
        Refusal::new("/linux/rootfsPropagation", reason)
    })
}

/// The propagation that `word` stands for.
pub(crate) fn propagation_named(word: &str) -> Option<PropagationPlan> {
    let (_, kind, recursive) = PROPAGATIONS.iter().find(|(known, ..)| *known == word)?;
    Some(PropagationPlan { kind: *kind, recursive: *recursive })
}

/// Masked and read-only paths, absolute and clean.
pub(crate) fn guarded_paths(
    linux: Option<&Linux>,
    entry: &EntryScript,
) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    let readonly = linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default();
    for (paths, name) in [(masked, "maskedPaths"), (readonly, "readonlyPaths")] {
        if !paths.is_empty() && !entry.has_own(NamespaceKind::Mount) {
            let reason = "unable to restrict sys entries without a private MNT namespace";
            return Err(Refusal::new(format!("/linux/{name}"), reason));
        }
    }
    Ok((absolute_paths(masked, "/linux/maskedPaths")?, absolute_paths(readonly, "/linux/readonlyPaths")?))
}

fn absolute_paths(listed: &[String], pointer: &str) -> Result<Vec<String>, Refusal> {
    let one = |(index, path): (usize, &String)| match paths::clean(path) {
        _ if !path.starts_with('/') => {
            Err(Refusal::new(format!("{pointer}/{index}"), format!("path {path:?} is not absolute")))
        }
        root if root == "/" => {
            Err(Refusal::new(format!("{pointer}/{index}"), "the root itself cannot be listed here"))
        }
        path => Ok(path),
    };
    listed.iter().enumerate().map(one).collect()
}
