//! Giving way to the programs whose output is moved.
//!
//! The writer and the reader of a busy stream wake the shim for each write. As a batch process (sched(7)) it takes no
//! processor from them: it runs when one is free or at the next tick, and finds more.

use std::sync::atomic::{AtomicBool, Ordering};

use hull_sys::process::Pid;
use hull_sys::scheduling::{self, SchedulerAttributes};

/// The scheduler of ordinary processes (linux/sched.h).
const SCHED_OTHER: u32 = 0;
/// The same for processes that don't preempt others when they wake up.
const SCHED_BATCH: u32 = 3;
/// The calling thread, of which we have one.
const CALLER: Pid = Pid::from_raw(0);

/// We are a batch process because of [`give_way`].
static GIVES_WAY: AtomicBool = AtomicBool::new(false);

/// Others run first from now on. Without effect where whoever started us chose a scheduler.
pub fn give_way() {
    if !GIVES_WAY.load(Ordering::Relaxed) {
        GIVES_WAY.store(change(SCHED_OTHER, SCHED_BATCH), Ordering::Relaxed);
    }
}

/// Ends [`give_way`]. What is started must not inherit it.
pub fn compete() {
    if GIVES_WAY.swap(false, Ordering::Relaxed) {
        change(SCHED_BATCH, SCHED_OTHER);
    }
}

/// True when the scheduler was `from` and is `to`. It only costs time if it is not.
fn change(from: u32, to: u32) -> bool {
    let Ok(now) = scheduling::get_scheduler(CALLER) else { return false };
    let wanted = SchedulerAttributes { policy: to, nice: now.nice, ..SchedulerAttributes::default() };
    now.policy == from && scheduling::set_scheduler(CALLER, &wanted).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(of: Pid) -> u32 {
        scheduling::get_scheduler(of).unwrap().policy
    }

    #[test]
    fn what_is_started_competes() {
        give_way();
        give_way();
        assert_eq!(policy(CALLER), SCHED_BATCH);
        let words = ["sleep", "60"].map(str::to_owned).to_vec();
        let child = crate::spawn::Program::new("/bin/sleep".into(), words).start().unwrap();
        assert_eq!(policy(child.pid), SCHED_OTHER);
        assert_eq!(policy(CALLER), SCHED_OTHER);
        hull_sys::process::kill(child.pid, 9).unwrap();
    }

    #[test]
    fn chosen_scheduler_stays() {
        const SCHED_IDLE: u32 = 5;
        assert!(change(SCHED_OTHER, SCHED_IDLE));
        give_way();
        assert_eq!(policy(CALLER), SCHED_IDLE);
        compete();
        assert_eq!(policy(CALLER), SCHED_IDLE);
    }
}
