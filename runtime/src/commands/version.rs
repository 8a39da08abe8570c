//! `--version`, in the form that Docker and podman parse.

/// The newest runtime specification whose members are known.
pub const SPEC_VERSION: &str = "1.3.0";

/// Prints name, version, commit and specification.
pub fn print(name: &str) {
    println!("{name} version {}", env!("CARGO_PKG_VERSION"));
    if let Some(commit) = option_env!("HULL_COMMIT") {
        println!("commit: {commit}");
    }
    println!("spec: {SPEC_VERSION}");
}
