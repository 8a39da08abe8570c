//! The monitor that podman starts, and that people use by hand: see `hull_shim::monitor`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    hull_shim::monitor::main()
}
