//! The habits of runc's command line that clap does not share, turned into its own before it reads them.
//!
//! | habit | here |
//! |---|---|
//! | long options with one dash (`-root DIR`) | a second dash is put in front |
//! | `exec ID` and `ps ID`: all that follows belongs to the program | `--` is put behind the id |

/// Options of `exec` and `ps` that take a value, to find the id behind them.
const WITH_VALUE: [&str; 16] = [
    "--console-socket",
    "--pidfd-socket",
    "--cwd",
    "--env",
    "-e",
    "--user",
    "-u",
    "--additional-gids",
    "-g",
    "--process",
    "-p",
    "--pid-file",
    "--process-label",
    "--apparmor",
    "--cap",
    "-c",
];
const MORE_WITH_VALUE: [&str; 4] = ["--preserve-fds", "--cgroup", "--format", "-f"];

/// Global options that take a value.
const GLOBAL_WITH_VALUE: [&str; 5] = ["--log", "--log-format", "--root", "--criu", "--rootless"];

/// Rewrites the arguments behind the program's name.
pub fn normalise(arguments: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(arguments.len() + 1);
    let mut rest = arguments.into_iter();
    let mut command = None;
    while let Some(argument) = rest.next() {
        let argument = two_dashes(argument);
        if !argument.starts_with('-') {
            command = Some(argument);
            break;
        }
        let takes_value = GLOBAL_WITH_VALUE.contains(&argument.as_str());
        out.push(argument);
        if takes_value {
            out.extend(rest.next());
        }
    }
    let Some(command) = command else { return out };
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
        let takes_value =
            WITH_VALUE.contains(&argument.as_str()) || MORE_WITH_VALUE.contains(&argument.as_str());
        out.push(argument);
        if !is_option && stops_at_id {
            out.push("--".to_owned());
            let mut program: Vec<_> = rest.collect();
            if program.first().is_some_and(|first| first == "--") {
                program.remove(0);
            }
            out.extend(program);
            return out;
        }
        if takes_value && stops_at_id {
            out.extend(rest.next());
        }
    }
    out
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

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_rewritten_as_runc_reads_them() {
        let table = [
            ("-root /r -debug state c1", "--root /r --debug state c1"),
            ("--log-format json list -q", "--log-format json list -q"),
            ("exec c1 -e A=1 ls -l", "exec c1 -- -e A=1 ls -l"),
            ("exec -e A=1 -u 1:1 -t c1 sh -c x", "exec -e A=1 -u 1:1 -t c1 -- sh -c x"),
            ("exec c1 -- sh", "exec c1 -- sh"),
            ("update c1 --memory -1", "update c1 --memory -1"),
            ("delete c1 -f", "delete c1 -f"),
            ("ps -f json c1 -ef", "ps -f json c1 -- -ef"),
            ("-v", "-v"),
        ];
        for (given, wanted) in table {
            assert_eq!(normalise(words(given)), words(wanted), "{given}");
        }
    }
}
