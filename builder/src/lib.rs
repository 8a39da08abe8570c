//! The builder behind `hull-build`: a Dockerfile and a context become an OCI image.
//!
//! Pure front half (`dockerfile`, `graph`): text becomes a graph of steps, no file, clock or process is touched.
//! Effectful half: the steps are carried out, packed into layers and described in the store. It must never run a
//! step in its own root file system, nor resolve a name of the context or of an image by path.
#![forbid(unsafe_code)]

mod audit;
mod build;
mod bundle;
mod cache;
mod cli;
mod commands;
mod context;
mod deadline;
mod directory;
pub mod dockerfile;
mod error;
mod execute;
mod git;
mod graph;
mod guard;
mod host;
mod ids;
mod inputs;
mod interrupt;
mod pack;
mod pattern;
mod progress;
mod registry;
mod rootless;
mod secrets;
mod signals;
mod snapshot;
mod spelling;
mod steps;
mod workspace;

use std::process::ExitCode;

/// Runs the program named by the process's own arguments and returns its exit code.
pub fn main() -> ExitCode {
    cli::run()
}
