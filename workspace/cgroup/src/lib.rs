//! Control groups of a container: which files get which values (pure), and the code that carries it out on
//! cgroup v1, hybrid and v2 hosts.
//!
//! What this crate must not do: follow a path outside a directory whose file system was verified, move a process
//! out of its container to get rid of a directory, or wait without a deadline.
//!
//! | module | what |
//! |---|---|
//! | `facts` | pure: the hierarchies of the host, from mountinfo and /proc/self/cgroup |
//! | `place` | pure: where the container's directories are |
//! | `resources` | pure: `LinuxResources` to an ordered list of writes |
//! | `devices` | device rules: pure forms for version 1 (a list) and version 2 (a BPF program), and applying them |
//! | `plan` | pure: all of them in one value |
//! | `hierarchies` | the host, probed: mount points opened once and verified |
//! | `cgroup`, `make`, `enable`, `apply` | making the directories, removed again on drop unless kept |
//! | `turn` | who may make or remove the directories right now |
//! | `door` | the way in that needs no lock over all processes |
//! | `node` | one directory: every file by its name below an open directory |
//! | `systemd` | the systemd driver: a scope by D-Bus, its name and properties as pure values |
//! | `delegate` | the version 2 directory given to the container's user |
//! | `freeze`, `kill`, `processes`, `destroy` | the container's life and its end |
//! | `update`, `statistics`, `oom` | limits changed, use measured, memory watched while it runs |
//! | `sub` | groups below the container's own |
#![forbid(unsafe_code)]

mod apply;
mod cgroup;
mod delegate;
mod destroy;
mod devices;
mod door;
mod enable;
mod error;
mod facts;
mod freeze;
mod hierarchies;
mod kill;
mod make;
mod node;
mod oom;
mod place;
mod plan;
mod processes;
mod refusal;
mod resources;
pub mod statistics;
mod sub;
mod systemd;
mod turn;
mod update;
mod wait;

pub use cgroup::{Cgroup, SavedPaths};
pub use devices::DeviceRules;
pub use door::Door;
pub use error::{CgroupError, RefusedLimit, Result};
pub use facts::{Facts, Hierarchy, Layout, Version};
pub use hierarchies::Hierarchies;
pub use oom::{MemoryDeath, Oom, OomWatch};
pub use place::Place;
pub use plan::{CgroupPlan, CgroupSpec, Manager, plan};
pub use refusal::Refusal;
pub use resources::{Write, writes_of};
pub use statistics::Statistics;
pub use sub::SubPaths;
pub use systemd::Unit;
