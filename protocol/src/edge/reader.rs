//! The reader's side of an edge.

use alloc::vec::Vec;

use crate::id::{LogId, NodeId, Position, Seq};
use crate::limits::{EDGE_CREDIT_BYTES, EDGE_REPEAT};
use crate::mutation::{Mutation, planted};
use crate::time::{Span, Time};
use crate::wire::message::{Broadcast, EdgeId, Filter, From, Message, Slice};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Actor(LogId),
    /// Taps of this node, together.
    Hub,
}

/// What a reader is told of what is still to come.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    /// The log's last record.
    pub head: Seq,
    /// Events for the reader that it was not sent yet.
    pub behind: u64,
}

/// A quiet edge repeats its credit this seldom.
const QUIET_REPEAT: Span = Span(15_000);
/// Who reads event by event tells of them this seldom.
const CREDIT_EVERY: Span = Span(20);
/// What was broadcast and has not come after this long is taken for lost.
const LATE: Span = Span(300);

#[derive(Debug)]
pub struct Reader {
    pub edge: EdgeId,
    pub log: LogId,
    pub writer: NodeId,
    pub owner: Owner,
    filter: Filter,
    from: From,
    /// The last position that came, and the last whose effects are committed.
    received: Position,
    committed: Position,
    /// Bytes that may be under way or not done with.
    window: u64,
    /// Bytes that came and are not done with; bytes granted since the subscription.
    held: u64,
    granted: u64,
    /// Credit granted since the last message that told of it.
    untold: u64,
    /// Where the log ended when last heard of.
    pub head: Seq,
    /// The log's `Close` came: it is told again to whoever subscribes behind it, and not taken twice.
    ended: bool,
    /// What is new comes by gossip.
    by_gossip: bool,
    /// Where it stood, and since when it has known that more was broadcast.
    lacks: Option<(Position, Time)>,
    live: bool,
    said_at: Option<Time>,
    heard_at: Time,
}

/// What a batch that came by gossip is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It follows on.
    Next,
    /// All of it was known.
    Known,
    /// It may follow on later.
    Early,
    /// It follows on, and there is no room: what came before has not been taken by anybody yet.
    NoRoom,
}

/// What there is to tell the writer when something is done with.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    Now(Message),
    /// By then.
    At(Time),
    Enough,
}

/// What an incoming batch means.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It follows on: here is what is new.
    Slices(Vec<Slice>),
    /// All of it was known.
    Known,
    /// Something between is missing: subscribe again.
    Gap,
}

impl Reader {
    pub fn new(edge: EdgeId, log: LogId, writer: NodeId, owner: Owner, filter: Filter, from: From) -> Reader {
        let received = match from {
            From::After(position) => position,
            From::Start | From::Now => Position::START,
        };
        Reader {
            edge,
            log,
            writer,
            owner,
            filter,
            from,
            received,
            committed: received,
            window: EDGE_CREDIT_BYTES,
            held: 0,
            granted: 0,
            untold: 0,
            head: Seq(0),
            ended: false,
            by_gossip: false,
            lacks: None,
            live: false,
            said_at: None,
            heard_at: Time(0),
        }
    }

    /// It only asks where the log stands: nothing is sent to it before it is opened.
    pub fn looking_in(self) -> Reader {
        Reader { window: 0, ..self }
    }

    /// It reads from now on. Returns what grants its credit, if the subscription stands.
    pub fn open(&mut self, now: Time) -> Option<Message> {
        self.window = EDGE_CREDIT_BYTES;
        self.granted = self.window.saturating_sub(self.held);
        self.live.then(|| self.credit(now))
    }

    pub fn received(&self) -> Position {
        self.received
    }

    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Everything up to the log's end, as last heard of, has come.
    pub fn is_level(&self) -> bool {
        self.live && self.received.seq >= self.head
    }

    /// The link is gone, or the writer said something that does not fit: begin again.
    pub fn lost(&mut self) {
        if planted(Mutation::ReadFromStart) {
            self.from = From::Start;
        }
        self.live = false;
        self.by_gossip = false;
        self.lacks = None;
        self.said_at = None;
    }

    /// The writer says that what follows on `at` comes by gossip. False: that is not where this reader
    /// stands, so something got lost.
    pub fn on_by_gossip(&mut self, at: Position) -> bool {
        if self.live && at == self.received {
            self.by_gossip = true;
            self.lacks = None;
        }
        !self.live || at.seq <= self.received.seq
    }

    pub fn outputs(&self) -> &[u16] {
        &self.filter.outputs
    }

    pub fn is_by_gossip(&self) -> bool {
        self.by_gossip
    }

    /// What this batch of the writer is to it.
    pub fn hears(&self, broadcast: &Broadcast) -> Heard {
        let fits = broadcast.after == self.received || planted(Mutation::TakeOverGaps);
        match broadcast.last().seq <= self.received.seq {
            true => Heard::Known,
            false if !self.by_gossip || !fits => Heard::Early,
            false if self.ended => Heard::Known,
            false if self.held >= self.window => Heard::NoRoom,
            false => Heard::Next,
        }
    }

    /// Takes one that is `Heard::Next`.
    pub fn take(&mut self, broadcast: &Broadcast, now: Time) -> Vec<Slice> {
        self.heard_at = now;
        self.lacks = None;
        self.took(broadcast.slices.clone())
    }

    /// The log ends at `head`, and what was broadcast at `broadcast`.
    pub fn on_head(&mut self, head: Seq, broadcast: Position, now: Time) {
        self.head = self.head.max(head);
        let known = self.lacks.is_some_and(|(at, _)| at == self.received);
        if self.by_gossip && broadcast.seq > self.received.seq && !known {
            self.lacks = Some((self.received, now));
        }
    }

    /// What was broadcast behind its place is taken for lost.
    pub fn is_late(&self, now: Time) -> bool {
        self.lacks.is_some_and(|(at, since)| at == self.received && now >= since.after(LATE))
    }

    fn subscribe(&mut self, now: Time) -> Message {
        self.said_at = Some(now);
        self.granted = self.window.saturating_sub(self.held);
        self.untold = 0;
        let reader = match self.owner {
            Owner::Actor(log) => Some(log),
            Owner::Hub => None,
        };
        Message::Subscribe {
            edge: self.edge,
            log: self.log,
            reader,
            filter: self.filter.clone(),
            from: self.from,
            committed: self.committed,
            credit: self.granted,
        }
    }

    /// What is to be said now, if anything. `reachable`: the writer is this node or connected.
    pub fn beat(&mut self, now: Time, reachable: bool) -> Option<Message> {
        if !reachable {
            return None;
        }
        if self.is_late(now) {
            self.lost();
        }
        if !self.live {
            let due = self.said_at.is_none_or(|at| now >= at.after(EDGE_REPEAT));
            return due.then(|| self.subscribe(now));
        }
        let quiet = now.since(self.heard_at) > Span(EDGE_REPEAT.0 * 3) && self.received.seq >= self.head;
        let every = if quiet { QUIET_REPEAT } else { EDGE_REPEAT };
        let due = self.said_at.is_none_or(|at| now >= at.after(every));
        due.then(|| self.credit(now))
    }

    fn credit(&mut self, now: Time) -> Message {
        self.said_at = Some(now);
        self.untold = 0;
        Message::Credit {
            edge: self.edge,
            total: self.granted,
            received: self.received,
            committed: self.committed,
        }
    }

    pub fn on_subscribed(&mut self, at: Position, head: Seq, now: Time) {
        self.live = true;
        self.heard_at = now;
        self.head = head;
        if !matches!(self.from, From::After(_)) {
            self.received = at;
            self.committed = at;
            self.from = From::After(at);
        }
    }

    pub fn on_batch(&mut self, after: Position, slices: Vec<Slice>, head: Seq, now: Time) -> Taken {
        if !self.live {
            return Taken::Known;
        }
        self.heard_at = now;
        self.head = self.head.max(head);
        let Some(last) = slices.last().map(|slice| slice.position) else { return Taken::Known };
        if after != self.received && !planted(Mutation::SkipPositionCheck) {
            return if last.seq <= self.received.seq { Taken::Known } else { Taken::Gap };
        }
        if self.ended {
            return Taken::Known;
        }
        Taken::Slices(self.took(slices))
    }

    fn took(&mut self, slices: Vec<Slice>) -> Vec<Slice> {
        self.ended = slices.iter().any(|slice| slice.closed.is_some());
        if let Some(last) = slices.last() {
            self.received = last.position;
            self.from = From::After(last.position);
        }
        self.held += slices.iter().map(Slice::weight).sum::<u64>();
        slices
    }

    /// `bytes` of what came are done with; `committed` is where their effects stand.
    pub fn consumed(&mut self, bytes: u64, committed: Position, now: Time) -> Word {
        self.granted += bytes;
        self.untold += bytes;
        self.held = self.held.saturating_sub(bytes);
        self.committed = committed;
        // Worth a message at once when a quarter of the window is free again, and soon when all that came is
        // done, for several events together; of many readers the writer hears only the former.
        let quarter = self.untold >= EDGE_CREDIT_BYTES / 4;
        let due = self.said_at.map_or(now, |at| at.after(CREDIT_EVERY));
        let done = self.held == 0 && !self.by_gossip;
        match self.live {
            true if quarter || (done && due <= now) => Word::Now(self.credit(now)),
            true if done => Word::At(due),
            true | false => Word::Enough,
        }
    }

    /// What `Word::At` put off, if it was not said meanwhile.
    pub fn owed(&mut self, now: Time) -> Option<Message> {
        (self.live && self.untold > 0).then(|| self.credit(now))
    }

    /// Bytes that came and will not be used after all.
    pub fn release(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// What follows on where this reader stood is not kept any more: it begins with what is.
    pub fn skip(&mut self) {
        self.received = Position::START;
        self.from = From::Start;
        self.lost();
    }

    /// The writer's log ended before where this reader stood. What came before and is not committed yet is
    /// not committed by that.
    pub fn fall_back(&mut self, to: Position) {
        self.received = to;
        if self.committed.seq > to.seq {
            self.committed = to;
        }
        self.from = From::After(to);
        self.head = to.seq;
        self.ended = false;
        self.lost();
    }
}
