//! An actor: one unit of a pipeline at work on one share.
//!
//! It takes committed slices from its upstream logs, lets its function run on a batch, and hands
//! over one commit; it holds at most one commit at a time, so batches grow by themselves while the
//! disk is busy. Its memory changes only when the commit is persisted.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::fold::{ActorMemory, advance};
use super::letters::LetterOrder;
use super::upstream::Upstream;
use super::work::{Next, Verdict, Work, backoff};
use crate::edge::reader::Ahead;
use crate::effect::{ActorSpec, CallError, CallId, Invoked, Outcome};
use crate::event::Placed;
use crate::id::{Epoch, EventId, LetterId, LogId, Position};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX, PARKED_MAX, RETRY_LAST,
};
use crate::log::record::{Advance, Commit, Parked};
use crate::mesh::catalog::LogName;
use crate::mutation::{Mutation, planted};
use crate::time::{Span, Time};
use crate::wire::message::{EdgeId, Slice};

/// Positions without events are committed with the next events, or after this long.
const EMPTY_COMMIT_AFTER: Span = Span(500);

#[derive(Debug)]
pub struct Actor {
    pub log: LogId,
    pub spec: Arc<ActorSpec>,
    pub sink: bool,
    pub memory: ActorMemory,
    pub upstream: BTreeMap<LogId, Upstream>,
    phase: Phase,
    /// Its function was asked for and has not answered.
    pub hosting: bool,
    /// Why it stands still, if it does.
    pub trouble: Option<String>,
    /// It takes no new events because its dead letters, or what waits for another try, are as many
    /// as may be.
    pub full: Option<Full>,
    /// What is asked of its dead letters, in order.
    pub(super) orders: VecDeque<LetterOrder>,
    /// The upstream log that was served last: the next work begins behind it.
    served: Option<LogId>,
    /// Since when positions without events wait.
    empty_since: Option<Time>,
    failures: u32,
    calls: u64,
}

/// What an actor has as many of as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Dead,
    Parked,
}

/// What the actor's log takes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It is not open, or too much is on its way to disk.
    None,
    /// It is full of records that readers have not passed: no events, but letters may still move.
    Letters,
    All,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The log is not open or the function not ready yet.
    Closed,
    Idle,
    Calling {
        call: CallId,
        work: Work,
    },
    /// Repeats this work at `until`.
    Waiting {
        until: Time,
        work: Work,
    },
    Committing(Committing),
    /// Its commit could not be persisted: appends the same again at `until`.
    Unwritten {
        until: Time,
        committing: Committing,
    },
}

#[derive(Debug)]
pub(super) struct Committing {
    pub commit: Commit,
    pub consumed: BTreeMap<LogId, u64>,
    /// Work that waits meanwhile: letters move while a sink's outside is away.
    pub resume: Option<Box<(Time, Work)>>,
}

impl Committing {
    /// Events that wait for it, or for the work that it interrupts.
    fn events_in(&self) -> u64 {
        self.commit.events_in + self.resume.as_ref().map_or(0, |waiting| waiting.1.commit.events_in)
    }

    fn frontier(&self) -> &[Advance] {
        self.resume.as_ref().map_or(&self.commit.frontier, |waiting| &waiting.1.commit.frontier)
    }
}

/// What the actor wants done.
#[derive(Debug, PartialEq)]
pub enum Action {
    Invoke {
        call: CallId,
        batch: Arc<Vec<Invoked>>,
    },
    Discard,
    /// Append and persist this commit.
    Commit(Commit),
    Wake(Time),
    /// An order for letters is done: so many moved, so many had to stay.
    LettersMoved {
        order: u64,
        moved: u64,
        left: u64,
    },
}

impl Actor {
    pub fn new(log: LogId, spec: Arc<ActorSpec>, sink: bool) -> Actor {
        Actor {
            log,
            spec,
            sink,
            memory: ActorMemory::default(),
            upstream: BTreeMap::new(),
            phase: Phase::Closed,
            hosting: false,
            trouble: None,
            full: None,
            orders: VecDeque::new(),
            served: None,
            empty_since: None,
            failures: 0,
            calls: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        !matches!(self.phase, Phase::Closed)
    }

    /// The log is open and the function ready.
    pub fn opened(&mut self, now: Time) {
        if let Phase::Closed = self.phase {
            self.phase = Phase::Idle;
            self.trouble = None;
            // What was parked under a clock that was ahead of this one waits no longer than the longest wait.
            for parked in &mut self.memory.parked {
                parked.due = parked.due.min(now.after(RETRY_LAST));
            }
        }
    }

    /// Why it stands still, if it does: itself, or one of the logs that it reads.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble
            .as_ref()
            .or_else(|| self.upstream.values().find_map(|upstream| upstream.trouble.as_ref()))
    }

    /// Committed slices arrived. The caller has checked that they follow on.
    pub fn on_slices(&mut self, from: &LogId, slices: Vec<Slice>, ahead: Ahead, now: Time) {
        let Some(upstream) = self.upstream.get_mut(from) else { return };
        upstream.queue(slices, ahead);
        if self.empty_since.is_none() {
            self.empty_since = Some(now);
        }
    }

    /// Events that wait: queued here, in the call under way, or not yet sent.
    pub fn lag(&self) -> u64 {
        let in_work = match &self.phase {
            Phase::Calling { work, .. } | Phase::Waiting { work, .. } => work.commit.events_in,
            Phase::Committing(committing) | Phase::Unwritten { committing, .. } => committing.events_in(),
            Phase::Closed | Phase::Idle => 0,
        };
        let to_come = self.upstream.values().map(Upstream::lag);
        in_work + to_come.sum::<u64>() + self.memory.parked.len() as u64
    }

    /// Where the actor stands in a log, counting the commit that is under way.
    fn position_in_hand(&self, log: &LogId) -> Position {
        let frontier = match &self.phase {
            Phase::Calling { work, .. } | Phase::Waiting { work, .. } => Some(&work.commit.frontier[..]),
            Phase::Committing(committing) | Phase::Unwritten { committing, .. } => {
                Some(committing.frontier())
            }
            Phase::Closed | Phase::Idle => None,
        };
        frontier
            .and_then(|advances| advances.iter().rev().find(|advance| &advance.log == log))
            .map_or_else(|| self.memory.position_in(log), |advance| advance.to)
    }

    /// Does what can be done now.
    pub fn step(&mut self, now: Time, room: Room) -> Vec<Action> {
        let mut actions = Vec::new();
        if room != Room::None {
            self.move_letters(now, &mut actions);
        }
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Idle if room == Room::All => self.begin(now, &mut actions),
            Phase::Waiting { until, work } if until <= now => {
                let work = work.begin_anew(&self.memory.parked);
                self.go_on(work, now, &mut actions);
            }
            Phase::Unwritten { until, committing } if until <= now => {
                actions.push(Action::Commit(committing.commit.clone()));
                self.phase = Phase::Committing(committing);
            }
            Phase::Waiting { until, work } => {
                actions.push(Action::Wake(until));
                self.phase = Phase::Waiting { until, work };
            }
            Phase::Unwritten { until, committing } => {
                actions.push(Action::Wake(until));
                self.phase = Phase::Unwritten { until, committing };
            }
            other @ (Phase::Closed | Phase::Idle | Phase::Calling { .. } | Phase::Committing(_)) => {
                self.phase = other;
            }
        }
        actions
    }

    fn begin(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.phase = Phase::Idle;
        let mut work = Work::new(LetterId { actor: self.log, number: self.memory.letters + 1 });
        let wake = self.take_parked(&mut work, now);
        let before = self.full;
        self.full = self.fullness();
        match self.full {
            Some(Full::Dead) => {
                self.trouble = Some(alloc::format!(
                    "it keeps {} dead letters and no more fit; look at them with `dunlin dead-letters`, repair the stage, then replay or drop them",
                    self.memory.dead.len()
                ));
            }
            Some(Full::Parked) => {
                self.trouble = Some(alloc::format!(
                    "{PARKED_MAX} events wait for another try; the stage takes no new ones until then"
                ));
            }
            None => {
                if before.is_some() {
                    self.trouble = None;
                }
                self.take_slices(&mut work, now);
            }
        }
        let wake = match (wake, self.empty_wake(&work, now)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(at) = wake {
            actions.push(Action::Wake(at));
        }
        if work.is_empty() {
            return;
        }
        work.seal();
        self.go_on(work, now, actions);
    }

    fn fullness(&self) -> Option<Full> {
        let ActorMemory { dead, dead_bytes, parked, .. } = &self.memory;
        if dead.len() >= DEAD_LETTERS_MAX || *dead_bytes >= DEAD_LETTER_BYTES_MAX {
            return Some(Full::Dead);
        }
        (parked.len() >= PARKED_MAX).then_some(Full::Parked)
    }

    /// The first parked event of each key, when its time has come. Returns when the next is due.
    fn take_parked(&mut self, work: &mut Work, now: Time) -> Option<Time> {
        let mut seen = alloc::collections::BTreeSet::new();
        let mut wake: Option<Time> = None;
        for parked in &self.memory.parked {
            work.block(parked.event.key.clone());
            if !seen.insert(parked.event.key.clone()) {
                continue;
            }
            if parked.due <= now && work.events() < BATCH_EVENTS_MAX {
                match self.entrance(parked) {
                    Ok(step) => work.retry(parked, step),
                    Err(why) => work.bury(parked, why, now),
                }
            } else {
                wake = Some(wake.map_or(parked.due, |at| at.min(parked.due)));
            }
        }
        wake
    }

    /// Where a parked event enters the chain as it is now: at the head, or a replayed letter of a fused
    /// stage at that stage's step.
    fn entrance(&self, parked: &Parked) -> Result<Option<u16>, String> {
        let Some(replayed) = &parked.replayed else { return Ok(None) };
        let Some(before) = replayed.step else { return Ok(None) };
        match self.spec.chain.step_of(&replayed.stage, before) {
            Some(step) => Ok(Some(step)),
            None => Err(alloc::format!(
                "stage '{}' is no longer where it refused this event, so it cannot be replayed; drop it, or publish its event again",
                replayed.stage
            )),
        }
    }

    /// When positions without events will be committed, if only such wait.
    fn empty_wake(&self, work: &Work, now: Time) -> Option<Time> {
        let waits = work.is_empty() && self.upstream.values().any(|upstream| !upstream.is_empty());
        waits.then(|| self.empty_since.unwrap_or(now).after(EMPTY_COMMIT_AFTER))
    }

    /// Whole slices from the upstream logs in turn, until the batch is large enough.
    fn take_slices(&mut self, work: &mut Work, now: Time) {
        let events_wait = self.upstream.values().any(|upstream| upstream.queued_events() > 0);
        let overdue = self.empty_since.is_some_and(|since| now >= since.after(EMPTY_COMMIT_AFTER))
            || self.upstream.values().any(Upstream::ends);
        if !events_wait && !overdue && work.events() == 0 {
            return;
        }
        let mut order: Vec<LogId> = self.upstream.keys().copied().collect();
        if let Some(served) = self.served {
            let turn = order.iter().position(|log| *log > served).unwrap_or(0);
            order.rotate_left(turn);
        }
        let mut bytes = 0;
        for log in order {
            if bytes >= BATCH_BYTES_MAX || work.events() >= BATCH_EVENTS_MAX {
                break;
            }
            let Some(upstream) = self.upstream.get_mut(&log) else { continue };
            while bytes < BATCH_BYTES_MAX && work.events() < BATCH_EVENTS_MAX {
                let Some((slice, mark)) = upstream.take() else { break };
                let weight = slice.weight();
                bytes += weight as usize;
                let at = slice.position;
                for event in slice.events {
                    let Some(input) = upstream.inputs.get(&event.output).copied() else { continue };
                    let id = EventId { log, epoch: at.epoch, seq: at.seq, index: event.index };
                    work.take(Invoked { input, step: None, placed: Placed { id, event: event.event } });
                }
                let idle = mark.idle || upstream.aside;
                let advance = Advance { log, to: at, watermark: mark.watermark, idle };
                work.advance(advance, weight);
                if let Some(next) = slice.closed {
                    work.follow(Advance { log: next, to: Position::START, ..advance });
                }
                self.served = Some(log);
            }
        }
        let left = self.upstream.values().any(|upstream| !upstream.is_empty());
        self.empty_since = left.then_some(now);
    }

    fn go_on(&mut self, mut work: Work, now: Time, actions: &mut Vec<Action>) {
        match work.next_call() {
            Next::Call(batch) => {
                self.calls += 1;
                let call = CallId(self.calls);
                actions.push(Action::Invoke { call, batch });
                self.phase = Phase::Calling { call, work };
            }
            Next::Commit => {
                let Work { mut commit, consumed, .. } = work;
                // A head that names no stage is the unit's own.
                let nameless = commit.dead.iter_mut().filter(|letter| letter.stage.is_empty());
                nameless.for_each(|letter| letter.stage = self.stage());
                self.commit(Committing { commit, consumed, resume: None }, now, actions);
            }
        }
    }

    pub(super) fn commit(&mut self, mut committing: Committing, now: Time, actions: &mut Vec<Action>) {
        self.mark_time(&mut committing.commit);
        committing.commit.at = now;
        actions.push(Action::Commit(committing.commit.clone()));
        self.phase = Phase::Committing(committing);
    }

    /// The name that users know the head by.
    fn stage(&self) -> String {
        match &self.spec.name {
            LogName::Actor { unit, .. } => unit.name.to_string(),
            LogName::Catalog(_) => String::new(),
        }
    }

    pub(super) fn phase(&mut self) -> &mut Phase {
        &mut self.phase
    }

    /// The smallest watermark over the upstream logs that are not idle; never back.
    fn mark_time(&self, commit: &mut Commit) {
        let mut frontier = self.memory.frontier.clone();
        advance(&mut frontier, &commit.frontier);
        let active = frontier.values().filter(|advance| !advance.idle).map(|advance| advance.watermark).min();
        let floor = if planted(Mutation::WatermarkBack) { Time(0) } else { self.memory.watermark };
        commit.watermark = active.unwrap_or(self.memory.watermark).max(floor);
        commit.idle = active.is_none();
    }

    /// A call ended. Answers to calls that are no longer awaited are passed over.
    pub fn on_returned(&mut self, id: CallId, outcome: Result<Outcome, CallError>, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Calling { call, mut work } if call == id => {
                match work.on_returned(outcome, self.sink, now) {
                    Verdict::GoOn => {
                        self.failures = 0;
                        self.trouble = None;
                        self.go_on(work, now, &mut actions);
                    }
                    Verdict::CloseEarly => {
                        actions.push(Action::Discard);
                        let work = work.close_early(&self.memory.parked);
                        self.go_on(work, now, &mut actions);
                    }
                    Verdict::WaitAndRepeat(why) => {
                        self.failures = self.failures.saturating_add(1);
                        self.trouble = Some(why);
                        let until = now.after(backoff(self.failures));
                        actions.push(Action::Discard);
                        actions.push(Action::Wake(until));
                        self.phase = Phase::Waiting { until, work };
                    }
                }
            }
            other => self.phase = other,
        }
        actions
    }

    /// The commit stands: memory takes it, and the credit of what it consumed goes back upstream, with
    /// the position that is committed there.
    pub fn on_committed(&mut self) -> BTreeMap<LogId, (u64, Position)> {
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Committing(Committing { commit, consumed, resume }) => {
                let reached = |log: &LogId| {
                    let advance = commit.frontier.iter().rev().find(|advance| advance.log == *log);
                    advance.map_or_else(|| self.memory.position_in(log), |advance| advance.to)
                };
                let consumed =
                    consumed.into_iter().map(|(log, bytes)| (log, (bytes, reached(&log)))).collect();
                self.memory.apply(&commit);
                if let Some((until, work)) = resume.map(|waiting| *waiting) {
                    self.phase = Phase::Waiting { until, work };
                    return consumed;
                }
                // What stood in its way (a full disk) is over.
                if self.failures > 0 {
                    self.trouble = None;
                }
                self.failures = 0;
                consumed
            }
            other => {
                self.phase = other;
                BTreeMap::new()
            }
        }
    }

    /// The commit does not stand: the same is appended again after a while.
    pub fn on_commit_failed(&mut self, why: &str, now: Time) -> Vec<Action> {
        match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Committing(committing) => {
                self.failures = self.failures.saturating_add(1);
                self.trouble = Some(why.to_string());
                let until = now.after(backoff(self.failures));
                self.phase = Phase::Unwritten { until, committing };
                alloc::vec![Action::Wake(until)]
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    /// Its log is to be closed: the actor takes nothing new. True: it is at rest. A commit that is being
    /// made is finished; one that would wait (for an outside, for the disk) is given up, since nothing of
    /// it stands.
    pub fn leave(&mut self) -> (bool, Vec<Action>) {
        match &self.phase {
            Phase::Closed => (!self.hosting, Vec::new()),
            Phase::Idle => (true, self.end_orders(true)),
            Phase::Calling { .. } | Phase::Committing(_) => (false, Vec::new()),
            Phase::Waiting { .. } | Phase::Unwritten { .. } => {
                let stood = matches!(self.phase, Phase::Waiting { .. });
                self.phase = Phase::Idle;
                let mut actions = self.end_orders(stood);
                actions.push(Action::Discard);
                (true, actions)
            }
        }
    }

    /// Nothing more comes of this log: its node was given up. What has come is taken in, and then a commit
    /// says that it holds no watermark back. True: there is something to do. `edge` numbers a new upstream.
    pub fn forsake(&mut self, log: &LogId, now: Time, edge: EdgeId) -> bool {
        let in_hand = self.position_in_hand(log);
        let known = self.memory.frontier.get(log).copied();
        if !self.upstream.contains_key(log) {
            if known.is_none_or(|advance| advance.idle) {
                return false;
            }
            self.upstream.insert(*log, Upstream::new(edge, BTreeMap::new()).resumed(known.as_ref()));
        }
        let Some(upstream) = self.upstream.get_mut(log) else { return false };
        if !upstream.forsake(in_hand) {
            return false;
        }
        let mut at = upstream.delivered(in_hand);
        if at == Position::START {
            if known.is_none() {
                return false;
            }
            // An advance to the very start would say that this log follows another.
            at.epoch = Epoch(1);
        }
        upstream.conclude(at);
        self.empty_since.get_or_insert(now);
        true
    }

    /// The upstream log really ended at `to`, before where this actor stood: it falls back, by rule.
    /// Only its idea of the position changes, and only if it has committed something of the lost tail; what
    /// was computed from that stays computed. Returns the credit that the lost tail held here, in bytes.
    pub fn fall_back(&mut self, log: &LogId, to: Position) -> u64 {
        if let Some(advance) = self.memory.frontier.get_mut(log).filter(|advance| advance.to.seq > to.seq) {
            advance.to = to;
        }
        self.upstream.get_mut(log).map_or(0, |upstream| upstream.cut(to.seq))
    }
}
