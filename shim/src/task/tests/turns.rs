//! Calls that wait for their turn, and what becomes of them when there will be none.

use super::*;

#[test]
fn processes_are_listed_for_one_call_at_a_time() {
    let mut bench = Bench::running();
    let calls: Vec<CallId> = (0..3).map(|_| bench.call(Call::Pids(named("c", "")))).collect();
    for (number, call) in calls.iter().enumerate() {
        assert_eq!(bench.jobs.len(), 1, "the runtime lists once");
        assert_eq!((bench.jobs[0].call, &bench.jobs[0].job), (Some(*call), &Job::Ps));
        assert!(bench.answer(*call).is_none());
        bench.finish(Outcome::Pids(vec![10, 30 + number as u32]));
        let pids: Vec<u32> =
            bench.ok::<PidsResponse>(*call).processes.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [10, 30 + number as u32]);
    }
    assert!(bench.jobs.is_empty());
}

#[test]
fn listing_waits_for_no_other_call_and_its_queue_is_bounded() {
    let mut bench = Bench::running();
    bench.call(Call::Pause(named("c", "")));
    let first = bench.call(Call::Pids(named("c", "")));
    assert_eq!(bench.jobs.iter().map(|ticket| &ticket.job).collect::<Vec<_>>(), [&Job::Pause, &Job::Ps]);
    let waiting: Vec<CallId> = (0..256).map(|_| bench.call(Call::Pids(named("c", "")))).collect();
    let past = bench.call(Call::Pids(named("c", "")));
    assert_eq!(bench.refusal(past).0, Code::ResourceExhausted);
    // Once the container has ended nothing is listed any more.
    bench.finish(Outcome::Done);
    bench.exit("", 7);
    bench.finish(Outcome::Failed(Refusal::unknown("gone")));
    for call in [first].into_iter().chain(waiting) {
        assert_eq!(bench.ok::<PidsResponse>(call).processes[0].pid, 10);
    }
    assert!(bench.jobs.is_empty());
}

#[test]
fn calls_that_wait_for_a_container_that_fails_to_be_created_are_answered() {
    let mut bench = Bench::new();
    let create = bench.call(Call::Create(CreateTaskRequest { id: "c".into(), ..Default::default() }));
    let kill = bench.call(Call::Kill(KillRequest { id: "c".into(), signal: 9, ..Default::default() }));
    let wait = bench.call(Call::Wait(named("c", "")));
    let pids: Vec<CallId> = (0..2).map(|_| bench.call(Call::Pids(named("c", "")))).collect();
    bench.finish(Outcome::Failed(Refusal::unknown("no")));
    assert_eq!(bench.refusal(create).1, "no");
    for call in [kill, wait, pids[1]] {
        assert_eq!(bench.refusal(call).0, Code::NotFound);
    }
    bench.finish(Outcome::Failed(Refusal::unknown("does not exist")));
    assert_eq!(bench.refusal(pids[0]).1, "does not exist");
    assert!(bench.pod.is_empty());
}
