//! The share of the machine's time: scheduler, priority of input and output, processors.

use std::path::Path;

use serde_json::{Value, json};

use super::Table;
use super::limits::{REAL_TIME, real_time};
use super::process::text;
use crate::call::silent;
use crate::lab::Lab;
use crate::verdict::{Finding, fail, needs, same};

pub(super) const CASES: Table = &[
    ("P18", scheduler_is_set),
    ("P20", io_priority_is_set),
    ("P21", initial_affinity_is_for_exec_only),
    ("P22", final_affinity_is_for_exec),
    ("P23", lists_of_cpus_are_parsed),
];

fn scheduler_is_set(lab: &Lab) -> Finding {
    for (policy, number, nice) in [("SCHED_BATCH", "3", 7), ("SCHED_IDLE", "5", 0), ("SCHED_OTHER", "0", 3)] {
        let report =
            lab.report(|config| config["process"]["scheduler"] = json!({ "policy": policy, "nice": nice }))?;
        same(&format!("the number of {policy}"), number, text(&report["scheduler"]["policy"]))?;
        same(
            &format!("the nice value with {policy}"),
            nice.to_string().as_str(),
            text(&report["scheduler"]["nice"]),
        )?;
    }
    real_time_policies_are_set(lab)?;
    lab.refuses_to_run("an unknown scheduling policy", |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_SOON" })
    })?;
    lab.refuses_to_run("an unknown scheduling flag", |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_SOON"] });
    })
}

/// SCHED_ISO has a number and no kernel that takes it.
fn real_time_policies_are_set(lab: &Lab) -> Finding {
    // A kernel that shares real time out by groups takes the policies only where the group has a budget.
    let grouped = Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    if grouped && !real_time(lab)? {
        return Ok(());
    }
    let deadline = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000,
        "period": 20_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    for (given, number, priority) in [
        (json!({ "policy": "SCHED_FIFO", "priority": 10 }), "1", "10"),
        (json!({ "policy": "SCHED_RR", "priority": 20 }), "2", "20"),
        (deadline, "6", "0"),
    ] {
        let report = lab.report(|config| {
            config["process"]["scheduler"] = given.clone();
            if grouped {
                config["linux"]["resources"]["cpu"] = json!({ "realtimeRuntime": REAL_TIME });
            }
        })?;
        same(&format!("the number of the policy in {given}"), number, text(&report["scheduler"]["policy"]))?;
        same(
            &format!("the static priority of {given}"),
            priority,
            text(&report["scheduler"]["rt_priority"]),
        )?;
    }
    Ok(())
}

fn io_priority_is_set(lab: &Lab) -> Finding {
    let tool = ["/usr/bin/ionice", "/bin/ionice"].into_iter().find(|path| Path::new(path).exists());
    let Some(tool) = tool else { return crate::verdict::skip("needs ionice(1)") };
    for (class, priority, wanted) in [
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let bundle = lab.waiting(|config| {
            config["process"]["ioPriority"] = json!({ "class": class, "priority": priority })
        })?;
        lab.start_waiting(&bundle)?;
        let pid = lab.pid(&bundle)?.to_string();
        let seen = silent(tool).args(["-p", &pid]).output()?;
        same(
            &format!("what ionice says of {class} {priority}"),
            wanted,
            String::from_utf8_lossy(&seen.stdout).trim(),
        )?;
    }
    for (class, priority) in [("IOPRIO_CLASS_SOON", 0), ("IOPRIO_CLASS_BE", 8)] {
        lab.refuses_to_run(&format!("ioPriority {class} {priority}"), |config| {
            config["process"]["ioPriority"] = json!({ "class": class, "priority": priority });
        })?;
    }
    Ok(())
}

fn cpus(report: &Value) -> &str {
    text(&report["cpus"])
}

/// `exec` of the probe's report; `exec` is no operation of the specification, but its affinity is.
fn exec_report(lab: &Lab, affinity: &Value) -> Finding<Value> {
    let bundle = lab.waiting(|config| config["process"]["execCPUAffinity"] = affinity.clone())?;
    lab.start_waiting(&bundle)?;
    let output = lab.call(&["exec", &bundle.id, "/probe", "report"])?;
    output.done("exec")?;
    serde_json::from_str(&output.stdout).or_else(|_| fail("the program's output", output.told()))
}

fn several_cpus() -> Finding {
    let own = hull_testkit::probe::look();
    needs(cpus(&own).starts_with("0") && cpus(&own) != "0", "needs CPU 0 and another one")
}

fn initial_affinity_is_for_exec_only(lab: &Lab) -> Finding {
    several_cpus()?;
    let plain = lab.report(|_| ())?;
    let report = lab.report(|config| config["process"]["execCPUAffinity"] = json!({ "initial": "0" }))?;
    same("the CPUs of the first process", cpus(&plain), cpus(&report))?;
    exec_report(lab, &json!({ "initial": "0", "final": "" })).map(drop)
}

fn final_affinity_is_for_exec(lab: &Lab) -> Finding {
    several_cpus()?;
    let plain = lab.report(|_| ())?;
    let report = exec_report(lab, &json!({ "initial": "0", "final": "0" }))?;
    same("the CPUs of a process of exec with final 0", "0", cpus(&report))?;
    let report = exec_report(lab, &json!({}))?;
    same("the CPUs of a process of exec without an affinity", cpus(&plain), cpus(&report))
}

fn lists_of_cpus_are_parsed(lab: &Lab) -> Finding {
    several_cpus()?;
    let report = exec_report(lab, &json!({ "final": "0-1" }))?;
    same("the CPUs for 0-1", "0-1", cpus(&report))?;
    for list in ["0-", "a", "1-0", "0,,1x"] {
        let bundle = lab.waiting(|config| config["process"]["execCPUAffinity"] = json!({ "final": list }))?;
        if lab.try_create(&bundle)?.succeeded() {
            lab.call(&["start", &bundle.id])?.done("start")?;
            lab.call(&["exec", &bundle.id, "/probe", "exit", "0"])?
                .refused(&format!("the CPU list {list:?}, at the latest in exec"))?;
        }
    }
    Ok(())
}
