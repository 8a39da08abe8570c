//! How long an image takes to become files: beside tar and gzip, layer by layer, and beside buildah. Nothing is removed
//! before the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_testkit::call;
use serde_json::Value;

use crate::builder::{self, Builder, LIMIT};
use crate::corpus;
use crate::measure::Cost;
use crate::measured;

/// What names the case on the command line.
pub const NAME: &str = "unpack";

/// Makes the image in a store of its own, and prints what each way of unpacking it takes: the best of two.
pub fn compare(scratch: &Path, builders: &[Builder]) {
    let archive = archive(scratch, builders);
    let best = |unpack: &dyn Fn(u32) -> Option<Cost>| (0..2).filter_map(unpack).min_by_key(|cost| cost.wall);
    let hull = best(&|round| by_hull(scratch, &archive, round));
    let tar = best(&|round| by_tar(scratch, &archive, round));
    println!("{:14} {:5} {}", NAME, "tar", builder::line(&[hull, tar]));
    for other in builders.iter().filter(|builder| !builder.is_hull) {
        let pulled = best(&|round| {
            measured(&other.with_store(scratch.join(format!("unpack-{round}"))).loading(&archive))
        });
        println!("{:14} {:5} {}", NAME, "load", builder::line(&[hull, pulled]));
    }
}

/// An image of 890 MB of files in three layers.
fn archive(scratch: &Path, builders: &[Builder]) -> PathBuf {
    let context = scratch.join("unpack-context");
    for (name, count, size) in [("a", 9_000, 34 << 10), ("b", 6_000, 60 << 10), ("c", 11_000, 100 << 10)] {
        corpus::files(&context.join(name), count, size);
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY c /c\nCMD [\"none\"]\n")
        .expect("the scratch directory can be written");
    let archive = scratch.join("unpack.tar");
    let hull = builders.iter().find(|builder| builder.is_hull).expect("there is always this project's");
    let own = hull.with_store(scratch.join("unpack-made"));
    let output = format!("type=docker,dest={}", archive.display());
    call(own.command().args(["build", "-q", "-t", NAME, "-o", &output]).arg(&context), LIMIT).done();
    archive
}

/// From a store that has the layers only as they come from a registry; the mount ends with the command's namespace.
fn by_hull(scratch: &Path, archive: &Path, round: u32) -> Option<Cost> {
    let hull = builder::all(scratch, false).pop()?.with_store(scratch.join(format!("unpack-hull-{round}")));
    hull.load(archive, NAME);
    let bundle = scratch.join(format!("bundle-{round}"));
    let call = hull.command();
    let mut unpack = Command::new("unshare");
    unpack.args(["--mount", "--propagation", "private"]).arg(call.get_program()).args(call.get_args());
    measured(unpack.args(["unpack", "--rootfs", "overlay", NAME]).arg(&bundle))
}

/// The layers one after the other, as a person would by hand.
fn by_tar(scratch: &Path, archive: &Path, round: u32) -> Option<Cost> {
    let (parts, files) = (scratch.join("unpack-parts"), scratch.join(format!("unpack-files-{round}")));
    for directory in [&parts, &files] {
        fs::create_dir_all(directory).expect("the scratch directory can be written");
    }
    call(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&parts), LIMIT).done();
    let list = fs::read(parts.join("manifest.json")).expect("the archive has a list of its parts");
    let list: Value = serde_json::from_slice(&list).expect("the list is JSON");
    let layers = list[0]["Layers"].as_array().expect("the image has layers").iter().filter_map(Value::as_str);
    let script: String = layers
        .map(|layer| {
            format!("gzip -dc '{}' | tar -x -C '{}'\n", parts.join(layer).display(), files.display())
        })
        .collect();
    measured(Command::new("/bin/sh").arg("-ec").arg(script))
}
