//! Ends of processes: what they wait for before anybody hears of them.

use crate::task::container::Container;
use crate::task::effect::{Effect, Event, Key};
use crate::task::process::{Exit, Process, State};

use super::Pod;

impl Pod {
    /// True when the end of every container has been told.
    pub fn has_ended(&self) -> bool {
        self.containers.values().all(|container| container.init.exit.is_some())
    }

    /// Takes the end of a process. While its `output_moves` nobody hears of it.
    pub fn exited(&mut self, key: &Key, exit: Exit, output_moves: bool) -> Vec<Effect> {
        let Some(process) = self.process(key).filter(|process| process.exit.is_none()) else {
            return Vec::new();
        };
        process.held_exit = Some(exit);
        process.output_moves = output_moves;
        if key.is_init() {
            let await_execs = self.containers.get(&key.container).is_some_and(Container::has_live_execs);
            self.effects.push(Effect::InitEnded { container: key.container.clone(), await_execs });
        }
        self.settle_held_exits(&key.container);
        core::mem::take(&mut self.effects)
    }

    /// The output of an ended process has reached its reader, or has had its time.
    pub fn output_arrived(&mut self, key: &Key) -> Vec<Effect> {
        if let Some(process) = self.process(key) {
            process.output_moves = false;
            self.settle_held_exits(&key.container);
        }
        core::mem::take(&mut self.effects)
    }

    /// The end of a container whose execs did not end in time waits for them no longer.
    pub fn execs_overdue(&mut self, container: &str) -> Vec<Effect> {
        if let Some(found) = self.containers.get_mut(container).filter(|found| found.init.held_exit.is_some())
        {
            found.execs_given_up = true;
            self.settle_held_exits(container);
        }
        core::mem::take(&mut self.effects)
    }

    /// Publishes ends that waited: what is seen during a start comes after it, a kill for lack of memory before the end that it
    /// may have caused, the end of init after its execs', each after its output.
    pub(super) fn settle_held_exits(&mut self, id: &str) {
        if self.containers.get(id).is_some_and(|container| !container.may_be_starting()) {
            self.publish_ooms(id);
        }
        let Some(container) = self.containers.get(id) else { return };
        let is_due = |process: &Process| {
            process.held_exit.is_some() && !process.output_moves && (process.is_alive() || !process.busy)
        };
        let due: Vec<String> =
            container.execs.iter().filter(|(_, exec)| is_due(exec)).map(|(name, _)| name.clone()).collect();
        for exec in due {
            self.publish_exit(&Key { container: id.to_owned(), exec });
        }
        let Some(container) = self.containers.get(id) else { return };
        if is_due(&container.init) && (container.execs_given_up || !container.has_live_execs()) {
            self.publish_exit(&Key::init(id));
        }
    }

    pub(super) fn publish_ooms(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        for _ in 0..core::mem::take(&mut container.held_ooms) {
            self.effects.push(Effect::Publish(Event::Oom { container: id.to_owned() }));
        }
    }

    fn publish_exit(&mut self, key: &Key) {
        let Some(process) = self.process(key) else { return };
        let Some(exit) = process.held_exit.take() else { return };
        process.exit = Some(exit);
        process.state = State::Stopped;
        let pid = process.pid;
        self.effects.push(Effect::Publish(Event::Exit { key: key.clone(), pid, exit }));
        self.answer_waiters(key);
    }

    pub(super) fn answer_waiters(&mut self, key: &Key) {
        let Some(process) = self.process(key) else { return };
        let answer = process.wait_answer();
        for waiter in core::mem::take(&mut process.waiters) {
            self.reply(waiter, &answer);
        }
    }
}
