//! The shim that containerd starts: see `hull_shim::containerd`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    hull_shim::containerd::main()
}
