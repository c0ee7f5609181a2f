//! One upstream log as the actor that reads it sees it: what came and waits, and how much is still to come.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::edge::reader::Ahead;
use crate::id::{Position, Seq};
use crate::log::record::Advance;
use crate::time::Time;
use crate::wire::message::{EdgeId, Mark, Slice};

#[derive(Debug)]
pub struct Upstream {
    pub edge: EdgeId,
    /// The unit's input for each of the log's outputs that it reads.
    pub inputs: BTreeMap<u16, u16>,
    queue: VecDeque<Slice>,
    queued_events: u64,
    /// Where the log ended when it was last heard of.
    pub head: Seq,
    /// Events that the writer still had for this reader then.
    pub behind: u64,
    mark: Option<Mark>,
    /// It is read to its end but is no input any more: it holds no watermark back.
    pub aside: bool,
    /// Why it cannot be read on, until it can.
    pub trouble: Option<String>,
    /// Its node was given up: nobody reads it any more.
    forsaken: bool,
}

impl Upstream {
    pub fn new(edge: EdgeId, inputs: BTreeMap<u16, u16>) -> Upstream {
        Upstream {
            edge,
            inputs,
            queue: VecDeque::new(),
            queued_events: 0,
            head: Seq(0),
            behind: 0,
            mark: None,
            aside: false,
            trouble: None,
            forsaken: false,
        }
    }

    /// What was known of its time where it was read last: records that say nothing of time change nothing.
    pub fn resumed(self, at: Option<&Advance>) -> Upstream {
        let mark = at.map(|advance| Mark { watermark: advance.watermark, idle: advance.idle });
        Upstream { mark, ..self }
    }

    /// Events that came and wait.
    pub fn queued_events(&self) -> u64 {
        self.queued_events
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The log's `Close` waits.
    pub fn ends(&self) -> bool {
        self.queue.iter().any(|slice| slice.closed.is_some())
    }

    /// The last position that came; `in_hand` when nothing waits.
    pub fn delivered(&self, in_hand: Position) -> Position {
        self.queue.back().map_or(in_hand, |slice| slice.position)
    }

    /// Events that wait: those that came, and those that the writer still has.
    pub fn lag(&self) -> u64 {
        self.queued_events.saturating_add(self.behind)
    }

    /// Slices came that follow on what came before.
    pub fn queue(&mut self, slices: Vec<Slice>, ahead: Ahead) {
        self.head = self.head.max(ahead.head);
        self.behind = ahead.behind;
        self.queued_events += slices.iter().map(|slice| slice.events.len() as u64).sum::<u64>();
        self.queue.extend(slices);
    }

    /// The next slice, and how far time has come in the log with it.
    pub fn take(&mut self) -> Option<(Slice, Mark)> {
        let slice = self.queue.pop_front()?;
        self.queued_events -= slice.events.len() as u64;
        self.mark = slice.mark.or(self.mark);
        Some((slice, self.mark.unwrap_or(Mark { watermark: Time(0), idle: true })))
    }

    /// Nothing more comes of it: it ends with what has come, and holds no watermark back. False: that is
    /// known already.
    pub(super) fn forsake(&mut self, in_hand: Position) -> bool {
        self.head = self.delivered(in_hand).seq;
        self.behind = 0;
        self.trouble = None;
        self.aside = true;
        !core::mem::replace(&mut self.forsaken, true)
    }

    /// A last slice without events: with it, a commit says how the log stands.
    pub fn conclude(&mut self, at: Position) {
        self.queue.push_back(Slice { position: at, events: Vec::new(), mark: None, closed: None });
    }

    /// The log ends at `to`: what is queued from behind it goes, and with it the credit that it held, in
    /// bytes. What stands and waits here stays: it does not come again.
    pub fn cut(&mut self, to: Seq) -> u64 {
        self.head = to;
        self.behind = 0;
        let stands = self.queue.iter().take_while(|slice| slice.position.seq <= to).count();
        let lost = self.queue.split_off(stands);
        self.queued_events -= lost.iter().map(|slice| slice.events.len() as u64).sum::<u64>();
        lost.iter().map(Slice::weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::event::Event;
    use crate::id::{Epoch, Hash};
    use crate::wire::message::SliceEvent;

    fn slice(seq: u64, events: u32) -> Slice {
        let event = |index| SliceEvent {
            index,
            output: 0,
            event: Event { time: Time(1), key: Bytes::new(), payload: Bytes::new(), headers: Vec::new() },
        };
        let mark = Some(Mark { watermark: Time(1), idle: false });
        let position = Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash([seq as u8; 16]) };
        Slice { position, events: (0..events).map(event).collect(), mark, closed: None }
    }

    fn heard(slices: Vec<Slice>, ahead: Ahead) -> Upstream {
        let mut upstream = Upstream::new(EdgeId(1), BTreeMap::from([(0, 0)]));
        upstream.queue(slices, ahead);
        upstream
    }

    #[test]
    fn what_came_and_what_the_writer_still_has_waits() {
        let mut upstream = heard(vec![slice(1, 8), slice(2, 3)], Ahead { head: Seq(102), behind: 70 });
        assert_eq!(upstream.lag(), 8 + 3 + 70);
        upstream.take();
        assert_eq!(upstream.lag(), 3 + 70);
        // The log ends at record 2 after all.
        upstream.cut(Seq(2));
        assert_eq!(upstream.lag(), 3);
    }

    #[test]
    fn nothing_is_to_come_of_a_log_that_is_forsaken_also_when_nothing_came() {
        let mut upstream = heard(vec![], Ahead { head: Seq(16), behind: 40 });
        assert!(upstream.forsake(Position::START));
        assert_eq!((upstream.lag(), upstream.aside), (0, true));
        assert!(!upstream.forsake(Position::START));
    }
}
