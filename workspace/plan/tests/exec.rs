//! Further processes in a container.

mod common;

use common::{changed, config, facts, load_value, with, with_user_namespace};
use hull_plan::{CapabilityPlan, ExecPlan, ExecRequest, Refusal, exec_process, parse_process, parse_user};
use serde_json::{Value, json};

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SYSLOG: u64 = 1 << 34;

#[rustfmt::skip]
const NOT_USERS: [&str; 55] = [
    "", ":", "1:", ":1", "01", "00", "1:01", "+1", "-1", "-0", " 1", "1 ", "1 :2", "1: 2", "\t1", "1\n",
    "0x1", "1e3", "1_0", "1.0", "1:2:3", "::", "1::2", "4294967295", "4294967296", "1:4294967295",
    "99999999999999999999", "root", "root:root", "1000:users", "1,2", "1;2", "１", "١", "0b1", "0o7", "1:-1",
    "1:+1", "\0", "1\0", "1:0x0", "--", "18446744073709551616", "1/2", "uid", "NaN",
    "1:18446744073709551617", "⁵", "1:\u{a0}2", "1000:", "nobody:1", "1:root", "1-2", "0 0", "00:00",
];

fn exec(config: &Value, request: ExecRequest) -> Result<ExecPlan, Refusal> {
    exec_process(&load_value(config)?.spec, &request, &facts())
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

fn request() -> ExecRequest {
    ExecRequest { args: words(&["id"]), ..ExecRequest::default() }
}

fn file(process: &Value) -> ExecRequest {
    let process = parse_process(process.to_string().as_bytes()).expect("it is valid").process;
    ExecRequest { process: Some(process), ..ExecRequest::default() }
}

#[test]
fn a_user_is_read_exactly_or_refused() {
    for (text, expected) in [
        ("0", (0, None)),
        ("1", (1, None)),
        ("1:2", (1, Some(2))),
        ("0:0", (0, Some(0))),
        ("1000:4294967294", (1000, Some(4_294_967_294))),
        ("4294967294", (4_294_967_294, None)),
    ] {
        assert_eq!(parse_user(text), Ok(expected), "{text}");
    }
    for text in NOT_USERS {
        let refusal = parse_user(text).expect_err(text);
        assert_eq!(refusal.field, "--user", "{text}");
    }
}

#[test]
fn options_change_the_containers_own_process() {
    let container =
        with(config(), "/process/user", json!({"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7]}));
    let plan = exec(
        &container,
        ExecRequest {
            env: words(&["TERM=dumb", "NEW=1"]),
            cwd: Some("/tmp".into()),
            user: Some("8".into()),
            additional_gids: words(&["9", "7"]),
            no_new_privileges: Some(true),
            terminal: true,
            ..request()
        },
    )
    .expect("it is valid");
    let process = plan.process;
    assert_eq!(process.args, ["id"]);
    assert_eq!(process.env, ["PATH=/bin", "TERM=dumb", "NEW=1"]);
    assert_eq!(process.cwd, "/tmp");
    assert_eq!((process.uid, process.gid), (8, 6));
    assert_eq!(process.additional_gids, [6, 7, 9]);
    assert_eq!(process.umask, Some(0o27));
    assert!(process.terminal && process.no_new_privileges);
    assert_eq!(process.rlimits.len(), 1);
    assert_eq!(plan.warnings, []);
}

#[test]
fn a_terminal_is_only_made_when_asked_for() {
    let container = changed("/process/terminal", json!(true));
    assert!(!exec(&container, request()).unwrap().process.terminal);
}

#[test]
fn options_are_refused_by_their_name() {
    for (request, field) in [
        (ExecRequest { user: Some("root".into()), ..request() }, "--user"),
        (ExecRequest { additional_gids: words(&["-1"]), ..request() }, "--additional-gids"),
        (ExecRequest { cwd: Some("tmp".into()), ..request() }, "--cwd"),
        (ExecRequest { env: words(&["A=1", "B"]), ..request() }, "--env/1"),
        (ExecRequest::default(), ""),
        (ExecRequest { apparmor_profile: Some("x".into()), ..request() }, "/process/apparmorProfile"),
        (ExecRequest { selinux_label: Some("x".into()), ..request() }, "/process/selinuxLabel"),
    ] {
        assert_eq!(exec(&config(), request).expect_err(field).field, field);
    }
}

#[test]
fn capabilities_are_the_containers_plus_what_is_named() {
    let sets = |bounding, rest| CapabilityPlan {
        bounding,
        effective: rest,
        permitted: rest,
        inheritable: 0,
        ambient: 0,
    };
    let of = |config: &Value, caps: &[&str]| {
        let plan = exec(config, ExecRequest { capabilities: words(caps), ..request() }).expect("it is valid");
        let texts: Vec<_> = plan.warnings.into_iter().map(|warning| warning.text).collect();
        (plan.process.capabilities.expect("sets are always planned"), texts)
    };
    let none = changed("/process/capabilities", json!({}));
    assert_eq!(of(&none, &[]), (CapabilityPlan::default(), vec![]));
    assert_eq!(of(&none, &["CAP_KILL"]), (sets(KILL, KILL), vec![]));
    assert_eq!(of(&config(), &["CAP_KILL"]), (sets(KILL, KILL), vec![]), "no sets are empty sets");
    let (unknown, texts) = of(&none, &["KILL", "CAP_X"]);
    assert_eq!(unknown, CapabilityPlan::default());
    assert_eq!(texts, ["ignoring unknown capability \"KILL\"", "ignoring unknown capability \"CAP_X\""]);
    let inheritable = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_SYSLOG"], "ambient": ["CAP_CHOWN"]
    });
    let expected = CapabilityPlan {
        bounding: KILL | CHOWN | SYSLOG,
        permitted: KILL | CHOWN | SYSLOG,
        effective: KILL | SYSLOG,
        inheritable: CHOWN | SYSLOG,
        ambient: CHOWN | SYSLOG,
    };
    assert_eq!(of(&changed("/process/capabilities", inheritable), &["CAP_SYSLOG"]), (expected, vec![]));
}

#[test]
fn a_process_file_takes_from_the_container_what_it_leaves_out() {
    let mut container = config();
    container["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
    container["process"]["oomScoreAdj"] = json!(5);
    container["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
    container["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 4});
    container["process"]["execCPUAffinity"] = json!({"initial": "1", "final": "0-1"});
    container["process"]["user"]["umask"] = json!(0o77);
    container["linux"]["personality"] = json!({"domain": "LINUX32"});
    container["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    container["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    let plan =
        exec(&container, file(&json!({"args": ["/bin/env"], "cwd": "/", "env": ["FOO=bar"]}))).unwrap();
    let process = &plan.process;
    assert_eq!(process.env, ["FOO=bar"], "the environment is the file's alone");
    assert_eq!(process.capabilities.map(|sets| sets.bounding), Some(KILL));
    assert_eq!(
        (process.oom_score_adj, process.io_priority, process.umask),
        (Some(5), Some(3 << 13 | 4), Some(0o77))
    );
    assert_eq!(process.scheduler.map(|scheduler| (scheduler.policy, scheduler.nice)), Some((3, 3)));
    assert_eq!(
        (process.cpu_affinity_initial.as_deref(), process.cpu_affinity_final.as_deref()),
        (Some(&[2][..]), Some(&[3][..]))
    );
    assert_eq!(process.rlimits.len(), 1);
    assert_eq!(plan.personality, Some(8));
    assert_eq!(plan.memory_policy.map(|policy| (policy.mode, policy.nodes)), Some((2, vec![1])));
    assert!(plan.seccomp.is_some());
}

#[test]
fn a_process_file_overrides_what_it_names() {
    let mut container = config();
    container["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
    container["process"]["noNewPrivileges"] = json!(true);
    container["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
    let process = json!({
        "args": ["a"], "cwd": "/", "user": {"uid": 1, "gid": 2}, "capabilities": {},
        "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"], "nice": 19,
            "runtime": 42000, "deadline": 100_000, "period": 1_000_000},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]
    });
    let process = exec(&container, file(&process)).unwrap().process;
    assert_eq!((process.uid, process.gid, process.no_new_privileges), (1, 2, false));
    assert_eq!(process.capabilities, Some(CapabilityPlan::default()));
    let scheduler = process.scheduler.expect("it is named");
    assert_eq!((scheduler.policy, scheduler.flags, scheduler.nice), (6, 5, 19));
    assert_eq!((scheduler.runtime, scheduler.deadline, scheduler.period), (42000, 100_000, 1_000_000));
    assert_eq!(process.rlimits.iter().map(|limit| limit.resource).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_process_file_is_refused_by_its_own_pointers() {
    for (process, field) in [
        (json!({"args": [], "cwd": "/"}), "/args"),
        (json!({"cwd": "/"}), ""),
        (json!({"args": ["a"], "cwd": "tmp"}), "/cwd"),
        (json!({"args": ["a"], "cwd": "/", "env": ["A"]}), "/env/0"),
        (json!({"args": ["a"], "cwd": "/", "user": {"uid": 4_294_967_295_u32}}), "/user/uid"),
    ] {
        assert_eq!(exec(&config(), file(&process)).expect_err(field).field, field);
    }
}

#[test]
fn ids_have_to_be_mapped_in_the_container() {
    let container = with_user_namespace(config());
    let exec_as = |user: &str| exec(&container, ExecRequest { user: Some(user.into()), ..request() });
    assert!(exec_as("65535:65535").is_ok());
    assert!(exec_as("65536").expect_err("it is not mapped").reason.contains("unmapped"));
}
