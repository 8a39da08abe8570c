use super::ast::*;
use super::*;

fn instructions(body: &str) -> Vec<Instruction> {
    let file = parse(&format!("FROM scratch\n{body}")).unwrap();
    file.stages[0].instructions.iter().map(|i| i.node.clone()).collect()
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.into())
}

fn run(body: &str) -> Run {
    match instructions(body).remove(0) {
        Instruction::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(body: &str) -> Copy {
    match instructions(body).remove(0) {
        Instruction::Copy(copy) => *copy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn continuations_join_skipping_comments_and_empty_lines() {
    for body in [
        "RUN a \\\n  b\n",
        "RUN a \\\n# comment\n  b",
        "RUN a \\  \n   # indented comment\n\n  b\r\n",
        "  RUN a \\\r\n  b",
    ] {
        assert_eq!(run(body).command, shell("a   b"), "{body:?}");
    }
    assert_eq!(run("RUN echo a\\\\\n").command, shell("echo a\\\\"), "an escaped escape continues nothing");
    assert_eq!(run("RUN a \\").command, shell("a"), "a continuation may meet the end of the file");
}

#[test]
fn directives_are_read_once_and_only_at_the_top() {
    let file =
        parse("\u{feff}# Syntax = docker/dockerfile:1\n#escape=`\nFROM scratch\nRUN a `\n b\n").unwrap();
    assert_eq!(file.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.stages[0].instructions[0].node, Instruction::Run(run("RUN a  b")));
    let late = parse("# a comment\n# escape=`\nFROM scratch\n").unwrap();
    assert_eq!(late.directives.escape, '\\');
    let twice = parse("# escape=`\n# escape=\\\nFROM scratch\n").unwrap_err();
    assert_eq!(twice.message, "only one escape parser directive can be used");
    assert_eq!(
        parse("# escape=x\nFROM scratch\n").unwrap_err().message,
        "invalid escape token 'x', must be ` or \\"
    );
}

#[test]
fn commands_come_as_shell_or_exec_and_bad_json_is_shell() {
    assert_eq!(run("RUN [\"a\", \"b c\"]").command, CommandLine::Exec(vec!["a".into(), "b c".into()]));
    assert_eq!(run("RUN ['a']").command, shell("['a']"));
    assert_eq!(run("RUN [ -f x ] && y").command, shell("[ -f x ] && y"));
    assert!(parse("FROM scratch\nRUN [1]").unwrap_err().message.contains("only strings"));
}

#[test]
fn heredocs_bring_their_bodies() {
    let one = run("RUN <<EOF\necho 1\n  EOF\nEOF\n");
    assert_eq!((one.command, one.heredocs[0].body().as_str()), (shell("<<EOF"), "echo 1\n  EOF\n"));
    let chomped = run("RUN <<-\"END\"\n\techo 1\n\t\tEND\n");
    assert_eq!(chomped.heredocs[0].body(), "echo 1\n");
    assert!(!chomped.heredocs[0].expand);
    let two = copy("COPY <<a.txt <<'b.txt' x /dir/\none\na.txt\ntwo\nb.txt\n");
    let bodies: Vec<_> = two.heredocs.iter().map(|h| (h.name.clone(), h.body(), h.expand)).collect();
    assert_eq!(bodies, [("a.txt".into(), "one\n".into(), true), ("b.txt".into(), "two\n".into(), false)]);
    assert_eq!((two.sources, two.destination), (vec!["x".to_owned()], "/dir/".to_owned()));
    assert_eq!(run("RUN cat 3<<X <<Y\n1\nX\n2\nY\n").heredocs.len(), 2);
    assert_eq!(run("RUN echo \"<<EOF\"").heredocs.len(), 0, "quoted: an ordinary word");
    assert_eq!(run("RUN read x <<< word").heredocs.len(), 0, "a here-string");
    let open = parse("FROM scratch\nRUN <<EOF\necho\n").unwrap_err();
    assert_eq!(
        (open.span.first, open.message.as_str()),
        (2, "unterminated heredoc: no line holds only `EOF`")
    );
}

#[test]
fn run_flags_are_typed() {
    let run = run(
        "RUN --mount=type=cache,target=/c,id=x,sharing=locked,mode=0700 --mount=from=s,dst=/b,rw --network=none true",
    );
    assert_eq!(run.network, Network::None);
    assert_eq!(run.mounts[0].kind, mount::MountKind::Cache);
    assert_eq!((run.mounts[0].sharing, run.mounts[0].mode), (mount::Sharing::Locked, Some(0o700)));
    assert_eq!((run.mounts[1].from.as_deref(), run.mounts[1].writable), (Some("s"), Some(true)));
}

#[test]
fn copy_flags_are_typed() {
    let copy = copy(
        "COPY --from=0 --chown=a:b --chmod=u=rwX,go=rX --link --parents --exclude=*.o --exclude=b [\"a b\", \"c\"]",
    );
    assert_eq!((copy.from.as_deref(), copy.chown.as_deref()), (Some("0"), Some("a:b")));
    assert_eq!(copy.chmod.as_deref(), Some("u=rwX,go=rX"));
    assert!(copy.link && copy.parents && !copy.add);
    assert_eq!(
        (copy.exclude, copy.sources),
        (vec!["*.o".to_owned(), "b".to_owned()], vec!["a b".to_owned()])
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn errors_name_line_and_meaning() {
    let rows = [
        ("", 1, "the file holds no instructions", None),
        ("RUN x", 1, "no build stage yet: only ARG may stand before the first FROM, not RUN", None),
        ("FROM scratch\nRUNN x", 2, "unknown instruction: RUNN", Some("did you mean `RUN`?")),
        ("FROM a b", 1, "FROM requires either one argument, or three: FROM <image> AS <name>", None),
        (
            "FROM a AS 1",
            1,
            "invalid name for a stage: \"1\"; it begins with a letter and holds letters, digits, - _ .",
            None,
        ),
        (
            "FROM a\nCOPY x",
            2,
            "COPY requires at least two arguments, but only one was given: no destination",
            None,
        ),
        ("FROM a\nCOPY --form=x a b", 2, "unknown flag: --form", Some("did you mean `--from`?")),
        ("FROM a\nCOPY --from=x --from=y a b", 2, "duplicate flag specified: from", None),
        ("FROM a\nCOPY --chown a b", 2, "missing a value on flag: chown", None),
        ("FROM a\nADD --from=x a b", 2, "unknown flag: --from", None),
        ("FROM a\nRUN []", 2, "RUN requires at least one argument", None),
        (
            "FROM a\nRUN --mount=type=cahce,target=/x y",
            2,
            "unsupported mount type \"cahce\"",
            Some("did you mean `cache`?"),
        ),
        ("FROM a\nRUN --mount=type=cache y", 2, "a cache mount needs a target", None),
        (
            "FROM a\nRUN --mount=type=bind,target=/x,propagation=shared y",
            2,
            "unexpected option \"propagation\" of a bind mount",
            None,
        ),
        (
            "FROM a\nRUN --mount=type=bind,target=/x,from=$y z",
            2,
            "from doesn't expand variables: name a stage instead",
            None,
        ),
        ("FROM a\nRUN --network=hots y", 2, "invalid network mode \"hots\"", Some("did you mean `host`?")),
        (
            "FROM a\nRUN --security=insecure2 y",
            2,
            "invalid security mode \"insecure2\"",
            Some("did you mean `insecure`?"),
        ),
        ("FROM a\nENV x", 2, "ENV must have two arguments", None),
        (
            "FROM a\nENV a=b c",
            2,
            "syntax error: can't find = in \"c\"; it must be of the form name=value",
            None,
        ),
        ("FROM a\nSHELL sh -c", 2, "SHELL requires its arguments as a JSON list of strings", None),
        ("FROM a\nONBUILD FROM b", 2, "FROM isn't allowed as an ONBUILD trigger", None),
        ("FROM a\nONBUILD ONBUILD RUN b", 2, "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", None),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", 2, "--interval must be 0 or at least 1ms, like 30s", None),
        ("FROM a\nHEALTHCHECK FOO", 2, "unknown type \"FOO\" in HEALTHCHECK", None),
        ("FROM a\nUSER", 2, "USER requires exactly one argument", None),
        ("FROM a\nRUN", 2, "RUN requires at least one argument", None),
        ("FROM a\nRUN x\0y", 2, "the file holds a NUL byte", None),
    ];
    for (source, line, message, hint) in rows {
        let found = parse(source).unwrap_err();
        assert_eq!(
            (found.span.first, found.message.as_str(), found.hint.as_deref()),
            (line, message, hint),
            "{source}"
        );
    }
}

#[test]
fn lint_rules_fire_and_stay_silent() {
    let rows: [(&str, &[&str]); 16] = [
        ("FROM scratch AS Base\n", &["StageNameCasing"]),
        ("FROM scratch as base\n", &["FromAsCasing"]),
        ("FROM scratch\nrun x\nRUN y\n", &["ConsistentInstructionCasing"]),
        ("FROM scratch\nRUN x \\\n\n y\n", &["NoEmptyContinuation"]),
        ("FROM a AS b\nFROM a AS b\n", &["DuplicateStageName"]),
        ("FROM a AS scratch\n", &["ReservedStageName"]),
        ("FROM a\nMAINTAINER me\n", &["MaintainerDeprecated"]),
        ("FROM a\nWORKDIR x\n", &["WorkdirRelativePath"]),
        ("FROM a\nWORKDIR /x\nWORKDIR y\n", &[]),
        ("FROM a\nCMD x\n", &["JSONArgsRecommended"]),
        ("FROM a\nENV a b\n", &["LegacyKeyValueFormat"]),
        ("FROM a\nARG API_TOKEN\n", &["SecretsUsedInArgOrEnv"]),
        ("FROM a\nENV PUBLIC_KEY=x TOKENIZER=y\n", &[]),
        ("FROM --platform=linux/amd64 a\n", &["FromPlatformFlagConstDisallowed"]),
        ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", &["MultipleInstructionsDisallowed"]),
        ("FROM a\nEXPOSE 80/TCP\nEXPOSE 1:2\n", &["ExposeProtoCasing", "ExposeInvalidFormat"]),
    ];
    for (source, rules) in rows {
        let found: Vec<_> = parse(source).unwrap().warnings.iter().filter_map(|w| w.rule).collect();
        assert_eq!(found, rules, "{source}");
    }
}

#[test]
fn the_parser_never_panics_on_cut_input() {
    let source = "# escape=`\nFROM a AS b\nRUN --mount=type=cache,target=/x <<-\"E\" 3<<F\n\té\nE\nF\nCOPY [\"a\",\"b\"]\nENV a=\"b\" c='d'\nHEALTHCHECK --interval=1s CMD x\n";
    for end in (0..=source.len()).filter(|end| source.is_char_boundary(*end)) {
        drop(parse(&source[..end]));
        drop(parse(&source[end..]));
    }
    let deep = format!("FROM scratch\nRUN {}", "[".repeat(100_000));
    assert!(parse(&deep).is_ok());
}

#[test]
fn the_check_directive_skips_rules_and_asks_for_others() {
    let rules = |source: &str| -> Vec<&str> {
        parse(source).unwrap().warnings.iter().filter_map(|warning| warning.rule).collect()
    };
    let body = "FROM scratch\nMAINTAINER x\n# odd\nARG token\n";
    assert_eq!(rules(body), ["MaintainerDeprecated", "SecretsUsedInArgOrEnv"]);
    assert_eq!(rules(&format!("# check=skip=maintainerdeprecated\n{body}")), ["SecretsUsedInArgOrEnv"]);
    assert_eq!(rules(&format!("# check=skip=all\n{body}")), [] as [&str; 0]);
    let asked = rules(&format!("# check=skip=SecretsUsedInArgOrEnv;experimental=all\n{body}"));
    assert_eq!(asked, ["MaintainerDeprecated", "InvalidDefinitionDescription"]);
    let good =
        "# check=experimental=all\nFROM scratch\n# token what it is\nARG token\n\n# a remark\n\nARG other\n";
    assert_eq!(rules(good), ["SecretsUsedInArgOrEnv"]);
    assert!(lint::Policy::of(&parse("# check=error=true\nFROM scratch\n").unwrap()).error);
}
