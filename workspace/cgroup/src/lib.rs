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
//! | `plan` | pure: the three above in one value |
#![forbid(unsafe_code)]

mod facts;
mod place;
mod plan;
mod refusal;
mod resources;

pub use facts::{Facts, Hierarchy, Layout, Version};
pub use place::Place;
pub use plan::{CgroupPlan, CgroupSpec, plan};
pub use refusal::Refusal;
pub use resources::{Write, writes_of};
