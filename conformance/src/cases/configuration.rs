//! Bundle and configuration file.

use std::fs;

use serde_json::{Value, json};

use super::Table;
use crate::bundle::{Bundle, probe};
use crate::lab::Lab;
use crate::verdict::{Finding, holds, same};

pub(super) const CASES: Table = &[
    ("B1", configuration_is_config_json_at_the_top),
    ("B2", root_directory_has_to_exist),
    ("B3", member_order_means_nothing),
    ("B4", every_version_1_is_accepted),
    ("B5", malformed_versions_are_errors),
    ("B6", unknown_members_are_ignored),
    ("B7", invalid_values_are_errors),
    ("B8", other_platforms_are_ignored),
    ("B9", annotations_are_strings),
    ("B10", unknown_annotations_are_ignored),
    ("B11", annotations_show_up_in_the_state),
    ("B13", later_edits_change_nothing),
];

fn configuration_is_config_json_at_the_top(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|_| ())?;
    fs::rename(bundle.path.join("config.json"), bundle.path.join("config.yaml"))?;
    lab.try_create(&bundle)?.refused("a bundle without config.json")?;
    lab.gone(&bundle.id, "after that")
}

fn root_directory_has_to_exist(lab: &Lab) -> Finding {
    lab.refuses("a root.path that does not exist", |config| config["root"]["path"] = json!("nowhere"))
}

/// Duplicated names make the document invalid, and what a runtime does then is its own affair: they are not tried.
fn member_order_means_nothing(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| config["hostname"] = json!("größe"))?;
    let members = bundle.config.as_object().cloned().unwrap_or_default();
    let reversed: Vec<String> =
        members.iter().rev().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    fs::write(bundle.path.join("config.json"), format!("\n{{\n{}\n}}\n", reversed.join(",\n\t")))?;
    let report = lab.report_of(&bundle)?;
    same(
        "the hostname from a document in UTF-8 with its members reversed",
        "größe",
        text(&report["hostname"]),
    )
}

fn every_version_1_is_accepted(lab: &Lab) -> Finding {
    for version in ["1.0.0", "1.0.2", "1.1.0", "1.2.0", "1.2.1", "1.3.0"] {
        let bundle = lab.bundle(|config| config["ociVersion"] = json!(version))?;
        lab.run(&bundle)?.done(&format!("run of a bundle of version {version}"))?;
    }
    Ok(())
}

fn malformed_versions_are_errors(lab: &Lab) -> Finding {
    for version in ["", "new", "1.0.0.0", "2.0.0", "99.0.0"] {
        lab.refuses(&format!("ociVersion {version:?}"), |config| config["ociVersion"] = json!(version))?;
    }
    lab.refuses("a configuration without ociVersion", |config| {
        config.as_object_mut().map(|members| members.remove("ociVersion"));
    })
}

fn unknown_members_are_ignored(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        for pointer in ["", "/process", "/process/user", "/root", "/mounts/0", "/linux", "/linux/resources"] {
            if let Some(place) = config.pointer_mut(pointer) {
                place["org.example.unheard"] = json!({ "of": [1, "two"] });
            }
        }
    })?;
    same("the hostname beside unknown members", "conformance", text(&report["hostname"]))
}

fn invalid_values_are_errors(lab: &Lab) -> Finding {
    lab.refuses("an array as root", |config| config["root"] = json!([]))?;
    lab.refuses("a namespace of an unknown type", |config| {
        config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "weather" }]);
    })?;
    lab.refuses("a string as process", |config| config["process"] = json!("sh"))
}

fn other_platforms_are_ignored(lab: &Lab) -> Finding {
    lab.report(|config| {
        config["windows"] = json!({ "layerFolders": ["C:\\one"] });
        config["solaris"] = json!({ "milestone": "svc:/x" });
        config["vm"] = json!({ "kernel": { "path": "/no/such/kernel" } });
        config["zos"] = json!({ "namespaces": [] });
    })
    .map(drop)
}

fn annotations_are_strings(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| config["annotations"] = json!({ "org.example.empty": "" }))?;
    lab.create(&bundle)?;
    let state = lab.state(&bundle)?;
    same("an annotation with an empty value", &json!(""), &state["annotations"]["org.example.empty"])?;
    lab.refuses("a number as the value of an annotation", |config| {
        config["annotations"] = json!({ "org.example.n": 1 })
    })
}

fn unknown_annotations_are_ignored(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        config["annotations"] =
            json!({ "org.example.unheard-of": "x", "run.of.the.mill": "{}", "no-dots": "1" });
    })?;
    same("the hostname", "conformance", text(&report["hostname"]))
}

fn annotations_show_up_in_the_state(lab: &Lab) -> Finding {
    let given = json!({ "org.example.one": "1", "org.example.two": "zwei, \"drei\"\nvier" });
    let bundle = lab.bundle(|config| config["annotations"] = given.clone())?;
    lab.create(&bundle)?;
    let seen = lab.state(&bundle)?["annotations"].clone();
    for (name, value) in given.as_object().into_iter().flatten() {
        same(&format!("annotation {name}"), value, &seen[name])?;
    }
    Ok(())
}

fn later_edits_change_nothing(lab: &Lab) -> Finding {
    let mut bundle = lab.bundle(|config| probe(config, &["log", "/log", "before"]))?;
    lab.create(&bundle)?;
    edit(&mut bundle)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    let log = || fs::read_to_string(bundle.inside("log")).unwrap_or_default();
    let ran = lab.eventually(|| log().ends_with('\n'));
    holds("the program that was configured at create", ran && log().contains("\"before\""), log())
}

fn edit(bundle: &mut Bundle) -> Finding {
    probe(&mut bundle.config, &["log", "/log", "after"]);
    bundle.write()?;
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
