//! `hull-build`: Dockerfiles in, layered OCI images out, without a daemon.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_build::main()
}
