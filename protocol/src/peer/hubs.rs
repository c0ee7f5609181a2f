//! Hubs: the taps of this node that read one log share one edge, so its writer sends each record once
//! for all of them.
//!
//! A tap first asks the log's writer where the log stands, by an edge that grants nothing. Then it joins
//! the hub that has what it reads next, or reads by that edge: a hub of its own, which others may join.
//! What came is kept in the hub's window while the slower taps want it; the quickest one sets the pace.
//! Who falls behind the window reads by a hub of its own until it stands in another window again, and the
//! two become one. Hubs behind the first one of their log are few: beyond, taps take turns.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::Peer;
use crate::edge::reader::{Owner, Reader};
use crate::edge::window::{Standing, Window};
use crate::effect::{Effects, RequestId};
use crate::id::{LogId, NodeId, Position, Seq};
use crate::limits::{HUB_TURN, HUBS_BEHIND_MAX, HUBS_WINDOWS, TAP_WINDOW_BYTES};
use crate::mutation::{Mutation, planted};
use crate::pipeline::plan::SlotRange;
use crate::time::Time;
use crate::wire::message::{EdgeId, Filter, From, Slice};

/// How much the taps of this node share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapBounds {
    /// Bytes that a hub keeps for taps that are slower than its quickest one. Beyond: they fall off. All
    /// hubs together keep no more than two such windows, or a 128th of one each.
    pub window_bytes: u64,
    /// Hubs behind the first of their log, for each node that they read from. Beyond: taps take turns.
    pub behind_max: usize,
}

impl Default for TapBounds {
    fn default() -> TapBounds {
        TapBounds { window_bytes: TAP_WINDOW_BYTES, behind_max: HUBS_BEHIND_MAX }
    }
}

/// A log, and the outputs of its unit that are read.
type Key = (LogId, Vec<u16>);

#[derive(Debug)]
struct Hub {
    key: Key,
    /// None: the writer has not told yet where it begins.
    window: Option<Window>,
    members: BTreeSet<RequestId>,
    /// Those of them that stand ahead of the window.
    ahead: BTreeSet<RequestId>,
    /// As far as the quickest member has come.
    lead: Seq,
    /// It only asks where the log stands.
    looking: bool,
    since: Time,
}

#[derive(Debug, Default)]
pub(super) struct Hubs {
    hubs: BTreeMap<EdgeId, Hub>,
    of: BTreeMap<Key, BTreeSet<EdgeId>>,
    /// Taps that wait for a hub of their own, in order.
    line: VecDeque<(RequestId, LogId)>,
    bounds: TapBounds,
}

impl Hubs {
    pub(super) fn new(bounds: TapBounds) -> Hubs {
        Hubs { bounds, ..Hubs::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.hubs.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// The edges by which this node reads these outputs of the log.
    pub(super) fn edges_of(&self, log: &LogId, outputs: &[u16]) -> Vec<EdgeId> {
        let key = (*log, outputs.to_vec());
        self.of.get(&key).into_iter().flatten().copied().collect()
    }

    pub(super) fn window(&self, edge: &EdgeId) -> Option<&Window> {
        self.hubs.get(edge)?.window.as_ref()
    }

    pub(super) fn forget(&mut self, id: RequestId) {
        self.line.retain(|(waits, _)| *waits != id);
    }

    /// The tap has taken everything up to `seq`. True: no other one of the hub is that far.
    pub(super) fn took(&mut self, edge: &EdgeId, seq: Seq) -> bool {
        let Some(hub) = self.hubs.get_mut(edge).filter(|hub| seq > hub.lead) else { return false };
        hub.lead = seq;
        true
    }

    fn end(&self, edge: &EdgeId) -> Option<Seq> {
        self.window(edge).map(|window| window.end().seq)
    }

    /// Bytes that a window keeps when every tap has them, and at most.
    fn rest_and_keep(&self) -> (u64, u64) {
        let rest = self.bounds.window_bytes / 128;
        let all = self.bounds.window_bytes.saturating_mul(HUBS_WINDOWS);
        let each = all / (self.hubs.len().max(1) as u64);
        (rest, each.clamp(rest, self.bounds.window_bytes))
    }
}

impl Peer {
    // --- a tap and its hub ---

    /// Makes an edge of the tap's own: it reads `from` there.
    pub(super) fn open_hub(&mut self, id: RequestId, log: LogId, from: From, effects: &mut Effects) {
        let edge = EdgeId(self.fresh());
        let Some(place) = self.place(id, &log) else { return };
        let (writer, outputs) = (place.writer, place.outputs.clone());
        // Who was told before where the log stands only comes here when it is to read.
        let told = place.head_at_first.is_some();
        place.hub = Some(edge);
        let key = (log, outputs.clone());
        let looking = !told && self.hubs.of.contains_key(&key);
        let filter = Filter { outputs, slots: SlotRange::ALL };
        let reader = Reader::new(edge, log, writer, Owner::Hub, filter, from);
        self.readers.insert(edge, if looking { reader.looking_in() } else { reader });
        let hub = Hub {
            key: key.clone(),
            window: None,
            members: [id].into(),
            ahead: BTreeSet::new(),
            lead: Seq(0),
            looking,
            since: self.now,
        };
        self.hubs.hubs.insert(edge, hub);
        self.hubs.of.entry(key).or_default().insert(edge);
        self.speak(edge, effects);
    }

    pub(super) fn leave_hub(&mut self, id: RequestId, log: &LogId, effects: &mut Effects) {
        let Some(edge) = self.place(id, log).and_then(|place| place.hub.take()) else { return };
        let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
        hub.members.remove(&id);
        hub.ahead.remove(&id);
        if hub.members.is_empty() {
            self.close_hub(edge, effects);
        }
    }

    fn close_hub(&mut self, edge: EdgeId, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.remove(&edge) else { return };
        if let Some(edges) = self.hubs.of.get_mut(&hub.key) {
            edges.remove(&edge);
            if edges.is_empty() {
                self.hubs.of.remove(&hub.key);
            }
        }
        self.drop_reader(edge, effects);
        self.serve_line(effects);
    }

    fn join(&mut self, id: RequestId, log: &LogId, to: EdgeId, effects: &mut Effects) {
        self.leave_hub(id, log, effects);
        let Some(place) = self.taps.get_mut(&id).and_then(|tap| tap.place(log)) else { return };
        let (Some(at), Some(hub)) = (place.at, self.hubs.hubs.get_mut(&to)) else { return };
        self.restless_taps.insert(id);
        match hub.window.as_ref().map(|window| window.standing(at)) {
            Some(Standing::Within) => {}
            Some(Standing::Ahead) => _ = hub.ahead.insert(id),
            // What ended with the hub that it left has let others in here, and the window went on.
            Some(Standing::Apart) | None if !planted(Mutation::JoinAnywhere) => return,
            Some(Standing::Apart) | None => {}
        }
        place.hub = Some(to);
        place.waits = false;
        hub.members.insert(id);
        hub.lead = hub.lead.max(at.seq);
        self.advance_hub(to, effects);
    }

    /// The hub of this log in whose window the tap stands; of several the one that has come furthest.
    fn fitting(&self, key: &Key, at: Position, but: Option<EdgeId>) -> Option<(Standing, EdgeId)> {
        let edges = self.hubs.of.get(key)?.iter().filter(|edge| Some(**edge) != but);
        let fits = edges.filter_map(|edge| {
            let hub = self.hubs.hubs.get(edge).filter(|hub| !hub.looking)?;
            // A log may have lost its tail while the link was away.
            let live = self.readers.get(edge).is_some_and(Reader::is_live);
            let window = hub.window.as_ref().filter(|_| live)?;
            let standing = match planted(Mutation::JoinAnywhere) {
                true => Standing::Within,
                false => window.standing(at),
            };
            (standing > Standing::Apart).then(|| (standing, window.end().seq, *edge))
        });
        fits.max().map(|(standing, _, edge)| (standing, edge))
    }

    /// The tap stands in no hub: it joins one, or begins one, or waits for its turn. Who may be sent
    /// nothing now comes back when its client grants more.
    pub(super) fn seek_hub(&mut self, id: RequestId, log: &LogId, effects: &mut Effects) {
        let Some(tap) = self.taps.get_mut(&id).filter(|tap| tap.credit > 0) else { return };
        let Some(place) = tap.place(log).filter(|place| place.hub.is_none() && !place.waits) else { return };
        let Some(at) = place.at else { return };
        let (key, writer) = ((*log, place.outputs.clone()), place.writer);
        if let Some((_, to)) = self.fitting(&key, at, None) {
            return self.join(id, log, to, effects);
        }
        if self.has_room(&key, writer) {
            return self.open_hub(id, *log, From::After(at), effects);
        }
        if let Some(place) = self.place(id, log) {
            place.waits = true;
            self.hubs.line.push_back((id, *log));
        }
    }

    /// Whether another hub may read this log: the first always may.
    fn has_room(&self, key: &Key, writer: NodeId) -> bool {
        let read = |edge: &EdgeId| self.hubs.hubs.get(edge).is_some_and(|hub| !hub.looking);
        if !self.hubs.of.get(key).into_iter().flatten().any(read) {
            return true;
        }
        let reads = |edge: &EdgeId| self.readers.get(edge).is_some_and(|reader| reader.writer == writer);
        let hubs = self.hubs.hubs.iter().filter(|(edge, hub)| !hub.looking && reads(edge));
        let (mut all, mut logs) = (0, BTreeSet::new());
        for (_, hub) in hubs {
            all += 1;
            logs.insert(&hub.key);
        }
        all - logs.len() < self.hubs.bounds.behind_max.max(1)
    }

    fn serve_line(&mut self, effects: &mut Effects) {
        for _ in 0..self.hubs.line.len() {
            let Some((id, log)) = self.hubs.line.pop_front() else { return };
            let Some(place) = self.place(id, &log).filter(|place| place.waits) else { continue };
            place.waits = false;
            let (key, writer) = ((log, place.outputs.clone()), place.writer);
            if self.has_room(&key, writer) {
                self.seek_hub(id, &log, effects);
            } else if let Some(place) = self.place(id, &log) {
                place.waits = true;
                self.hubs.line.push_back((id, log));
            }
        }
    }

    /// The tap looks for a hub of each log that it stands in none of, and takes what there is.
    pub(super) fn rouse_tap(&mut self, id: RequestId, effects: &mut Effects) {
        for log in self.taps.get(&id).map(|tap| tap.adrift()).unwrap_or_default() {
            self.seek_hub(id, &log, effects);
        }
        self.drain_tap(id, effects);
    }

    /// Taps that wait for a hub of their own get the place of those that have had one for a while.
    pub(super) fn take_turns(&mut self, effects: &mut Effects) {
        // Who was not told yet where it begins cannot come back to that place.
        let stands = |hub: &Hub| !hub.looking && hub.window.is_some();
        let due = |hub: &Hub| stands(hub) && self.now >= hub.since.after(HUB_TURN);
        let behind = |edge: &EdgeId, hub: &Hub| {
            let others = self.hubs.of.get(&hub.key).into_iter().flatten();
            others.into_iter().any(|other| other != edge && self.hubs.end(other) >= self.hubs.end(edge))
        };
        let hubs = self.hubs.hubs.iter().filter(|(edge, hub)| due(hub) && behind(edge, hub));
        let mut hubs: Vec<(Time, EdgeId)> = hubs.map(|(edge, hub)| (hub.since, *edge)).collect();
        hubs.sort_unstable();
        hubs.truncate(self.hubs.line.len());
        for (_, edge) in hubs {
            if self.hubs.line.is_empty() {
                return;
            }
            let Some(hub) = self.hubs.hubs.get(&edge) else { continue };
            let (log, members) = (hub.key.0, hub.members.clone());
            for id in &members {
                self.leave_hub(*id, &log, effects);
            }
            for id in members {
                self.seek_hub(id, &log, effects);
            }
        }
    }

    // --- what comes over a hub's edge ---

    pub(super) fn on_hub_subscribed(&mut self, edge: EdgeId, at: Position, head: Seq, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
        hub.window.get_or_insert_with(|| Window::at(at));
        let (key, members, looking) = (hub.key.clone(), hub.members.clone(), hub.looking);
        for id in &members {
            if let Some(place) = self.place(*id, &key.0) {
                place.at.get_or_insert(at);
                place.head_at_first.get_or_insert(head);
            }
        }
        if looking {
            self.settle_in(edge, &key, effects);
        }
        for id in members {
            self.drain_tap(id, effects);
        }
    }

    /// The tap knows where the log stands: it reads on with others, or by itself.
    fn settle_in(&mut self, edge: EdgeId, key: &Key, effects: &mut Effects) {
        let Some(id) = self.hubs.hubs.get(&edge).and_then(|hub| hub.members.first().copied()) else { return };
        let Some(tap) = self.taps.get_mut(&id) else { return };
        let may_read = tap.credit > 0;
        let Some((writer, at)) = tap.place(&key.0).and_then(|place| Some((place.writer, place.at?))) else {
            return;
        };
        if let Some((_, to)) = self.fitting(key, at, Some(edge)) {
            return self.join(id, &key.0, to, effects);
        }
        if !may_read || !self.has_room(key, writer) {
            self.leave_hub(id, &key.0, effects);
            return self.seek_hub(id, &key.0, effects);
        }
        if let Some(hub) = self.hubs.hubs.get_mut(&edge) {
            hub.looking = false;
        }
        if let Some(message) = self.readers.get_mut(&edge).and_then(|reader| reader.open(self.now)) {
            self.send(writer, message, effects);
        }
    }

    pub(super) fn on_hub_slices(&mut self, edge: EdgeId, slices: Vec<Slice>, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
        let Some(window) = hub.window.as_mut() else { return };
        window.push(slices);
        let key = hub.key.clone();
        self.look_back(edge, &key.0, effects);
        let Some(hub) = self.hubs.hubs.get(&edge) else { return };
        // What came may lie before a member that joined from ahead: nobody takes it, and it is done with.
        let mut led = BTreeSet::from([edge]);
        for id in hub.members.clone() {
            led.extend(self.serve_tap(id, effects));
        }
        for edge in led {
            self.advance_hub(edge, effects);
        }
        // Only now: who joins sets the pace, and whoever had not been served what came would fall off.
        self.meet(&key, effects);
    }

    /// The window has come to where members stood ahead of it: now it can be told whether both read the
    /// same records.
    fn look_back(&mut self, edge: EdgeId, log: &LogId, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.get(&edge) else { return };
        for id in hub.ahead.clone() {
            let Some(at) = self.place(id, log).and_then(|place| place.at) else { continue };
            let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
            let Some(standing) = hub.window.as_ref().map(|window| window.standing(at)) else { return };
            match standing {
                Standing::Ahead => {}
                Standing::Within => _ = hub.ahead.remove(&id),
                Standing::Apart => {
                    self.leave_hub(id, log, effects);
                    self.seek_hub(id, log, effects);
                }
            }
        }
    }

    /// Who stands in the window of a hub that has come further reads there from now on.
    fn meet(&mut self, key: &Key, effects: &mut Effects) {
        let mut moves: Vec<(RequestId, EdgeId)> = Vec::new();
        let edges = self.hubs.of.get(key).filter(|edges| edges.len() > 1);
        for edge in edges.into_iter().flatten() {
            let Some(hub) = self.hubs.hubs.get(edge).filter(|hub| !hub.looking) else { continue };
            for id in hub.members.difference(&hub.ahead) {
                let Some(at) = self.taps.get(id).and_then(|tap| tap.at(&key.0)) else { continue };
                let better = |to: &EdgeId| (self.hubs.end(to), edge) > (self.hubs.end(edge), to);
                match self.fitting(key, at, Some(*edge)) {
                    Some((Standing::Within, to)) if better(&to) => moves.push((*id, to)),
                    Some(_) | None => {}
                }
            }
        }
        for (id, log) in self.hubs.line.iter().filter(|(_, log)| *log == key.0) {
            let place = self.taps.get(id).and_then(|tap| tap.stands_in(log));
            let Some(at) = place.filter(|place| place.outputs == key.1).and_then(|place| place.at) else {
                continue;
            };
            if let Some((Standing::Within, to)) = self.fitting(key, at, None) {
                moves.push((*id, to));
            }
        }
        for (id, to) in moves {
            // By a move before, the other hub may have ended, or have let go of what this tap wants.
            let at = self.taps.get(&id).and_then(|tap| tap.at(&key.0));
            let within = |window: &Window| at.is_some_and(|at| window.standing(at) == Standing::Within);
            if self.hubs.window(&to).is_some_and(within) {
                self.join(id, &key.0, to, effects);
            }
        }
    }

    /// Gives credit back for what the quickest tap has taken, and lets go of what the window has no room
    /// for: taps that had not taken it fall off.
    pub(super) fn advance_hub(&mut self, edge: EdgeId, effects: &mut Effects) {
        let (rest, keep) = self.hubs.rest_and_keep();
        let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
        let Some(window) = hub.window.as_mut() else { return };
        let bytes = window.done_to(hub.lead);
        if bytes == 0 {
            return;
        }
        let done = window.done();
        let log = hub.key.0;
        let at = |id: &RequestId| self.taps.get(id).and_then(|tap| tap.at(&log)).map(|at| at.seq);
        let floor = hub.members.iter().filter_map(at).min().unwrap_or(hub.lead);
        window.trim(floor, rest, keep);
        let after = window.after().seq;
        let fallen: Vec<RequestId> =
            hub.members.iter().filter(|id| at(id).is_some_and(|at| at < after)).copied().collect();
        self.consumed(edge, bytes, done, effects);
        if planted(Mutation::ForgetTheFallen) {
            return;
        }
        for id in fallen {
            self.leave_hub(id, &log, effects);
            self.seek_hub(id, &log, effects);
        }
    }

    /// The log ends before what came. Who had taken more of it falls back as well; who stood ahead hears
    /// from the writer how it stands.
    pub(super) fn hub_falls_back(&mut self, edge: EdgeId, to: Position, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.get_mut(&edge) else { return };
        let freed = hub.window.as_mut().map_or(0, |window| window.fall_back(to));
        hub.lead = hub.lead.min(to.seq);
        let (log, ahead) = (hub.key.0, core::mem::take(&mut hub.ahead));
        let members = hub.members.clone();
        if let Some(reader) = self.readers.get_mut(&edge) {
            reader.release(freed);
        }
        for id in members.difference(&ahead) {
            if let Some(place) = self.place(*id, &log)
                && let Some(at) = place.at.as_mut().filter(|at| at.seq > to.seq)
            {
                *at = to;
                place.head_at_first = place.head_at_first.map(|head| head.min(to.seq));
            }
        }
        for id in ahead {
            self.leave_hub(id, &log, effects);
            self.seek_hub(id, &log, effects);
        }
    }

    /// The log cannot be read on from where the hub stands.
    pub(super) fn fail_hub(&mut self, edge: EdgeId, why: &str, effects: &mut Effects) {
        let Some(hub) = self.hubs.hubs.get(&edge) else { return };
        let (log, members, ahead) = (hub.key.0, hub.members.clone(), hub.ahead.clone());
        for id in &members {
            self.leave_hub(*id, &log, effects);
        }
        for id in members {
            match ahead.contains(&id) {
                true => self.seek_hub(id, &log, effects),
                false => self.fail_tap(id, String::from(why), effects),
            }
        }
    }
}
