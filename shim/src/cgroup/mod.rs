//! A container's cgroup as the shim sees it: where it is, its statistics, its kills for lack of memory.

mod fields;
mod oom;
mod place;
mod v1;
mod v2;

pub use oom::OomWatch;
pub use place::Place;

use crate::api::Any;

/// The statistics of a cgroup in the message that containerd reads for its version.
pub fn statistics(place: &Place) -> Any {
    match place {
        Place::V1(controllers) => {
            Any { type_url: "io.containerd.cgroups.v1.Metrics".to_owned(), value: v1::metrics(controllers) }
        }
        Place::V2(directory) => {
            Any { type_url: "io.containerd.cgroups.v2.Metrics".to_owned(), value: v2::metrics(directory) }
        }
    }
}
