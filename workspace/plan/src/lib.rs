//! An OCI configuration and facts about the host become an immutable, printable [`Plan`].
//!
//! Pure: no file, clock, environment or process is touched here; the crate is `no_std`, so it cannot. Every refusal of
//! a configuration is made here, before any effect, and names the field as a JSON pointer (RFC 6901).
//!
//! ```text
//! bytes --load--> Spec --+
//!                        +--Plan::build--> Plan
//!           HostFacts ---+
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod build;
mod capabilities;
mod cpu_list;
mod devices;
mod document;
mod entry;
mod exec;
mod hooks;
mod host_parts;
mod load;
mod mounts;
mod paths;
mod plan;
mod print;
mod process;
mod refusal;
mod root;
mod schedule;
mod sysctl;

pub use capabilities::CAPABILITIES;
pub use document::{FeatureLists, SeccompLists, default_spec, features_document};
pub use exec::{ExecPlan, ExecRequest, exec_process, parse_user};
pub use hooks::plan_hooks;
pub use load::{Loaded, LoadedProcess, load, parse_process, parse_resources};
pub use mounts::mount_options;
pub use paths::below as path_below;
pub use plan::{
    Attributes, CapabilityPlan, DeviceKind, DevicePlan, EntryScript, Hook, HookPlan, HostFacts, IdMap,
    IdMaps, JoinNamespace, MemoryPolicyPlan, MountIdMap, MountPlan, MountSource, NamespaceKind, NamespaceSet,
    NetDevice, Plan, ProcessPlan, Propagation, PropagationPlan, Rlimit, RootPlan, SchedulerPlan, Sysctl,
    TimeOffset, Warning,
};
pub use refusal::Refusal;
