//! A source log: where events enter on one node, with its producers.
//!
//! An append is checked against what was appended before it, persisted or not; it is acknowledged
//! once it is persisted, and so is a repetition of it.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::fold::SourceMemory;
use crate::effect::{RequestId, SourceStream};
use crate::id::{LogId, NodeId, Seq};
use crate::limits::{PRODUCERS_MAX, SOURCE_IDLE};
use crate::log::record::{Append, Produced};
use crate::mutation::{Mutation, planted};
use crate::rpc::{Fault, FaultKind, Publish};
use crate::time::Time;
use crate::wire::message::AskId;

/// Who waits for an answer: a client of this node, or another node for a client of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    Client(RequestId),
    Node(NodeId, AskId),
}

#[derive(Debug)]
pub struct SourceLog {
    pub log: LogId,
    pub stream: Arc<SourceStream>,
    /// What is persisted, and what is appended beyond it.
    pub memory: SourceMemory,
    ahead: SourceMemory,
    waiting: VecDeque<Waiting>,
    /// Since when nothing came, as this process's clock shows it: the last append may have been made
    /// under a clock that was ahead.
    quiet_since: Time,
    /// The connector was started.
    pub connected: bool,
}

/// An acknowledgement that waits for its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub asker: Asker,
    pub seq: Seq,
    pub acknowledged: u64,
    pub last: u64,
}

/// What becomes of a publish request.
#[derive(Debug, PartialEq)]
pub enum Taken {
    /// To be appended; `Waiting` stands for the answer.
    Append {
        append: Append,
        acknowledged: u64,
        last: u64,
    },
    /// All of it is in the log already, up to this producer's last: acknowledged like the first time.
    Known {
        acknowledged: u64,
        last: u64,
    },
    Refused(Fault),
}

impl SourceLog {
    pub fn new(log: LogId, stream: Arc<SourceStream>, memory: SourceMemory) -> SourceLog {
        SourceLog {
            log,
            stream,
            ahead: memory.clone(),
            quiet_since: memory.last_append,
            memory,
            waiting: VecDeque::new(),
            connected: false,
        }
    }

    /// The log may be written from now on.
    pub fn opened(&mut self, now: Time) {
        if !planted(Mutation::IdleByOldClock) {
            self.quiet_since = self.quiet_since.min(now);
        }
    }

    /// Checks a request against the producer's progress and makes the append of what is new.
    pub fn take(&self, publish: Publish, now: Time) -> Taken {
        let Publish { producer, mut events, .. } = publish;
        let acknowledged = events.len() as u64;
        let mut produced = None;
        let mut last = 0;
        if let Some(range) = producer {
            let known = match planted(Mutation::ForgetProducers) {
                true => range.first.saturating_sub(1),
                false => self.ahead.producers.get(&range.producer).map_or(0, |producer| producer.last),
            };
            if range.first == 0 || range.last < range.first || range.sequences.len() != events.len() {
                return refuse(
                    FaultKind::Invalid,
                    "a producer's sequences start at 1 and each event has its own".into(),
                );
            }
            if range.first > known + 1 {
                let why = format!(
                    "producer {} sent sequence {} where {} is expected; send from {} on",
                    range.producer,
                    range.first,
                    known + 1,
                    known + 1
                );
                return refuse(FaultKind::Conflict, why);
            }
            last = range.last;
            if range.last <= known {
                return Taken::Known { acknowledged, last: known };
            }
            if known == 0 && self.ahead.producers.len() >= PRODUCERS_MAX {
                let why = format!(
                    "this log remembers {PRODUCERS_MAX} producers and takes no new one; reuse a producer's name"
                );
                return refuse(FaultKind::Busy { retry_after_ms: 60_000 }, why);
            }
            let mut sequences = range.sequences.iter();
            events.retain(|_| sequences.next().is_some_and(|sequence| *sequence > known));
            produced = Some(Produced { producer: range.producer, first: known + 1, last: range.last });
        }
        if events.is_empty() && produced.is_none() {
            return Taken::Known { acknowledged, last: 0 };
        }
        let newest = events.iter().map(|event| event.time).max();
        let lateness = self.stream.source.lateness;
        let watermark = newest.map_or(Time(0), |time| time.before(lateness)).max(self.ahead.watermark);
        let idle = events.is_empty() && self.ahead.idle;
        Taken::Append {
            append: Append { producer: produced, events, watermark, idle, at: now },
            acknowledged,
            last,
        }
    }

    /// The append stands at `seq`, not persisted yet.
    pub fn appended(&mut self, append: &Append) {
        self.ahead.apply(append);
        self.quiet_since = append.at;
    }

    pub fn await_seq(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Records up to `seq` are persisted: whose answers are due. The folds were applied by `persisted`.
    pub fn due(&mut self, seq: Seq) -> impl Iterator<Item = Waiting> + use<> {
        let count = self.waiting.iter().take_while(|waiting| waiting.seq <= seq).count();
        let rest = self.waiting.split_off(count);
        core::mem::replace(&mut self.waiting, rest).into_iter()
    }

    pub fn persisted(&mut self, append: &Append) {
        self.memory.apply(append);
    }

    /// Nothing from `seq` on stands: those who wait for it are told, and what was ahead of `pending`
    /// (appends before `seq`, still on their way) is forgotten.
    pub fn failed<'a>(&mut self, seq: Seq, pending: impl Iterator<Item = &'a Append>) -> Vec<Waiting> {
        self.ahead = self.memory.clone();
        pending.for_each(|append| self.ahead.apply(append));
        let keep = self.waiting.iter().take_while(|waiting| waiting.seq < seq).count();
        self.waiting.split_off(keep).into()
    }

    /// The idle mark that is due now, or when to look again.
    pub fn idle_mark(&self, now: Time) -> Result<Append, Option<Time>> {
        if self.ahead.idle || self.ahead.events == 0 {
            return Err(None);
        }
        let due = self.quiet_since.after(SOURCE_IDLE);
        if now < due {
            return Err(Some(due));
        }
        Ok(Append {
            producer: None,
            events: Default::default(),
            watermark: self.ahead.watermark,
            idle: true,
            at: now,
        })
    }

    /// The connector's next sequence number.
    pub fn next_of(&self, producer: &str) -> u64 {
        let known = self.memory.producers.iter().find(|(name, _)| name.as_str() == producer);
        known.map_or(1, |(_, producer)| producer.last + 1)
    }
}

fn refuse(kind: FaultKind, detail: String) -> Taken {
    Taken::Refused(Fault { kind, detail })
}
