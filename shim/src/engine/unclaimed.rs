//! Ends of children that nobody has named yet: one of them may be the process that a runtime call under way will name.

use std::collections::{BTreeMap, BTreeSet};

use crate::task::Exit;

/// Ends that are kept. Past it the oldest goes: what a call will name has mostly ended just now.
const LIMIT: usize = 65_536;

/// The ends that a call under way may still name: those since the oldest of these calls began.
#[derive(Debug, Default)]
pub struct Unclaimed {
    /// Counts calls and ends, so that each has its place in time.
    now: u64,
    /// Calls under way that will name a process, by when they began.
    calls: BTreeSet<u64>,
    /// By process number; of several the last, as it is the one that had the number when it was named.
    exits: BTreeMap<i32, (u64, Exit)>,
    /// The same by time.
    order: BTreeMap<u64, i32>,
}

impl Unclaimed {
    /// A call that will name a process begins; what is returned ends it.
    pub fn begin(&mut self) -> u64 {
        self.now += 1;
        self.calls.insert(self.now);
        self.now
    }

    /// The call that began then has named its process, or has none to name. What only it could have named is dropped.
    pub fn end(&mut self, call: u64) {
        self.calls.remove(&call);
        let kept = match self.calls.first() {
            Some(oldest) => self.order.split_off(oldest),
            None => BTreeMap::new(),
        };
        for pid in std::mem::replace(&mut self.order, kept).values() {
            self.exits.remove(pid);
        }
    }

    /// Takes the end of an unknown child.
    pub fn keep(&mut self, pid: i32, exit: Exit) {
        if self.calls.is_empty() {
            return;
        }
        self.now += 1;
        if let Some((earlier, _)) = self.exits.insert(pid, (self.now, exit)) {
            self.order.remove(&earlier);
        }
        self.order.insert(self.now, pid);
        if self.order.len() > LIMIT
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.exits.remove(&oldest);
        }
    }

    /// The end of the process `pid`, if it came; it is nobody else's then.
    pub fn claim(&mut self, pid: i32) -> Option<Exit> {
        let (at, exit) = self.exits.remove(&pid)?;
        self.order.remove(&at);
        Some(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Timestamp;

    fn exit(status: u32) -> Exit {
        Exit { status, at: Timestamp::GO_ZERO }
    }

    #[test]
    fn ends_are_kept_while_a_call_that_began_before_them_is_under_way() {
        let mut unclaimed = Unclaimed::default();
        unclaimed.keep(1, exit(1));
        assert_eq!(unclaimed.claim(1), None, "no call could name it");
        let first = unclaimed.begin();
        unclaimed.keep(2, exit(2));
        let second = unclaimed.begin();
        unclaimed.keep(3, exit(3));
        unclaimed.end(first);
        assert_eq!(unclaimed.claim(2), None, "it ended before the second call began");
        assert_eq!(unclaimed.claim(3), Some(exit(3)));
        assert_eq!(unclaimed.claim(3), None);
        unclaimed.keep(4, exit(4));
        unclaimed.end(second);
        assert_eq!((unclaimed.claim(4), unclaimed.order.len()), (None, 0));
    }

    #[test]
    fn calls_without_a_gap_between_them_keep_no_old_ends() {
        let mut unclaimed = Unclaimed::default();
        let mut call = unclaimed.begin();
        for pid in 0..1000 {
            unclaimed.keep(pid, exit(0));
            let next = unclaimed.begin();
            unclaimed.end(call);
            call = next;
        }
        assert_eq!((unclaimed.exits.len(), unclaimed.order.len()), (0, 0));
    }

    #[test]
    fn oldest_end_goes_past_the_limit_and_a_number_that_came_back_has_its_last_one() {
        let mut unclaimed = Unclaimed::default();
        unclaimed.begin();
        for pid in 0..=i32::try_from(LIMIT).unwrap() {
            unclaimed.keep(pid, exit(7));
        }
        assert_eq!((unclaimed.claim(0), unclaimed.claim(1)), (None, Some(exit(7))));
        unclaimed.keep(2, exit(8));
        assert_eq!(unclaimed.claim(2), Some(exit(8)));
        assert_eq!(unclaimed.exits.len(), unclaimed.order.len());
    }
}
