use super::*;
use crate::dockerfile::parse;
use resolve::Bases;

fn options() -> Options {
    Options { platform: "linux/amd64".into(), epoch: 7, ..Options::default() }
}

fn plan_with(source: &str, options: &Options, bases: &Bases) -> Result<Plan, Diagnostic> {
    match resolve(&parse(source)?, options, bases)? {
        Resolved::Plan(plan) => Ok(*plan),
        Resolved::NeedsImages(images) => panic!("needs {images:?}"),
    }
}

fn plan(source: &str) -> Plan {
    plan_with(source, &options(), &Bases::new()).unwrap()
}

fn run_of(plan: &Plan, index: usize) -> &RunAction {
    match &plan.steps[index].action {
        Action::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy_of(plan: &Plan, index: usize) -> &CopyAction {
    match &plan.steps[index].action {
        Action::Copy(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn env_of(plan: &Plan, index: usize, name: &str) -> Option<String> {
    run_of(plan, index).env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

#[test]
fn env_beats_arg_and_values_see_what_held_before() {
    let plan = plan("FROM scratch\nARG A=arg\nENV A=env\nARG B=$A\nENV C=1\nENV C=2 D=$C\nRUN x\n");
    assert_eq!(env_of(&plan, 0, "A").as_deref(), Some("env"));
    assert_eq!(env_of(&plan, 0, "B").as_deref(), Some("env"));
    assert_eq!(env_of(&plan, 0, "D").as_deref(), Some("1"));
    assert_eq!(env_of(&plan, 0, "SOURCE_DATE_EPOCH").as_deref(), Some("7"));
    assert_eq!(plan.history[5].by, "RUN |1 B=env /bin/sh -c x");
}

#[test]
fn the_time_that_a_file_says_is_made_of_what_held_there() {
    let own = |source: &str| own_epoch(&parse(source).unwrap(), &options());
    let source = "ARG T=5\nARG SOURCE_DATE_EPOCH=$T\nARG T=6\nFROM scratch\n";
    assert_eq!(own(source).unwrap().as_deref(), Some("5"));
    assert_eq!(own("ARG SOURCE_DATE_EPOCH\nFROM scratch\n").unwrap(), None);
    // Who is told the time by others needs not know what the file would have said.
    let wrong = "ARG SOURCE_DATE_EPOCH=${NOT_THERE:?}\nFROM scratch\n";
    assert!(own(wrong).is_err() && plan(wrong).warnings.is_empty());
}

#[test]
fn global_arguments_are_seen_in_from_and_after_redeclaring() {
    let source = "ARG V=1 W=$V-x\nFROM scratch AS a\nRUN echo $V\nFROM scratch\nARG V\nARG W=own\nRUN x\nARG TARGETARCH\nRUN y\n";
    let mut options = options();
    options.target = Some("A".into());
    let first = plan_with(source, &options, &Bases::new()).unwrap();
    assert_eq!(env_of(&first, 0, "V"), None);
    let second = plan(source);
    assert_eq!(env_of(&second, 0, "V").as_deref(), Some("1"));
    assert_eq!(env_of(&second, 0, "W").as_deref(), Some("own"));
    assert_eq!(
        (env_of(&second, 0, "TARGETARCH"), env_of(&second, 1, "TARGETARCH").as_deref()),
        (None, Some("amd64"))
    );
    options.target = None;
    options.build_args.insert("V".into(), "given".into());
    assert_eq!(
        env_of(&plan_with(source, &options, &Bases::new()).unwrap(), 0, "V").as_deref(),
        Some("given")
    );
}

#[test]
fn unused_stages_are_skipped_and_names_beat_images() {
    let plan = plan(
        "FROM scratch AS a\nRUN a\nFROM nowhere AS unused\nRUN u\nFROM scratch AS c\nCOPY --from=0 /x /y\nCOPY --from=a /z /\n",
    );
    assert_eq!(plan.skipped, ["unused"]);
    assert_eq!(plan.steps.len(), 3);
    assert_eq!(copy_of(&plan, 1).input, Input::Root(Root::Step(0)));
    assert_eq!(plan.steps[2].needs(), BTreeSet::from([0, 1]));
    assert_eq!(plan.steps[2].number, (2, 2));
}

#[test]
fn images_are_asked_for_before_planning() {
    let file = parse("FROM base AS a\nFROM a\nCOPY --from=tools /t /t\nRUN --mount=from=more,target=/m x\n")
        .unwrap();
    let Resolved::NeedsImages(images) = resolve(&file, &options(), &Bases::new()).unwrap() else { panic!() };
    let names: Vec<_> = images.iter().map(|(name, span)| (name.as_str(), span.first)).collect();
    assert_eq!(names, [("base", 1), ("more", 4), ("tools", 3)]);
}

#[test]
fn triggers_run_first_and_are_not_passed_on() {
    let mut base = ImageConfig::default();
    base.config.on_build = vec!["RUN first".into(), "COPY . /src".into()];
    base.config.entrypoint = Some(vec!["e".into()]);
    base.config.cmd = Some(vec!["c".into()]);
    let bases = Bases::from([("base".to_owned(), base.clone())]);
    let built = plan_with("FROM base\nRUN own\n", &options(), &bases).unwrap();
    let texts: Vec<_> = built.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["RUN first", "COPY . /src", "RUN own"]);
    assert!(built.config.config.on_build.is_empty());
    assert_eq!(built.config.config.cmd, Some(vec!["c".into()]));
    let entry = plan_with("FROM base\nENTRYPOINT [\"n\"]\n", &options(), &bases).unwrap();
    assert_eq!(entry.config.config.cmd, None, "an inherited CMD goes");
    let both = plan_with("FROM base\nCMD [\"k\"]\nENTRYPOINT [\"n\"]\n", &options(), &bases).unwrap();
    assert_eq!(both.config.config.cmd, Some(vec!["k".into()]), "one set here stays");
    let bad = Bases::from([("base".to_owned(), {
        base.config.on_build = vec!["RNU x".into()];
        base
    })]);
    let error = plan_with("FROM base\n", &options(), &bad).unwrap_err();
    assert_eq!(error.message, "ONBUILD trigger of the base \"RNU x\": unknown instruction: RNU");
}

#[test]
fn settings_reach_the_configuration() {
    let plan = plan(
        "FROM scratch\nENV A=x\nEXPOSE 80 8000-8001/UDP $A$B 9/sctp\nVOLUME /v [\"/w\"]\nVOLUME [\"/w\"]\nUSER u:$A\nWORKDIR /a/\nWORKDIR b/../c\nSTOPSIGNAL SIGTERM\nLABEL k=\"$A y\" z='$A'\nSHELL [\"/bin/ash\",\"-c\"]\nCMD run me\nHEALTHCHECK --interval=5s CMD probe\n"
            .replace(" $A$B", "")
            .as_str(),
    );
    let config = &plan.config.config;
    let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["80/tcp", "8000/udp", "8001/udp", "9/sctp"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("u:x", "/a/c"));
    assert_eq!(config.labels["k"], "x y");
    assert_eq!(config.labels["z"], "$A");
    assert_eq!(config.cmd, Some(["/bin/ash", "-c", "run me"].map(String::from).to_vec()));
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "probe"]);
    assert_eq!(config.env[0], format!("PATH={}", stage::DEFAULT_PATH));
    assert!(config.volumes.contains_key("/w") && config.volumes.contains_key("/v"));
    assert_eq!(plan.steps.len(), 2, "each WORKDIR makes a layer");
}

#[test]
fn heredocs_become_commands_scripts_and_files() {
    let plan = plan(
        "FROM scratch\nENV V=1\nRUN <<EOF\necho $V\nEOF\nRUN <<EOF\n#!/bin/cat\nx\nEOF\nRUN cat <<A >f\nb\nA\nCOPY <<F <<\"G\" /d/\n$V \"q\" \\$V\nF\n$V\nG\n",
    );
    assert_eq!(run_of(&plan, 0).args, ["/bin/sh", "-c", "echo $V\n"]);
    assert_eq!(run_of(&plan, 1).script, Some(("EOF".into(), "#!/bin/cat\nx\n".into())));
    assert_eq!(run_of(&plan, 1).args, ["/dev/pipes/EOF"]);
    assert_eq!(run_of(&plan, 2).args[2], "cat <<A >f\nb\nA");
    let files = [("F", "1 \"q\" $V\n"), ("G", "$V\n")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(copy_of(&plan, 3).inline, files);
}

#[test]
fn mounts_get_places_names_and_owners() {
    let plan = plan(
        "FROM scratch AS s\nRUN x\nFROM scratch\nENV N=npm\nWORKDIR /w\nRUN --mount=type=cache,target=$N --mount=from=s,src=/a,dst=/b --mount=type=secret,id=k,env=E --mount=type=secret,id=t,uid=5 x\n",
    );
    let mounts = &run_of(&plan, 2).mounts;
    assert_eq!(mounts[0].target, "/w/npm");
    assert!(matches!(&mounts[0].kind, MountSource::Cache { id, .. } if id == "/w/npm"));
    assert!(
        matches!(&mounts[1].kind, MountSource::Bind { input: Input::Root(Root::Step(0)), path, writable: false } if path == "/a")
    );
    assert!(matches!(&mounts[2].kind, MountSource::Secret { file: false, env: Some(e), .. } if e == "E"));
    assert_eq!(mounts[3].target, "/run/secrets/t");
    assert!(matches!(&mounts[3].kind, MountSource::Secret { mode: 0o400, owner: (5, 0), .. }));
}

#[test]
fn proxies_reach_run_but_neither_key_nor_history() {
    let mut options = options();
    options.build_args.insert("http_proxy".into(), "p".into());
    let plan = plan_with("FROM scratch\nRUN x\n", &options, &Bases::new()).unwrap();
    assert_eq!(run_of(&plan, 0).hidden_env, [("http_proxy".to_owned(), "p".to_owned())]);
    assert!(run_of(&plan, 0).env.iter().all(|(name, _)| name != "http_proxy"));
    assert_eq!(plan.history[0].by, "RUN /bin/sh -c x");
}

#[test]
fn refusals_name_the_line() {
    let rows = [
        ("FROM scratch\nRUN --security=insecure x", 2, "security.insecure is not allowed"),
        ("FROM scratch\nRUN --network=host x", 2, "network.host is not allowed"),
        ("FROM $X", 1, "the base name ($X) should not be blank"),
        (
            "FROM --platform=linux/arm64 scratch",
            1,
            "platform linux/arm64 can't be built here: only linux/amd64 can, there is no emulation",
        ),
        (
            "FROM scratch\nCOPY a b c",
            2,
            "COPY with more than one source needs a destination that ends with /",
        ),
        ("FROM scratch\nENV A=${B:?must}", 2, "B: must"),
        ("FROM scratch\nSTOPSIGNAL SIGFOO", 2, "invalid signal \"SIGFOO\""),
        ("FROM scratch\nEXPOSE 80/foo", 2, "invalid port \"80/foo\""),
        ("FROM scratch\nEXPOSE 9-8", 2, "invalid port \"9-8\""),
        (
            "FROM scratch\nADD git@x:y.git#-x /",
            2,
            "the repository git@x:y.git#-x: no reference has this name",
        ),
        ("FROM scratch\nADD --checksum=sha256:0 a /", 2, "--checksum can only be used with a URL"),
        ("FROM scratch\nRUN --mount=type=tmpfs,target=/ x", 2, "a mount's target can't be the root"),
    ];
    for (source, line, message) in rows {
        let error = plan_with(source, &options(), &Bases::new()).unwrap_err();
        assert_eq!((error.span.first, error.message.as_str()), (line, message), "{source}");
    }
    let missing = Options { target: Some("bild".into()), ..options() };
    let error = plan_with("FROM scratch AS build", &missing, &Bases::new()).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `build`?"));
}

#[test]
fn undefined_variables_are_warned_of_and_growth_is_bounded() {
    let found = plan("FROM scratch\nENV A=$NOPE\n").warnings;
    assert_eq!((found[0].rule, found[0].span.first), (Some("UndefinedVar"), 2));
    let doubling = format!("FROM scratch\nENV a=xxxxxxxxxx\n{}", "ENV a=$a$a\n".repeat(40));
    assert!(plan_with(&doubling, &options(), &Bases::new()).unwrap_err().message.contains("longer than"));
}

#[test]
fn froms_that_need_arguments_are_warned_of() {
    let rules = |source: &str, given: &[(&str, &str)]| -> Vec<&'static str> {
        let mut options = options();
        options.build_args = given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let bases = Bases::from([
            (
                "good:1".to_owned(),
                ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() },
            ),
            (
                "other:1".to_owned(),
                ImageConfig { os: "linux".into(), architecture: "arm64".into(), ..ImageConfig::default() },
            ),
        ]);
        plan_with(source, &options, &bases)
            .unwrap()
            .warnings
            .iter()
            .filter_map(|warning| warning.rule)
            .collect()
    };
    assert_eq!(rules("ARG V=1\nFROM good:$V\n", &[]), [] as [&str; 0]);
    assert_eq!(rules("ARG V\nFROM good:$V\n", &[("V", "1")]), ["InvalidDefaultArgInFrom"]);
    assert_eq!(rules("FROM good:1$V\n", &[]), ["UndefinedArgInFrom"]);
    assert_eq!(rules("FROM other:1\n", &[]), ["InvalidBaseImagePlatform"]);
    assert_eq!(rules("ARG B=good:1\nFROM scratch AS s\nFROM $B\n", &[]), [] as [&str; 0]);
}

#[test]
fn copies_read_from_later_stages_but_never_in_a_circle() {
    let source = "FROM scratch AS last\nCOPY --from=tool /t /\nCOPY --from=2 /u /\nFROM scratch AS tool\nCOPY t /\nFROM scratch\nCOPY u /\n";
    let built =
        plan_with(source, &Options { target: Some("last".into()), ..options() }, &Bases::new()).unwrap();
    let stages: Vec<_> = built.steps.iter().map(|step| step.stage.as_str()).collect();
    assert_eq!(stages, ["tool", "stage-2", "last", "last"]);
    let own = plan(
        "FROM scratch AS a\nRUN one\nFROM scratch AS a\nRUN two\nFROM scratch\nRUN --mount=from=a,target=/a x\n",
    );
    assert_eq!(own.steps[0].text, "RUN two", "of two stages of a name the later one");
    let rows = [
        (
            "FROM scratch AS a\nCOPY --from=b /f /\nFROM scratch AS b\nCOPY --from=a /f /\n",
            "circular dependency among the stages a, b",
        ),
        ("FROM scratch\nCOPY --from=0 /f /\n", "circular dependency among the stages stage-0"),
        ("FROM scratch\nCOPY --from=1 /f /\n", "there is no stage 1: the last one is 0"),
    ];
    for (source, message) in rows {
        assert_eq!(plan_with(source, &options(), &Bases::new()).unwrap_err().message, message);
    }
    // FROM knows what stands before it only: another stage of this name is an image to it.
    let base = ImageConfig::default();
    let bases = Bases::from([("b".to_owned(), base)]);
    let built = plan_with("FROM b AS a\nFROM scratch AS b\nFROM a\n", &options(), &bases).unwrap();
    assert_eq!(built.root, Root::Image("b".into()));
}

#[test]
fn triggers_of_a_stage_run_in_those_that_begin_with_it() {
    let source = "FROM scratch AS a\nONBUILD RUN first\nRUN a\nFROM a AS b\nRUN b\nFROM b\nRUN c\n";
    let built = plan(source);
    let texts: Vec<_> = built.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["RUN a", "RUN first", "RUN b", "RUN c"]);
    assert!(built.config.config.on_build.is_empty());
}

#[test]
fn a_context_of_a_stages_name_takes_its_place() {
    let source = "FROM scratch AS tool\nRUN never\nFROM tool\nCOPY --from=Tool /t /\n";
    let mut options = options();
    options.directories.insert("tool".into());
    let built = plan_with(source, &options, &Bases::new()).unwrap();
    assert_eq!(built.steps.len(), 2);
    assert_eq!(copy_of(&built, 1).input, Input::Directory("tool".into()));
    let mut options = Options { directories: BTreeSet::new(), ..options };
    options.images.insert("tool".into(), "docker.io/library/other".into());
    let bases = Bases::from([("tool".to_owned(), ImageConfig::default())]);
    let built = plan_with(source, &options, &bases).unwrap();
    assert_eq!(built.base.as_deref(), Some("tool"));
    assert_eq!(copy_of(&built, 0).input, Input::Root(Root::Image("tool".into())));
    for (text, name) in [
        ("Alpine", "alpine"),
        ("docker.io/library/alpine:latest", "alpine"),
        ("a/b:1", "a/b:1"),
        ("x y", "x y"),
    ] {
        assert_eq!(context_name(text), name);
    }
}
