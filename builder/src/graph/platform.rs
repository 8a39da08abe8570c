//! The names of the platform that is built on, in Go's words.

/// `os/arch[/variant]` of a machine as `uname` names it (`x86_64`, `aarch64`).
pub(crate) fn native_platform(machine: &str) -> String {
    let architecture = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" | "i386" => "386",
        "armv7l" => "arm/v7",
        "ppc64le" | "riscv64" | "s390x" => machine,
        other => other,
    };
    format!("linux/{architecture}")
}

/// The parts of a platform: os, architecture, variant.
pub(super) fn parts(platform: &str) -> (&str, &str, &str) {
    let mut parts = platform.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    (part(), part(), part())
}
