//! `hull features` (features.md).

use crate::error::Result;
use crate::output;
use hull_plan::{FeatureLists, SeccompLists, features_document};
use hull_sys::seccomp::flag_available;
use std::collections::BTreeMap;

/// Prints what this build can do.
pub fn run() -> Result<u8> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let known = hull_seccomp::known_flags();
    let supported = known.iter().filter(|name| is_supported(name)).copied().collect::<Vec<_>>();
    let lists = FeatureLists {
        seccomp: Some(SeccompLists {
            actions: texts(hull_seccomp::actions()),
            operators: texts(hull_seccomp::operators()),
            archs: texts(hull_seccomp::archs()),
            known_flags: texts(known),
            supported_flags: texts(&supported),
        }),
        annotations: BTreeMap::from(
            [
                ("io.hull.version", env!("CARGO_PKG_VERSION")),
                // runc's name, which managers ask for.
                ("org.opencontainers.runc.checkpoint.enabled", "true"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        // A file with CRIU's options; properties of the systemd unit.
        unsafe_annotations: texts(&["org.criu.config", "org.systemd.property."]),
    };
    output::line(features_document(&lists)).map(|()| 0)
}

/// The one member of the document that depends on the host (F2).
fn is_supported(name: &str) -> bool {
    use hull_sys::seccomp as flags;
    match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => flag_available(flags::SECCOMP_FILTER_FLAG_TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => flag_available(flags::SECCOMP_FILTER_FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flag_available(flags::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
            flag_available(flags::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        }
        _ => false,
    }
}
