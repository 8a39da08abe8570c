//! The OCI runtime as the shim calls it: one command line for each verb, one place for its errors.

mod command;
mod failure;

pub use command::{Runtime, Streams, output_file, read_output, words};
pub use failure::{outcome_text, plain_text};
