//! The habits of runc's command line that clap does not share, turned into its own before it reads them.
//!
//! | habit | here |
//! |---|---|
//! | long options with one dash (`-root DIR`) | a second dash is put in front |
//! | `exec ID` and `ps ID`: all that follows belongs to the program | `--` is put behind the id |
//! | flags with a value (`--debug=true`, `--debug=false`) | the flag alone, or nothing |

use clap::{Arg, Command};

/// Rewrites the arguments behind the program's name. Which options take a value is what `grammar` says.
pub fn normalise(arguments: Vec<String>, grammar: &Command) -> Vec<String> {
    let mut out = Vec::with_capacity(arguments.len() + 1);
    let mut rest = arguments.into_iter();
    let mut command = None;
    while let Some(argument) = rest.next() {
        let argument = two_dashes(argument);
        if !argument.starts_with('-') {
            command = Some(argument);
            break;
        }
        let has_value = takes_value(grammar, &argument);
        out.extend(without_truth_value(grammar, argument));
        if has_value {
            out.extend(rest.next());
        }
    }
    let Some(command) = command else { return out };
    let own_grammar = grammar.find_subcommand(&command);
    let stops_at_id = matches!(command.as_str(), "exec" | "ps");
    out.push(command);
    while let Some(argument) = rest.next() {
        if argument == "--" {
            out.push(argument);
            out.extend(rest);
            return out;
        }
        let argument = two_dashes(argument);
        let is_option = argument.starts_with('-') && argument.len() > 1;
        let has_value = own_grammar.is_some_and(|grammar| takes_value(grammar, &argument));
        match own_grammar {
            Some(grammar) => out.extend(without_truth_value(grammar, argument)),
            None => out.push(argument),
        }
        if !is_option && stops_at_id {
            out.push("--".to_owned());
            let mut program: Vec<_> = rest.collect();
            if program.first().is_some_and(|first| first == "--") {
                program.remove(0);
            }
            out.extend(program);
            return out;
        }
        if has_value && stops_at_id {
            out.extend(rest.next());
        }
    }
    out
}

/// True when the next word is the value of the option `argument`.
fn takes_value(grammar: &Command, argument: &str) -> bool {
    option(grammar, argument).is_some_and(|option| option.get_action().takes_values())
}

/// The option that is called `argument`, dashes included.
fn option<'a>(grammar: &'a Command, argument: &str) -> Option<&'a Arg> {
    let long = argument.strip_prefix("--");
    let short = argument.strip_prefix('-').filter(|name| name.chars().count() == 1);
    let short = short.and_then(|name| name.chars().next());
    grammar.get_arguments().find(|option| {
        let aliases = option.get_all_aliases().unwrap_or_default();
        let named = |name| option.get_long() == Some(name) || aliases.contains(&name);
        long.is_some_and(named) || (short.is_some() && option.get_short() == short)
    })
}

/// `--flag=true` is `--flag`, `--flag=false` nothing; what has another value stays, and is refused. The words are those
/// of Go's flags.
fn without_truth_value(grammar: &Command, argument: String) -> Option<String> {
    let Some((name, value)) = argument.split_once('=') else { return Some(argument) };
    if option(grammar, name).is_none_or(|option| option.get_action().takes_values()) {
        return Some(argument);
    }
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(name.to_owned()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => None,
        _ => Some(argument),
    }
}

/// `-root` is `--root`; `-v`, `-` and `-1` are what they are.
fn two_dashes(argument: String) -> String {
    let mut letters = argument.chars();
    let is_long = letters.next() == Some('-')
        && letters.next().is_some_and(|letter| letter.is_ascii_alphabetic())
        && letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '-');
    if is_long { format!("-{argument}") } else { argument }
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use crate::command_line;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_rewritten_as_runc_reads_them() {
        let table = [
            ("-root /r -debug state c1", "--root /r --debug state c1"),
            ("--log-format json list -q", "--log-format json list -q"),
            ("--cgroup-manager cgroupfs exec c1 ls -la", "--cgroup-manager cgroupfs exec c1 -- ls -la"),
            ("exec --cgroup /a -c CAP_KILL c1 ls -la", "exec --cgroup /a -c CAP_KILL c1 -- ls -la"),
            ("exec c1 -e A=1 ls -l", "exec c1 -- -e A=1 ls -l"),
            ("exec -e A=1 -u 1:1 -t c1 sh -c x", "exec -e A=1 -u 1:1 -t c1 -- sh -c x"),
            ("exec c1 -- sh", "exec c1 -- sh"),
            ("update c1 --memory -1", "update c1 --memory -1"),
            ("delete c1 -f", "delete c1 -f"),
            ("ps -f json c1 -ef", "ps -f json c1 -- -ef"),
            ("--debug=true --systemd-cgroup=0 list -q=T", "--debug list -q"),
            ("run --detach=false --keep=x c1", "run --keep=x c1"),
            ("--root=false list", "--root=false list"),
            ("exec -t=1 c1 ls --color=true", "exec -t c1 -- ls --color=true"),
            ("-v", "-v"),
        ];
        for (given, wanted) in table {
            assert_eq!(normalise(words(given), &command_line("hull")), words(wanted), "{given}");
        }
    }
}
