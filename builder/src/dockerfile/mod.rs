//! PURE: the Dockerfile's text becomes a tree with places, or errors that show where and what was meant.
//!
//! The dialect is BuildKit's frontend (docs/dockerfile.md lists every row). Nothing here touches a file, the
//! environment or a clock.

pub mod ast;
pub mod diagnostic;
pub mod duration;
pub mod expand;
mod flags;
pub mod heredoc;
mod instruction;
pub mod lines;
pub mod lint;
pub mod mount;
mod pattern;
mod words;

use ast::{Dockerfile, Instruction, Located, Stage};
use diagnostic::Diagnostic;
use instruction::Reader;
use lines::Logical;

/// Most stages that a file may have.
const MAX_STAGES: usize = 1000;

/// Parses a whole Dockerfile.
pub fn parse(source: &str) -> Result<Dockerfile, Diagnostic> {
    let (directives, lines) = lines::split(source)?;
    let escape = directives.escape;
    let comments = lines.iter().filter_map(|line| Some((line.span.first, line.comment.clone()?))).collect();
    let mut file = Dockerfile {
        directives,
        global_args: Vec::new(),
        stages: Vec::new(),
        warnings: Vec::new(),
        comments,
    };
    for line in &lines {
        add_line(&mut file, line, escape)?;
    }
    if file.stages.is_empty() {
        let message = if lines.is_empty() {
            "the file holds no instructions"
        } else {
            "no build stage: FROM is missing"
        };
        let span = diagnostic::Span { first: 1, last: 1 };
        return Err(Diagnostic::new(span, message));
    }
    file.warnings.extend(lint::check_lines(&lines));
    file.warnings.extend(lint::check_file(&file));
    let policy = lint::Policy::of(&file);
    file.warnings.retain(|warning| policy.wants(warning));
    file.warnings.sort_by_key(|warning| warning.span.first);
    Ok(file)
}

fn add_line(file: &mut Dockerfile, line: &Logical, escape: char) -> Result<(), Diagnostic> {
    let mut reader = Reader { line, escape, warnings: Vec::new() };
    let upper = line.name.to_ascii_uppercase();
    if upper == "FROM" {
        let (from, name, platform) = reader.from()?;
        if file.stages.len() == MAX_STAGES {
            return Err(Diagnostic::new(line.span, format!("more than {MAX_STAGES} stages")));
        }
        file.stages.push(Stage { span: line.span, from, name, platform, instructions: Vec::new() });
    } else {
        let node = reader.instruction()?;
        match (file.stages.last_mut(), node) {
            (Some(stage), node) => stage.instructions.push(Located { span: line.span, node }),
            (None, Instruction::Arg(node)) => file.global_args.push(Located { span: line.span, node }),
            (None, _) => {
                let text =
                    format!("no build stage yet: only ARG may stand before the first FROM, not {upper}");
                return Err(Diagnostic::new(line.span, text).at(&line.name));
            }
        }
    }
    file.warnings.append(&mut reader.warnings);
    Ok(())
}

/// Parses the text of one ONBUILD trigger as an instruction.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let (_, lines) = lines::split(text)?;
    match lines.as_slice() {
        [line] => Reader { line, escape: '\\', warnings: Vec::new() }.instruction(),
        _ => Err(Diagnostic::new(
            diagnostic::Span { first: 1, last: 1 },
            "an ONBUILD trigger is one instruction",
        )),
    }
}

#[cfg(test)]
mod tests;
