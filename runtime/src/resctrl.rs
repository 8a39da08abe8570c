//! Intel RDT: the container's class of service in the resctrl file system (config-linux.md, intelRdt;
//! Documentation/filesystems/resctrl.rst).
//!
//! No machine with such a file system was at hand: the tests below run on ordinary directories, where the kernel's own
//! checks of a schema are not.

use crate::error::{Code, Context, Error, Result};
use crate::step::Step;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Where it is mounted.
pub const MOUNT_POINT: &str = "/sys/fs/resctrl";

const FIELD: &str = "/linux/intelRdt";

/// A container's class, and what was made for it; that is removed on drop until [`Class::keep`] is called.
#[derive(Debug)]
pub struct Class {
    made: Vec<PathBuf>,
}

/// What `state.json` keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The directories that the container's processes join.
    pub joined: Vec<PathBuf>,
    /// Those that are the container's alone, in the order in which `delete` removes them.
    pub own: Vec<PathBuf>,
}

impl Places {
    /// Where a container of this id goes, before anything of it is made: a directory that is there is not its own.
    pub fn of(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Self {
        let class = class_directory(root, rdt, id);
        let monitor = monitors(rdt).then(|| class.join("mon_groups").join(id));
        let own_class = rdt.clos_id().is_none().then(|| class.clone());
        let own = monitor.iter().cloned().chain(own_class);
        Self {
            own: own.filter(|directory| !directory.exists()).collect(),
            joined: std::iter::once(class).chain(monitor).collect(),
        }
    }

    /// Puts a process there.
    pub fn join(&self, pid: i32) -> Result<()> {
        for directory in &self.joined {
            fs::write(directory.join("tasks"), pid.to_string())
                .context(|| format!("join {}", directory.display()))
                .map_err(|error| error.field(FIELD).step(Step::Cgroup))?;
        }
        Ok(())
    }

    /// Writes one line of the class's schemata.
    pub fn change(&self, schema: &str) -> Result<()> {
        let Some(class) = self.joined.first() else {
            return Err(Error::new(Code::Unsupported, "Intel RDT: the container has no class of service")
                .hint("linux.intelRdt gives it one at create"));
        };
        fs::write(class.join("schemata"), format!("{schema}\n"))
            .context(|| format!("write {}/schemata", class.display()))
    }

    /// Removes what belongs to a container that has ended; what is gone already is as good.
    pub fn remove(&self) -> Result<()> {
        for path in &self.own {
            match fs::remove_dir(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.context(|| format!("remove {}", path.display()))?,
            }
        }
        Ok(())
    }
}

impl Class {
    /// Makes or checks the class, and the monitoring group.
    pub fn make(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let directory = class_directory(root, rdt, id);
        refuse_kernels_own(root, &directory)?;
        let schemata = schemata(rdt);
        let mut class = Self { made: Vec::new() };
        if directory.is_dir() {
            if !schemata.is_empty() {
                require_same(&directory, &schemata)?;
            }
        } else if rdt.clos_id().is_some() && schemata.is_empty() {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("clos {} does not exist", directory.display()),
            )
            .field(format!("{FIELD}/closID"))
            .hint("make the class, or give a schema for it"));
        } else {
            class.make_directory(&directory)?;
        }
        if !schemata.is_empty() {
            let text = schemata.join("\n") + "\n";
            fs::write(directory.join("schemata"), text)
                .context(|| format!("write {}/schemata", directory.display()))
                .map_err(|error| error.field(FIELD).hint(last_status(root)))?;
        }
        if monitors(rdt) {
            class.make_directory(&directory.join("mon_groups").join(id))?;
        }
        Ok(class)
    }

    fn make_directory(&mut self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            other => other
                .context(|| format!("make {}", path.display()))
                .map_err(|error| error.field(FIELD).object(path.display().to_string()))?,
        }
        self.made.push(path.to_owned());
        Ok(())
    }

    /// Leaves what was made in place.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // The error that brought us here is the one to report.
            let _left = fs::remove_dir(path);
        }
    }
}

fn class_directory(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> PathBuf {
    match rdt.clos_id().as_deref() {
        None => root.join(id),
        Some("/") => root.to_owned(),
        Some(class) => root.join(class),
    }
}

/// Names that the kernel has taken in the root: a class cannot be called so, by its own name or by the container's.
fn refuse_kernels_own(root: &Path, directory: &Path) -> Result<()> {
    let taken = ["info", "mon_groups", "mon_data"].iter().any(|name| root.join(name) == directory);
    if !taken {
        return Ok(());
    }
    Err(Error::new(Code::ConfigInvalid, format!("{} is no class of service", directory.display()))
        .field(format!("{FIELD}/closID"))
        .hint("give the class another name; without one it is the container's id"))
}

fn monitors(rdt: &LinuxIntelRdt) -> bool {
    rdt.enable_monitoring().unwrap_or(false)
}

/// The lines of the schemata file, in the order of the specification.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    let l3 = rdt.l3_cache_schema().iter().cloned();
    let bandwidth = rdt.mem_bw_schema().iter().cloned();
    let lines = l3.chain(bandwidth).chain(rdt.schemata().iter().flatten().cloned());
    lines.filter(|line| !line.trim().is_empty()).collect()
}

/// A class that is there already belongs to somebody: its schemata are not changed.
fn require_same(directory: &Path, wanted: &[String]) -> Result<()> {
    let path = directory.join("schemata");
    let there = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
    let there: Vec<_> = there.lines().map(normal).collect();
    match wanted.iter().find(|line| !there.contains(&normal(line))) {
        None => Ok(()),
        Some(line) => Err(Error::new(
            Code::ConfigInvalid,
            format!("class {} has another schema than {line:?}", directory.display()),
        )
        .field(FIELD)
        .hint("leave the schema out to use the class as it is")),
    }
}

/// The kernel pads names, cache ids' masks and percentages with blanks and zeros.
fn normal(line: &str) -> String {
    let (name, values) = line.split_once(':').unwrap_or((line, ""));
    let values = values.split(';').map(|pair| {
        let (cache, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        format!("{}={value}", cache.trim())
    });
    format!("{}:{}", name.trim(), values.collect::<Vec<_>>().join(";"))
}

/// The kernel's own words about the last refusal.
fn last_status(root: &Path) -> String {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    format!("resctrl says: {}", status.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_testkit::place::Scratch;
    use oci_spec::runtime::LinuxIntelRdtBuilder;

    fn with_class(class: Option<&str>, schema: Option<&str>) -> LinuxIntelRdt {
        let mut rdt = LinuxIntelRdtBuilder::default().enable_monitoring(true).build().expect("build");
        rdt.set_clos_id(class.map(str::to_owned));
        rdt.set_l3_cache_schema(schema.map(str::to_owned));
        rdt
    }

    /// What the kernel puts into each directory of a class.
    fn class_in(root: &Path, name: &str, schemata: &str) {
        fs::create_dir_all(root.join(name).join("mon_groups")).expect("make a class");
        fs::write(root.join(name).join("schemata"), schemata).expect("write");
    }

    #[test]
    fn a_named_class_without_a_schema_has_to_exist() {
        let root = Scratch::new("resctrl");
        let rdt = with_class(Some("gold"), None);
        let error = Class::make(root.path(), &rdt, "c").expect_err("taken");
        assert_eq!(error.field.as_deref(), Some("/linux/intelRdt/closID"));
        class_in(root.path(), "gold", "L3:0=fff\n");
        Class::make(root.path(), &rdt, "c").expect("refused").keep();
        assert!(root.join("gold/mon_groups/c").is_dir());
        assert_eq!(fs::read_to_string(root.join("gold/schemata")).expect("read"), "L3:0=fff\n");
    }

    #[test]
    fn an_existing_class_is_never_changed() {
        let root = Scratch::new("resctrl");
        for (schema, taken) in [("L3:0=ff;1=fff", true), ("L3:0=f;1=fff", false), ("MB:0=70", true)] {
            class_in(root.path(), "gold", "    L3:0=00ff;1=0fff\n    MB:0= 70\n");
            let made = Class::make(root.path(), &with_class(Some("gold"), Some(schema)), "c");
            assert_eq!(made.is_ok(), taken, "{schema}");
        }
    }

    #[test]
    fn a_class_of_somebody_else_by_the_containers_name_is_neither_changed_nor_removed() {
        let root = Scratch::new("resctrl");
        class_in(root.path(), "c", "L3:0=fff\n");
        assert!(Class::make(root.path(), &with_class(None, Some("L3:0=f")), "c").is_err());
        assert_eq!(fs::read_to_string(root.join("c/schemata")).expect("read"), "L3:0=fff\n");
        let own = Places::of(root.path(), &with_class(None, None), "c").own;
        assert_eq!(own, [root.join("c/mon_groups/c")]);
    }

    #[test]
    fn a_class_cannot_have_a_name_of_the_kernels() {
        let root = Scratch::new("resctrl");
        for (class, id) in [(None, "info"), (None, "mon_groups"), (Some("info"), "c")] {
            let error = Class::make(root.path(), &with_class(class, Some("L3:0=f")), id).expect_err("made");
            assert_eq!(error.code, Code::ConfigInvalid, "{class:?} {id}");
        }
    }

    #[test]
    fn what_was_made_goes_when_the_rest_fails_and_at_delete() {
        let root = Scratch::new("resctrl");
        let plain = LinuxIntelRdtBuilder::default().build().expect("build");
        drop(Class::make(root.path(), &plain, "c").expect("make"));
        assert!(!root.join("c").exists(), "a failed create leaves its class");
        let places = Places::of(root.path(), &plain, "c");
        Class::make(root.path(), &plain, "c").expect("make").keep();
        places.join(42).expect("join");
        assert_eq!(fs::read_to_string(root.join("c/tasks")).expect("read"), "42");
        fs::remove_file(root.join("c/tasks")).expect("the kernel's own file");
        places.remove().expect("remove");
        places.remove().expect("remove again");
        assert!(!root.join("c").exists());
    }
}
