//! How flags may be written: as Docker's command line takes them.
//!
//! A flag may be given its value (`--no-cache=false`), and of a setting that is given twice the last one counts: scripts that
//! put flags together rely on both.

use clap::{Arg, ArgAction, Command};

/// The same command, with these two habits.
pub(crate) fn as_docker(command: Command) -> Command {
    command.args_override_self(true).mut_args(with_value).mut_subcommands(as_docker)
}

/// A flag that may have a value behind `=`; other arguments stay as they are.
fn with_value(argument: Arg) -> Arg {
    match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(truth),
        _ => argument,
    }
}

/// The words for yes and no that Go's `ParseBool` knows, which Docker's flags are read with.
///
/// # Errors
/// Another word.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let flag =
            |name: &'static str, letter| Arg::new(name).long(name).short(letter).action(ArgAction::SetTrue);
        let name = Arg::new("name").long("name");
        let list = Arg::new("list").long("list").action(ArgAction::Append);
        let first = Arg::new("first").required(false);
        let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
        let sub = Command::new("sub").args([flag("it", 'i'), flag("tty", 't'), name, list, first, rest]);
        as_docker(Command::new("main").subcommand(sub))
    }

    #[test]
    fn a_flag_may_have_a_value_and_the_last_one_counts() {
        for (words, it, tty) in [
            ("", false, false),
            ("-it", true, true),
            ("--it --it", true, false),
            ("--it=false", false, false),
            ("-i=0 --tty=T", false, true),
            ("--it --it=FALSE", false, false),
            ("--it=f --it", true, false),
            ("-i true", true, false),
        ] {
            let all = ["main", "sub"].into_iter().chain(words.split_whitespace());
            let matches = command().try_get_matches_from(all).unwrap_or_else(|e| panic!("{words}: {e}"));
            let sub = matches.subcommand_matches("sub").unwrap();
            assert_eq!((sub.get_flag("it"), sub.get_flag("tty")), (it, tty), "{words}");
        }
        for words in ["--it=yes", "--it=", "--name"] {
            assert!(command().try_get_matches_from(["main", "sub", words]).is_err(), "{words}");
        }
    }

    #[test]
    fn of_a_setting_the_last_value_counts_and_lists_grow() {
        let words = "main sub --name a --list 1 --name=b --list 2 x y --it=false";
        let matches = command().try_get_matches_from(words.split_whitespace()).unwrap();
        let sub = matches.subcommand_matches("sub").unwrap();
        assert_eq!(sub.get_one::<String>("name").unwrap(), "b");
        assert_eq!(sub.get_many::<String>("list").unwrap().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(sub.get_many::<String>("rest").unwrap().collect::<Vec<_>>(), ["y", "--it=false"]);
    }
}
