//! `hull-build build`: for now its front half, the check of a Dockerfile.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Outcome;
use crate::dockerfile;

/// What `build` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The Dockerfile (default: PATH/Dockerfile; - reads standard input)
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    check: bool,
    /// The context
    context: PathBuf,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if !arguments.check {
        return Err("only --check works yet".into());
    }
    let path = arguments.file.clone().unwrap_or_else(|| arguments.context.join("Dockerfile"));
    let mut source = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(1 + dockerfile::lines::MAX_BYTES as u64).read_to_string(&mut source)?;
    } else {
        source = std::fs::read_to_string(&path)?;
    }
    let name = path.display().to_string();
    match dockerfile::parse(&source) {
        Err(error) => {
            eprint!("{}", error.render(&name, &source));
            Ok(ExitCode::FAILURE)
        }
        Ok(file) => {
            file.warnings.iter().for_each(|warning| eprint!("{}", warning.render(&name, &source)));
            println!("check complete, {} warnings found", file.warnings.len());
            Ok(ExitCode::from(u8::from(!file.warnings.is_empty())))
        }
    }
}
