//! Help and wrong usage, with runc's exit status and first lines.

use crate::output::{error_line, text};
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Exit status for an unknown command.
const UNKNOWN_COMMAND: u8 = 3;

/// Prints the general help.
pub fn print_help(name: &str) {
    text(crate::command_line(name).render_long_help());
}

/// Says what was wrong with the command line, or prints the help that was asked for; returns the exit status.
pub fn explain(error: &clap::Error, name: &str) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            text(error.render());
            0
        }
        ErrorKind::InvalidSubcommand => {
            error_line(format_args!(
                "No help topic for '{}'",
                context(error, ContextKind::InvalidSubcommand)
            ));
            UNKNOWN_COMMAND
        }
        ErrorKind::UnknownArgument if context(error, ContextKind::InvalidArg).starts_with('-') => {
            let argument = context(error, ContextKind::InvalidArg);
            let flag = argument.split('=').next().unwrap_or_default().trim_start_matches('-').to_owned();
            text(format_args!(
                "Incorrect Usage: flag provided but not defined: -{flag}\n\n{}\n",
                error.render()
            ));
            error_line(format_args!("flag provided but not defined: -{flag}"));
            1
        }
        _ => {
            text(format_args!("Incorrect Usage.\n\n{}\n", error.render()));
            error_line(format_args!("{name}: {}", reason(&error.render().to_string())));
            1
        }
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// The first paragraph of clap's explanation on one line.
fn reason(text: &str) -> String {
    let paragraph = text.trim_start_matches("error: ").lines().take_while(|line| !line.trim().is_empty());
    paragraph.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_reason_is_one_line_with_what_is_missing() {
        let text =
            "error: the following required arguments were not provided:\n  <CONTAINER-ID>\n\nUsage: x\n";
        assert_eq!(reason(text), "the following required arguments were not provided: <CONTAINER-ID>");
    }
}
