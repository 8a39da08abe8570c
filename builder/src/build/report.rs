//! What `--explain` says beside the steps: what the ignore file dropped and by which rule, and what each layer weighs.

use hull_image::Store;

use crate::audit::Audit;
use crate::context::tree::Tree;
use crate::error::Result;
use crate::graph::Plan;
use crate::pattern::ignore::Inherited;
use crate::snapshot::Layers;

/// Dropped paths that are told one by one.
const MOST: usize = 20;

/// One line for each thing that the ignore file drops, what lies below it included.
pub(super) fn dropped(tree: &Tree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !tree.ignore.is_empty() {
        below(tree, b"", &tree.ignore.root(), &mut found)?;
    }
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    Ok(found)
}

fn below(tree: &Tree, directory: &[u8], inherited: &Inherited, found: &mut Vec<String>) -> Result<()> {
    for node in tree.entries(directory)? {
        let path = String::from_utf8_lossy(&node.path);
        let verdict = tree.ignore.judge(&path, inherited);
        if verdict.ignored
            && let Some(rule) = verdict.rule
        {
            found.push(format!("not in the context: {path} (line {}: {})", rule.line, rule.text));
        }
        if node.is_directory() && (!verdict.ignored || tree.ignore.must_enter(&path)) {
            below(tree, &node.path, &verdict.inherited, found)?;
        }
    }
    Ok(())
}

/// Looks for secrets in what is new: layers, the configuration and the history.
pub(super) fn audit(audit: &Audit, store: &Store, plan: &Plan, layers: &Layers) -> Result<()> {
    let made: Vec<&str> =
        plan.history.iter().filter(|made| made.step.is_some()).map(|made| made.by.as_str()).collect();
    let base = layers.blobs.len().saturating_sub(made.len());
    for (blob, by) in layers.blobs[base..].iter().zip(&made) {
        audit.layer(store, blob, &format!("the layer of {by}"))?;
    }
    audit.look(&hull_image::canonical(&plan.config), "the configuration");
    plan.history.iter().for_each(|made| audit.look(made.by.as_bytes(), "the history"));
    audit.verdict()
}

/// One line for each new layer: its compressed size and what made it.
pub(super) fn layers(plan: &Plan, layers: &Layers) -> Vec<String> {
    let made: Vec<&str> =
        plan.history.iter().filter(|made| made.step.is_some()).map(|made| made.by.as_str()).collect();
    let base = layers.blobs.len().saturating_sub(made.len());
    let line = |(blob, by): (&hull_image::Descriptor, &&str)| {
        let text: String = by.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect();
        format!("layer of {} bytes: {text}", blob.size)
    };
    layers.blobs[base..].iter().zip(&made).map(line).collect()
}
