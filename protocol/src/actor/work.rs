//! One commit in the making: which events it takes, which calls are still to be made, what they gave.
//!
//! A call that fails as a whole is undone and tried in halves until the poison event is alone; the
//! rest of the batch goes on in the same commit.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::effect::{Again, CallError, FailedEvent, Invoked, Outcome};
use crate::event::{Event, Placed};
use crate::id::{LetterId, LogId};
use crate::limits::{ATTEMPTS_MAX, COMMIT_BYTES_MAX, RETRY_FIRST, RETRY_LAST};
use crate::log::record::{Advance, Commit, DeadLetter, Parked, ParkedId};
use crate::mutation::{Mutation, planted};
use crate::time::{Span, Time};

/// Events of one commit, in the order in which the function sees them.
#[derive(Debug, Default)]
pub struct Work {
    pub commit: Commit,
    /// Credit to give back per upstream log once committed, in bytes.
    pub consumed: BTreeMap<LogId, u64>,
    /// The name of the first letter that it writes.
    first_letter: LetterId,
    events: Vec<Invoked>,
    /// Ranges of `events` still to be called, the next one last.
    ranges: Vec<Range>,
    /// What was parked and is tried again: it stands first in `events`, in the same order.
    retried: Vec<Parked>,
    /// Fresh events behind all others for which the commit has no room: they park once the calls are made.
    late: Vec<Invoked>,
    /// Keys of which an event is parked: later events wait behind it.
    blocked: BTreeSet<Bytes>,
    accepted: usize,
    refused: usize,
    emitted_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: usize,
    end: usize,
}

/// What to do next for this commit.
#[derive(Debug, PartialEq)]
pub enum Next {
    Call(Arc<Vec<Invoked>>),
    /// All calls are made.
    Commit,
}

/// How a call ended for the work.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    /// The outside is not there: discard what is staged, wait, and begin this work anew.
    WaitAndRepeat(String),
    /// The call went well, but the commit has no room for what it gave: discard what is staged, and
    /// begin anew with what came before that call.
    CloseEarly,
}

impl Work {
    pub fn new(first_letter: LetterId) -> Work {
        Work { first_letter, ..Work::default() }
    }

    /// A parked event's next try, at the head or at a fused step: a call of its own, before
    /// everything else.
    pub fn retry(&mut self, parked: &Parked, step: Option<u16>) {
        let first = self.events.len();
        self.events.push(Invoked { step, ..invoked(parked) });
        self.retried.push(parked.clone());
        self.ranges.insert(0, Range { first, end: first + 1 });
        self.commit.unparked.push(parked.parked_id());
    }

    /// A replayed letter that has no place in the actor any more: a letter again.
    pub fn bury(&mut self, parked: &Parked, reason: String, now: Time) {
        self.commit.unparked.push(parked.parked_id());
        let stage = parked.replayed.as_ref().map_or_else(String::new, |replayed| replayed.stage.clone());
        let step = parked.replayed.as_ref().and_then(|replayed| replayed.step);
        self.commit.dead.push(DeadLetter {
            id: self.next_letter(),
            cause: parked.id,
            input: parked.input,
            event: parked.event.clone(),
            stage,
            step,
            attempts: parked.attempts,
            reason,
            at: now,
        });
    }

    fn next_letter(&self) -> LetterId {
        let LetterId { actor, number } = self.first_letter;
        LetterId { actor, number: number + self.commit.dead.len() as u64 }
    }

    /// A fresh event; it parks at once when its key is blocked.
    pub fn take(&mut self, event: Invoked) {
        self.commit.events_in += 1;
        if self.blocked.contains(&event.placed.event.key) && !planted(Mutation::OvertakeParked) {
            self.wait_behind(&event);
            return;
        }
        self.events.push(event);
    }

    pub fn block(&mut self, key: Bytes) {
        self.blocked.insert(key);
    }

    /// No more events: the fresh ones become one call.
    pub fn seal(&mut self) {
        let retried = self.ranges.len();
        if self.events.len() > retried {
            self.ranges.insert(0, Range { first: retried, end: self.events.len() });
        }
    }

    pub fn advance(&mut self, advance: Advance, weight: u64) {
        *self.consumed.entry(advance.log).or_default() += weight;
        match self.commit.frontier.last_mut() {
            Some(last) if last.log == advance.log => *last = advance,
            Some(_) | None => self.commit.frontier.push(advance),
        }
    }

    /// The log that was advanced last has ended: this one follows it, from its start.
    pub fn follow(&mut self, start: Advance) {
        self.commit.frontier.push(start);
    }

    pub fn events(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        let Commit { frontier, parked, dead, .. } = &self.commit;
        self.events.is_empty() && frontier.is_empty() && parked.is_empty() && dead.is_empty()
    }

    /// The next call. Events whose key got blocked meanwhile park here instead.
    pub fn next_call(&mut self) -> Next {
        while let Some(range) = self.ranges.last().copied() {
            let (blocked, free): (Vec<usize>, Vec<usize>) =
                (range.first..range.end).partition(|&index| self.is_blocked(index));
            if blocked.is_empty() {
                let batch = self.events.get(range.first..range.end).unwrap_or_default().to_vec();
                return Next::Call(Arc::new(batch));
            }
            self.ranges.pop();
            for index in blocked {
                if let Some(event) = self.events.get(index).cloned() {
                    self.wait_behind(&event);
                }
            }
            // What is left becomes a range of its own at the end of the events.
            let first = self.events.len();
            let rest: Vec<Invoked> =
                free.iter().filter_map(|&index| self.events.get(index).cloned()).collect();
            if !rest.is_empty() {
                self.events.extend(rest);
                self.ranges.push(Range { first, end: self.events.len() });
            }
        }
        for event in core::mem::take(&mut self.late) {
            self.park(parked(&event, "waits for the next commit, this one is full".to_string()));
        }
        Next::Commit
    }

    fn is_blocked(&self, index: usize) -> bool {
        let fresh = index >= self.retried.len() && !planted(Mutation::OvertakeParked);
        fresh && self.events.get(index).is_some_and(|event| self.blocked.contains(&event.placed.event.key))
    }

    /// The call that `next` gave has returned.
    pub fn on_returned(&mut self, outcome: Result<Outcome, CallError>, sink: bool, now: Time) -> Verdict {
        let Some(range) = self.ranges.pop() else { return Verdict::GoOn };
        match outcome {
            Ok(outcome) if self.emitted_bytes > 0 && self.overflows(&outcome) => {
                self.ranges.push(range);
                Verdict::CloseEarly
            }
            // Whoever runs the call refuses it at the same weight, and stages nothing of it.
            Ok(outcome) if self.overflows(&outcome) => {
                let error = CallError {
                    stage: String::new(),
                    reason: alloc::format!(
                        "the call gave more than {COMMIT_BYTES_MAX} bytes of output and state"
                    ),
                    again: Again::Maybe,
                };
                self.on_failed(range, error, now)
            }
            Ok(outcome) => self.on_done(range, outcome, sink, now),
            Err(error) => self.on_failed(range, error, now),
        }
    }

    fn overflows(&self, outcome: &Outcome) -> bool {
        self.emitted_bytes + weight_of(outcome) > COMMIT_BYTES_MAX
    }

    fn on_done(&mut self, range: Range, outcome: Outcome, sink: bool, now: Time) -> Verdict {
        let size = range.end - range.first;
        self.accepted += size - outcome.failed.len().min(size);
        self.refused += outcome.failed.len();
        // A sink that refuses everything pauses: only an event that others passed may die. Retries
        // alone do not pause it: others were accepted in the commit that parked them.
        let fresh = self.commit.events_in > 0;
        if sink && fresh && self.accepted == 0 && self.refused > 0 && self.ranges.is_empty() {
            let first = outcome.failed.first().map_or("", |failed| failed.reason.as_str());
            return Verdict::WaitAndRepeat(alloc::format!(
                "every event is refused ({first}), so this sink pauses and its events wait; it goes on by itself once one is accepted"
            ));
        }
        self.emitted_bytes += weight_of(&outcome);
        let Outcome { emitted, changes, timers, observed, failed } = outcome;
        self.commit.emitted.extend(emitted);
        self.commit.state.extend(changes);
        self.commit.timers.extend(timers);
        self.commit.observed.extend(observed);
        for one in failed {
            self.on_event_failed(range.first + one.index as usize, one, now);
        }
        Verdict::GoOn
    }

    fn on_failed(&mut self, range: Range, error: CallError, now: Time) -> Verdict {
        if error.again == Again::Later {
            self.ranges.push(range);
            return Verdict::WaitAndRepeat(error.reason);
        }
        if range.end - range.first > 1 {
            let middle = range.first + (range.end - range.first) / 2;
            self.ranges.push(Range { first: middle, end: range.end });
            self.ranges.push(Range { first: range.first, end: middle });
            return Verdict::GoOn;
        }
        let CallError { stage, reason, again } = error;
        let failed = FailedEvent { index: 0, refused: None, stage, reason, again };
        self.on_event_failed(range.first, failed, now);
        Verdict::GoOn
    }

    fn on_event_failed(&mut self, index: usize, failed: FailedEvent, now: Time) {
        let Some(event) = self.events.get(index).cloned() else { return };
        let FailedEvent { refused, stage, reason, again, .. } = failed;
        let parked = self.retried.get(index).cloned().unwrap_or_else(|| parked(&event, String::new()));
        let attempts = if planted(Mutation::ParkForever) { 1 } else { parked.attempts + 1 };
        // A fused step's refusal is no reason to try the head again: what the head did stands.
        if again != Again::Never && refused.is_none() && attempts < ATTEMPTS_MAX {
            let due = now.after(backoff(attempts));
            return self.park(Parked { attempts, due, reason, ..parked });
        }
        let Parked { id: cause, input, event, replayed, .. } = parked;
        let (event, stage, step) = match (refused, replayed) {
            (Some(refused), _) => (refused.event.detached(), stage, Some(refused.step)),
            // The call failed around the step that it entered at, and nobody knows better.
            (None, Some(replayed)) => (event, replayed.stage, replayed.step),
            (None, None) => (event, stage, None),
        };
        let id = self.next_letter();
        self.commit.dead.push(DeadLetter { id, cause, input, event, stage, step, attempts, reason, at: now });
    }

    fn wait_behind(&mut self, event: &Invoked) {
        self.park(parked(event, "waits behind an earlier event of its key".to_string()));
    }

    fn park(&mut self, parked: Parked) {
        self.blocked.insert(parked.event.key.clone());
        let id: ParkedId = parked.parked_id();
        self.commit.unparked.retain(|retried| *retried != id);
        self.commit.parked.push(parked);
    }

    /// Forgets what its calls gave, keeps what it takes: for `WaitAndRepeat`.
    pub fn begin_anew(self, memory_parked: &[Parked]) -> Work {
        self.anew_without(&BTreeSet::new(), memory_parked)
    }

    /// The same with the calls that were made so far, all others' events parked: for `CloseEarly`. It
    /// is no failure of theirs, so it counts as no attempt.
    pub fn close_early(self, memory_parked: &[Parked]) -> Work {
        let uncalled = self.ranges.iter().flat_map(|range| range.first..range.end);
        let late = self.late.iter().map(|event| ParkedId { event: event.placed.id, replayed: None });
        let late: BTreeSet<ParkedId> = uncalled
            .filter_map(|index| match self.retried.get(index) {
                Some(parked) => Some(parked.parked_id()),
                None => {
                    self.events.get(index).map(|event| ParkedId { event: event.placed.id, replayed: None })
                }
            })
            .chain(late)
            .collect();
        self.anew_without(&late, memory_parked)
    }

    fn anew_without(self, late: &BTreeSet<ParkedId>, memory_parked: &[Parked]) -> Work {
        let mut anew = Work { consumed: self.consumed, ..Work::new(self.first_letter) };
        anew.commit.frontier = self.commit.frontier;
        for parked in memory_parked {
            anew.block(parked.event.key.clone());
        }
        let steps: Vec<Option<u16>> = self.events.iter().map(|event| event.step).collect();
        for (parked, step) in self.retried.iter().zip(steps) {
            if !late.contains(&parked.parked_id()) {
                anew.retry(parked, step);
            }
        }
        // Fresh events in their first order; those set aside as blocked stand in `parked`.
        let mut seen: BTreeSet<ParkedId> = self.retried.iter().map(Parked::parked_id).collect();
        let fresh = self.events.into_iter().skip(self.retried.len()).chain(self.late);
        let waiting = self.commit.parked.iter().filter(|parked| !seen.contains(&parked.parked_id()));
        let waiting: Vec<Invoked> = waiting.map(invoked).collect();
        let mut fresh: Vec<Invoked> = fresh.chain(waiting).collect();
        fresh.retain(|event| seen.insert(ParkedId { event: event.placed.id, replayed: None }));
        for event in fresh {
            if late.contains(&ParkedId { event: event.placed.id, replayed: None }) {
                anew.commit.events_in += 1;
                anew.late.push(event);
            } else {
                anew.take(event);
            }
        }
        anew.seal();
        anew
    }
}

fn invoked(parked: &Parked) -> Invoked {
    let step = parked.replayed.as_ref().and_then(|replayed| replayed.step);
    Invoked { input: parked.input, step, placed: Placed { id: parked.id, event: parked.event.clone() } }
}

/// An event that is parked for the first time; it waits behind nothing but its key.
fn parked(event: &Invoked, reason: String) -> Parked {
    let Placed { id, event: parked } = &event.placed;
    let (id, parked) = (*id, parked.detached());
    let input = event.input;
    Parked { id, input, event: parked, attempts: 0, due: Time(0), reason, replayed: None }
}

fn weight_of(outcome: &Outcome) -> usize {
    let emitted: usize = outcome.emitted.iter().map(|emitted| Event::weight(&emitted.event)).sum();
    let changes: usize = outcome
        .changes
        .iter()
        .map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len) + 8)
        .sum();
    emitted + changes
}

/// How long to wait after so many failures: doubles from the first to the last.
pub fn backoff(failures: u32) -> Span {
    let doubled = RETRY_FIRST.0.saturating_mul(1 << failures.saturating_sub(1).min(20));
    Span(doubled.min(RETRY_LAST.0))
}
