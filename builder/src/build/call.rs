//! `--call`: what a Dockerfile offers, told without building anything.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use super::options;
use crate::commands::build::Arguments;
use crate::commands::table::table;
use crate::dockerfile::ast::{Argument, Dockerfile, Instruction, Located, Stage};
use crate::dockerfile::mount::{Mount, MountKind};
use crate::error::{Error, Result};

/// Prints the answer to `--call targets` or `--call outline`.
pub(super) fn tell(call: &str, arguments: &Arguments, file: &Dockerfile) -> Result<ExitCode> {
    let text = match call {
        "targets" => targets(file),
        _ => outline(file, arguments.target.as_deref(), &options::build_args(arguments)?)?,
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Every stage that can be named, and the last one.
fn targets(file: &Dockerfile) -> String {
    let last = file.stages.len() - 1;
    let row = |(index, stage): (usize, &Stage)| {
        let name = stage.name.clone().or_else(|| (index == last).then(String::new))?;
        let about = file.description(stage.span.first, &name).unwrap_or_default().to_owned();
        let mark = if index == last { "(default)" } else { "" };
        Some(vec![format!("{name} {mark}").trim().to_owned(), about])
    };
    table(&["TARGET", "DESCRIPTION"], &file.stages.iter().enumerate().filter_map(row).collect::<Vec<_>>())
}

/// What a target takes: arguments, secrets and agents, of itself and of all stages that it is made from.
fn outline(file: &Dockerfile, target: Option<&str>, given: &BTreeMap<String, String>) -> Result<String> {
    let last = file.stages.len() - 1;
    let wanted = target.map(str::to_lowercase);
    let index = match &wanted {
        None => last,
        Some(name) => file
            .stages
            .iter()
            .rposition(|stage| stage.name.as_ref() == Some(name))
            .or_else(|| name.parse().ok().filter(|index| *index <= last))
            .ok_or_else(|| Error::fact(format!("target stage \"{name}\" could not be found")))?,
    };
    let stage = &file.stages[index];
    let name = stage.name.as_deref().unwrap_or("(default)");
    let mut text = format!("TARGET:      {name}\n");
    if let Some(about) = file.description(stage.span.first, name) {
        text.push_str(&format!("DESCRIPTION: {about}\n"));
    }
    let stages = needed(file, index);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in arguments_of(file, &stages) {
        for one in line.node {
            let value = given.get(&one.name).or(one.default.as_ref()).cloned().unwrap_or_default();
            let about = file.description(line.span.first, &one.name).unwrap_or_default().to_owned();
            match rows.iter_mut().find(|row| row[0] == one.name) {
                // Declared again without a default: the first one's holds.
                Some(row) if one.default.is_some() => row[1] = value,
                Some(_) => {}
                None => rows.push(vec![one.name.clone(), value, about]),
            }
        }
    }
    let mut section = |heading: &[&str], rows: &[Vec<String>]| {
        if !rows.is_empty() {
            text.push_str(&format!("\n{}", table(heading, rows)));
        }
    };
    section(&["BUILD ARG", "VALUE", "DESCRIPTION"], &rows);
    section(&["SECRET", "REQUIRED"], &mounts(file, &stages, MountKind::Secret));
    section(&["SSH", "REQUIRED"], &mounts(file, &stages, MountKind::Ssh));
    Ok(text)
}

/// A stage and all that it begins with or copies from, in the file's order.
fn needed(file: &Dockerfile, target: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![target];
    while let Some(index) = open.pop() {
        if !found.insert(index) {
            continue;
        }
        let stage = &file.stages[index];
        let from = stage.instructions.iter().flat_map(|instruction| match &instruction.node {
            Instruction::Copy(copy) => copy.from.iter().collect::<Vec<_>>(),
            Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_ref()).collect(),
            _ => Vec::new(),
        });
        let named = |name: &String, among: &[Stage]| {
            let lower = name.to_lowercase();
            among.iter().rposition(|other| other.name.as_ref() == Some(&lower))
        };
        // FROM knows what stands before it, and names only; others know all.
        open.extend(named(&stage.from, &file.stages[..index]));
        for name in from {
            let numbered = || name.parse().ok().filter(|number| *number < file.stages.len());
            open.extend(named(name, &file.stages).or_else(numbered));
        }
    }
    found
}

fn arguments_of<'a>(file: &'a Dockerfile, stages: &BTreeSet<usize>) -> Vec<Located<&'a Vec<Argument>>> {
    let global = file.global_args.iter().map(|line| Located { span: line.span, node: &line.node });
    let own = stages.iter().flat_map(|index| &file.stages[*index].instructions);
    let own = own.filter_map(|line| match &line.node {
        Instruction::Arg(list) => Some(Located { span: line.span, node: list }),
        _ => None,
    });
    global.chain(own).collect()
}

fn mounts(file: &Dockerfile, stages: &BTreeSet<usize>, kind: MountKind) -> Vec<Vec<String>> {
    let id = |mount: &Mount| {
        let target = mount.target.as_deref().and_then(|target| target.rsplit('/').next());
        let fallback = if kind == MountKind::Ssh { Some("default") } else { target };
        mount.id.clone().unwrap_or_else(|| fallback.unwrap_or_default().to_owned())
    };
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    for instruction in stages.iter().flat_map(|index| &file.stages[*index].instructions) {
        let Instruction::Run(run) = &instruction.node else { continue };
        for mount in run.mounts.iter().filter(|mount| mount.kind == kind) {
            *found.entry(id(mount)).or_default() |= mount.required;
        }
    }
    let row = |(id, required): (String, bool)| vec![id, if required { "true".into() } else { String::new() }];
    found.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    const FILE: &str = "# VERSION what is packed\nARG VERSION=1\nFROM scratch AS tools\nARG DEBUG\nRUN --mount=type=secret,id=key,required x\n# final the image\nFROM scratch AS final\nARG VERSION\nCOPY --from=tools /a /\nRUN --mount=type=ssh y\nFROM scratch\n";

    #[test]
    fn targets_are_the_stages_with_names_and_the_last() {
        let lines: Vec<String> =
            targets(&parse(FILE).unwrap()).lines().map(|l| l.trim_end().to_owned()).collect();
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        let wanted = [&["TARGET", "DESCRIPTION"][..], &["tools"], &["final", "the", "image"], &["(default)"]];
        assert_eq!(words, wanted);
    }

    #[test]
    fn an_outline_has_what_the_targets_stages_take() {
        let given = BTreeMap::from([("DEBUG".to_owned(), "yes".to_owned())]);
        let text = outline(&parse(FILE).unwrap(), Some("final"), &given).unwrap();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(words.contains(&vec!["DESCRIPTION:", "the", "image"]), "{text}");
        assert!(words.contains(&vec!["VERSION", "1", "what", "is", "packed"]), "{text}");
        assert!(words.contains(&vec!["DEBUG", "yes"]), "{text}");
        assert!(words.contains(&vec!["key", "true"]), "{text}");
        assert!(words.contains(&vec!["default"]), "{text}");
        assert!(!outline(&parse(FILE).unwrap(), None, &given).unwrap().contains("DEBUG"), "not the last's");
        assert!(outline(&parse(FILE).unwrap(), Some("none"), &given).is_err());
    }

    #[test]
    fn stages_that_come_later_count_where_they_are_copied_from() {
        let file = "FROM scratch AS b\nFROM b AS a\nCOPY --from=c /f /\nCOPY --from=3 /f /\nFROM scratch AS c\nFROM scratch\nFROM scratch AS b\n";
        assert_eq!(
            needed(&parse(file).unwrap(), 1),
            BTreeSet::from([0, 1, 2, 3]),
            "FROM b is the one before"
        );
    }
}
