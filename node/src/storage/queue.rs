//! The writer's queue. What `memory` acknowledged already waits in it for company: nobody waits for
//! its write, and one wake-up of the writer for each record would cost more than the record.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_protocol::log::segment::frame_bytes;

use super::writer::Command;

/// How long an acknowledged record may wait for its write, and how many bytes of such wait at most: what
/// comes first wakes the writer.
const COMPANY_WAIT: Duration = Duration::from_millis(10);
const COMPANY_BYTES: usize = 256 << 10;

/// Nobody takes commands any more: the writer has ended.
#[derive(Debug)]
pub(super) struct Ended;

/// One end for those who send; all clones are one queue.
#[derive(Debug, Clone)]
pub(super) struct Commands(Arc<Shared>);

/// The writer's end. When it goes, what still waits goes with it, and whoever waits for an answer hears so.
#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Command>,
    /// The first of those that may wait came then.
    since: Option<Instant>,
    patient_bytes: usize,
    /// Somebody waits for one of the commands.
    urgent: bool,
    ended: bool,
}

pub(super) fn queue() -> (Commands, Queue) {
    let shared = Arc::<Shared>::default();
    (Commands(shared.clone()), Queue(shared))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commands {
    pub fn send(&self, command: Command) -> Result<(), Ended> {
        let patient = match &command {
            Command::Persist { early: true, records, .. } => Some(records.iter().map(frame_bytes).sum()),
            Command::Persist { early: false, .. }
            | Command::Create { .. }
            | Command::WriteAnew { .. }
            | Command::Truncate { .. }
            | Command::Remove { .. }
            | Command::Sync { .. }
            | Command::Written { .. }
            | Command::Stop => None::<usize>,
        };
        let mut state = self.0.state();
        if state.ended {
            return Err(Ended);
        }
        state.waiting.push_back(command);
        let wake = match patient {
            Some(bytes) => {
                let before = state.patient_bytes;
                state.patient_bytes += bytes;
                // The first one sets the writer's clock.
                let first = state.since.is_none();
                state.since.get_or_insert_with(Instant::now);
                !state.urgent && (first || (before < COMPANY_BYTES && state.patient_bytes >= COMPANY_BYTES))
            }
            None => !std::mem::replace(&mut state.urgent, true),
        };
        drop(state);
        if wake {
            self.0.ready.notify_one();
        }
        Ok(())
    }
}

impl Queue {
    /// The next command, once somebody waits for one of those in the queue, or the acknowledged ones had their
    /// time. None: nothing came within `patience`.
    pub fn wait(&self, patience: Option<Duration>) -> Option<Command> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.0.state();
        loop {
            let now = Instant::now();
            let due = state.since.map(|since| since + COMPANY_WAIT);
            if state.urgent || state.patient_bytes >= COMPANY_BYTES || due.is_some_and(|due| due <= now) {
                return state.take();
            }
            if until.is_some_and(|until| until <= now) {
                return None;
            }
            let wake = match (due, until) {
                (Some(due), Some(until)) => Some(due.min(until)),
                (due, until) => due.or(until),
            };
            state = match wake {
                Some(at) => {
                    let waited = self.0.ready.wait_timeout(state, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// What waits already.
    pub fn take(&self) -> Option<Command> {
        self.0.state().take()
    }
}

impl State {
    fn take(&mut self) -> Option<Command> {
        let command = self.waiting.pop_front();
        if self.waiting.is_empty() {
            (self.since, self.patient_bytes, self.urgent) = (None, 0, false);
        }
        command
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::id::{Epoch, LogId, Position};
    use dunlin_protocol::log::record::{Append, Body, Record};
    use dunlin_protocol::pipeline::manifest::Durability;

    const LOG: LogId = LogId([1; 16]);

    fn persist(early: bool) -> Command {
        let record = Record::after(Position::START, Epoch(1), &Body::Append(Append::default()));
        Command::Persist { log: LOG, records: vec![record], durability: Durability::Memory, early }
    }

    fn is_early(command: Option<Command>) -> Option<bool> {
        command.map(|command| matches!(command, Command::Persist { early: true, .. }))
    }

    #[test]
    fn what_is_acknowledged_waits_for_company_and_no_longer() {
        let (commands, queue) = queue();
        commands.send(persist(true)).unwrap();
        assert_eq!(is_early(queue.wait(Some(Duration::ZERO))), None, "it may still wait");
        assert_eq!(is_early(queue.wait(None)), Some(true), "its time has come");
    }

    #[test]
    fn who_is_waited_for_takes_along_what_stands_before() {
        let (commands, queue) = queue();
        commands.send(persist(true)).unwrap();
        commands.send(persist(false)).unwrap();
        assert_eq!(is_early(queue.wait(Some(Duration::ZERO))), Some(true));
        assert_eq!(is_early(queue.wait(Some(Duration::ZERO))), Some(false));
        assert_eq!(is_early(queue.take()), None);
    }

    #[test]
    fn many_bytes_do_not_wait() {
        let (commands, queue) = queue();
        let Command::Persist { records, .. } = persist(true) else { unreachable!("made so above") };
        let many = COMPANY_BYTES.div_ceil(records.iter().map(frame_bytes).sum());
        (0..many).for_each(|_| commands.send(persist(true)).unwrap());
        assert_eq!(is_early(queue.wait(Some(Duration::ZERO))), Some(true));
    }

    #[test]
    fn the_end_of_the_writer_is_heard() {
        let (commands, queue) = queue();
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        commands.send(Command::Written { reply }).unwrap();
        drop(queue);
        assert!(answer.recv().is_err(), "nobody answers any more");
        assert!(commands.send(Command::Stop).is_err());
    }
}
