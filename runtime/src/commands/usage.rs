//! Help and wrong usage, with runc's exit status and first lines.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Exit status for an unknown command.
const UNKNOWN_COMMAND: u8 = 3;

/// Prints the general help.
pub fn print_help(name: &str) {
    print!("{}", help_text(name));
}

/// The general help: runc's headings, then clap's list.
fn help_text(name: &str) -> String {
    let body = crate::command_line(name).render_long_help().to_string();
    format!("NAME:\n   {name} - Open Container Initiative runtime\n\n{body}")
}

/// Says what was wrong with the command line, or prints the help that was asked for; returns the exit status.
pub fn explain(error: &clap::Error, name: &str) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print!("NAME:\n   {name} - Open Container Initiative runtime\n\n{}", error.render());
            0
        }
        ErrorKind::InvalidSubcommand => {
            eprintln!("No help topic for '{}'", context(error, ContextKind::InvalidSubcommand));
            UNKNOWN_COMMAND
        }
        ErrorKind::UnknownArgument => {
            let argument = context(error, ContextKind::InvalidArg);
            let flag = argument.split('=').next().unwrap_or_default().trim_start_matches('-').to_owned();
            println!("Incorrect Usage: flag provided but not defined: -{flag}\n\n{}", error.render());
            eprintln!("flag provided but not defined: -{flag}");
            1
        }
        _ => {
            println!("Incorrect Usage.\n\n{}", error.render());
            eprintln!("{name}: {}", first_line(&error.render().to_string()));
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

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
