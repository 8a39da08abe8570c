//! The order of ends: of init and its execs, and of the answers and output before them.

use super::*;

#[test]
fn exit_before_the_answer_to_start_is_published_after_it() {
    let mut bench = Bench::created();
    bench.call(Call::Start(named("c", "")));
    let effects = bench.pod.oom("c");
    bench.take(effects);
    bench.exit("", 3);
    assert_eq!(bench.events, ["create 10"]);
    bench.finish(Outcome::Done);
    assert_eq!(bench.events, ["create 10", "start 10", "oom", "exit c/ 10 3"]);
    assert_eq!(bench.pod.oom("c"), [], "it is of what the container left behind");
}

#[test]
fn init_exit_waits_for_its_execs() {
    let mut bench = Bench::with_exec("e", 20);
    bench.events.clear();
    bench.exit("", 1);
    assert!(bench.events.is_empty());
    bench.exit("e", 137);
    assert_eq!(bench.events, ["exit c/e 20 137", "exit c/ 10 1"]);
}

#[test]
fn ends_wait_for_the_output_before_them() {
    let mut bench = Bench::with_exec("e", 20);
    bench.events.clear();
    let waits = bench.call(Call::Wait(named("c", "")));
    for (exec, status) in [("e", 3), ("", 1)] {
        let effects = bench.pod.exited(&key(exec), Exit { status, at: AT }, true);
        bench.take(effects);
    }
    assert_eq!((bench.events.len(), bench.answer(waits)), (0, None));
    let effects = bench.pod.output_arrived(&key(""));
    bench.take(effects);
    assert!(bench.events.is_empty(), "init waits for its exec");
    let effects = bench.pod.output_arrived(&key("e"));
    bench.take(effects);
    assert_eq!(bench.events, ["exit c/e 20 3", "exit c/ 10 1"]);
    assert_eq!(bench.ok::<WaitResponse>(waits).exit_status, 1);
    assert_eq!(bench.pod.output_arrived(&key("gone")), []);
}

#[test]
fn overdue_execs_do_not_hold_the_exit_for_ever() {
    let mut bench = Bench::with_exec("e", 20);
    bench.events.clear();
    bench.exit("", 1);
    let effects = bench.pod.execs_overdue("c");
    bench.take(effects);
    assert_eq!(bench.events, ["exit c/ 10 1"]);
    bench.exit("e", 9);
    assert_eq!(bench.events, ["exit c/ 10 1", "exit c/e 20 9"]);
}

#[test]
fn overdue_execs_do_not_let_the_exit_overtake_the_start() {
    let mut bench = Bench::created();
    bench.register("e");
    bench.call(Call::Start(named("c", "e")));
    bench.finish(Outcome::Pid(20));
    bench.call(Call::Start(named("c", "")));
    bench.events.clear();
    bench.exit("", 1);
    let effects = bench.pod.execs_overdue("c");
    bench.take(effects);
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    bench.finish(Outcome::Done);
    assert_eq!(bench.events, ["start 10", "exit c/ 10 1"]);
}

#[test]
fn exec_that_is_being_started_ends_before_init() {
    let mut bench = Bench::running();
    bench.register("e");
    bench.call(Call::Start(named("c", "e")));
    bench.events.clear();
    bench.exit("", 0);
    assert!(bench.events.is_empty());
    bench.finish(Outcome::Failed(Refusal::unknown("gone")));
    assert_eq!(bench.events, ["exit c/ 10 0"]);
}
