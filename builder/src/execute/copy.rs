//! COPY: worked out from lists, then written in one pass to the archive and, where a step needs it, to a tree.
//!
//! What an earlier layer of the same step has just so is taken from there: files by another name, compressed blocks as
//! they are.

use std::fs::File;
use std::io::{self, Read, Write};

use hull_image::Sealed;
use hull_layer::{Entry, Kind, LayerWriter, Written};
use sha2::{Digest, Sha256};

use super::Execution;
use super::earlier::LayerTree;
use super::keys::Selected;
use crate::cache::{Key, Record};
use crate::context::tree::{Node, Opener};
use crate::error::{Error, Result};
use crate::graph::{Action, CopyAction, Input, Plan, Root, StepId};
use crate::inputs::Opened;
use crate::pack;
use crate::snapshot::{self, Layers, Snapshot};
use crate::steps::copy::Target;
use crate::steps::grow::Growing;
use crate::steps::lines::{Content, Line, Lines};

impl<'a> Execution<'a> {
    /// Does a COPY on top of `below`.
    pub(super) fn copy(
        &self,
        id: StepId,
        (copy, key): (&CopyAction, &Key),
        place: &str,
        below: &Layers,
        selected: &Selected<'_>,
    ) -> Result<(Record, Sealed<'a>)> {
        // An independent layer is written on nothing: whatever is below may change.
        let nothing = Layers::default();
        let base = if copy.link { &nothing } else { below };
        let packing = self.settings.packing;
        let keeps_owners = selected.opened.as_ref().is_some_and(|opened| opened.tree().keeps_owners);
        let users = if copy.chown.is_some() { Some(Snapshot::read_only(self.store, base)?) } else { None };
        let users = users.as_ref().map(Snapshot::root);
        let target = Target::of(users, copy, keeps_owners, packing.epoch.is_none())?;
        let seen = snapshot::below(self.store, self.cache, base)?;
        let mut lines = Lines::new(&target, &seen);
        if let Some(opened) = &selected.opened {
            lines.add(opened.tree(), &selected.sources, &selected.contents)?;
        }
        for (name, content) in &copy.inline {
            lines.add_text(name, content.as_bytes())?;
        }
        let lines = lines.finish()?;
        let mut earlier = self.earlier(place, key, selected);
        let mut layer = LayerWriter::new(self.blob(id)?, packing.times(), packing.encoding)?;
        if let Some(blocks) = earlier.blocks.take() {
            layer.reuse(blocks);
        }
        let make = || LayerTree::make(self.store, &lines, &mut earlier, packing.epoch);
        let mut tree = self.trees[id].then(make).transpose()?;
        let mut opener = selected.opened.as_ref().map(|opened| Opener::new(opened.tree()));
        for (number, line) in lines.iter().enumerate() {
            let growing = tree.as_mut().and_then(|tree| tree.at(number));
            write(line, selected, (opener.as_mut(), &mut layer), growing, &earlier.same)?;
        }
        let written = layer.finish()?;
        self.cache.keep_blocks(&written, packing.encoding)?;
        self.adopt(tree, lines, &written)?;
        Ok(pack::record(written))
    }

    /// The tree becomes the store's; without one, the list of what is in the layer stands for it.
    fn adopt(&self, tree: Option<LayerTree>, lines: Vec<Line<'_>>, written: &Written<'_>) -> Result<()> {
        let Some(tree) = tree else {
            let entries = lines.into_iter().map(|line| line.entry).collect();
            return self.cache.keep_list(&written.diff_id, entries);
        };
        tree.adopt(self.store, written)
    }
}

fn write(
    line: &Line<'_>,
    selected: &Selected<'_>,
    (opener, layer): (Option<&mut Opener<'_>>, &mut LayerWriter<'_>),
    growing: Option<&mut Growing>,
    same: &[bool],
) -> Result<()> {
    let entry = &line.entry;
    match line.content {
        Content::Node(node, number) => {
            let opener = opener.ok_or_else(super::step::missing_input)?;
            let same = same.get(number).copied().unwrap_or(false);
            write_file((entry, node), opener, selected, layer, growing.map(|growing| (growing, same)))
        }
        Content::Text(mut text) => {
            layer.put(entry, &mut &*text)?;
            let Some(growing) = growing else { return Ok(()) };
            let Some(mut file) = growing.file(entry, false)? else { return Ok(()) };
            io::copy(&mut text, &mut file).map_err(Error::io("write", "a heredoc"))?;
            growing.filled(&file, entry)
        }
        Content::Nothing if matches!(entry.kind, Kind::File { .. }) => {
            Err(Error::fact("a directory below became a file"))
        }
        Content::Nothing => {
            layer.put(entry, &mut io::empty())?;
            growing.map_or(Ok(()), |growing| growing.other(entry))
        }
    }
}

/// Copies a file's bytes; they must be those that the cache key was made of.
fn write_file(
    (entry, node): (&Entry, &Node),
    opener: &mut Opener<'_>,
    selected: &Selected<'_>,
    layer: &mut LayerWriter<'_>,
    mut growing: Option<(&mut Growing, bool)>,
) -> Result<()> {
    let to = match &mut growing {
        Some((growing, same)) => growing.file(entry, *same)?,
        None => None,
    };
    let name = || String::from_utf8_lossy(&node.path);
    let wanted = selected.contents.files.get(&node.path);
    let wanted = wanted.ok_or_else(|| Error::fact(format!("{} was not read before", name())))?;
    let from = opener.open_file(&node.path)?;
    let cache = selected.opened.as_ref().and_then(Opened::cache);
    // A file whose change time says that it is as it was when it was hashed need not be hashed again.
    let is_known = |file: &File| {
        let facts = cache.and_then(|cache| cache.get(&rustix::fs::fstat(file).ok()?));
        facts.is_some_and(|facts| facts.content == wanted.content)
    };
    let hasher = (!is_known(&from)).then(Sha256::new);
    let mut tee = Tee { from, to, hasher };
    layer.put(entry, &mut tee)?;
    match tee.hasher.take().map(|hasher| <[u8; 32]>::from(hasher.finalize())) {
        None if is_known(&tee.from) => {}
        Some(found) if found == wanted.content => {}
        _ => return Err(Error::fact(format!("{} changed while it was read", name()))),
    }
    match (growing, tee.to) {
        (Some((growing, _)), Some(file)) => growing.filled(&file, entry),
        _ => Ok(()),
    }
}

/// Reads, hashes what it read where that is needed, and writes it to the tree.
struct Tee {
    from: File,
    to: Option<File>,
    hasher: Option<Sha256>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if let Some(to) = &mut self.to {
            to.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// Which steps' layers the image has; those of other stages stay here.
pub(super) fn of_image(plan: &Plan) -> Vec<bool> {
    let mut of_image = vec![false; plan.steps.len()];
    let mut root = &plan.root;
    while let Root::Step(id) = root {
        of_image[*id] = true;
        root = &plan.steps[*id].root;
    }
    of_image
}

/// Which steps leave something that another step needs as a tree: all below a RUN, WORKDIR or ADD, and what is read from.
pub(super) fn needed_as_trees(plan: &Plan) -> Vec<bool> {
    let mut needed = vec![false; plan.steps.len()];
    let mut mark = |mut id: StepId| {
        loop {
            needed[id] = true;
            match plan.steps[id].root {
                Root::Step(below) => id = below,
                Root::Scratch | Root::Image(_) => return,
            }
        }
    };
    for step in &plan.steps {
        let only_looks = match &step.action {
            Action::Copy(copy) => !copy.add && copy.chown.is_none(),
            Action::Run(_) | Action::Workdir(_) => false,
        };
        let inputs = step.inputs();
        // The first one is what it is done on.
        for input in inputs.iter().skip(usize::from(only_looks)) {
            if let Input::Root(Root::Step(id)) = input {
                mark(*id);
            }
        }
    }
    needed
}
