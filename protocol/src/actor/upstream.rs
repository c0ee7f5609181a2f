//! One upstream log as the actor that reads it sees it: what came and waits, and how much is still to come.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{Position, Seq};
use crate::log::record::Advance;
use crate::time::Time;
use crate::wire::message::{EdgeId, Mark, Slice};

/// Records over which the events per record are counted before older ones count half.
const DENSITY_RECORDS: u64 = 64;

#[derive(Debug)]
pub struct Upstream {
    pub edge: EdgeId,
    /// The unit's input for each of the log's outputs that it reads.
    pub inputs: BTreeMap<u16, u16>,
    queue: VecDeque<Slice>,
    queued_events: u64,
    /// Where the log ended when it was last heard of.
    pub head: Seq,
    /// Records that came lately, and the events in them that were for this reader.
    came: (u64, u64),
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
            came: (0, 0),
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

    /// Events that wait: those that came, and those that the writer still has. The latter are told in
    /// records; they are taken to hold as many events for this reader as the records that came lately
    /// did, at least one while there are any.
    pub fn lag(&self, in_hand: Position) -> u64 {
        let unsent = self.head.0.saturating_sub(self.delivered(in_hand).seq.0);
        let (records, events) = self.came;
        let expected = if records == 0 { unsent } else { unsent.saturating_mul(events).div_ceil(records) };
        self.queued_events + expected.max(unsent.min(1))
    }

    /// Slices came that follow on what came before.
    pub fn queue(&mut self, slices: Vec<Slice>, head: Seq, in_hand: Position) {
        self.head = self.head.max(head);
        let mut last = self.delivered(in_hand).seq;
        for slice in slices {
            let events = slice.events.len() as u64;
            // A record that says nothing of time (an epoch's start, say) never holds events.
            if slice.mark.is_some() {
                self.came.0 += slice.position.seq.0.saturating_sub(last.0);
                self.came.1 += events;
            }
            if self.came.0 > DENSITY_RECORDS {
                self.came = (self.came.0 / 2, self.came.1 / 2);
            }
            last = slice.position.seq;
            self.queued_events += events;
            self.queue.push_back(slice);
        }
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

    fn position(seq: u64) -> Position {
        Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash([seq as u8; 16]) }
    }

    fn slice(seq: u64, events: u32) -> Slice {
        let event = |index| SliceEvent {
            index,
            output: 0,
            event: Event { time: Time(1), key: Bytes::new(), payload: Bytes::new(), headers: Vec::new() },
        };
        let mark = Some(Mark { watermark: Time(1), idle: false });
        Slice { position: position(seq), events: (0..events).map(event).collect(), mark, closed: None }
    }

    fn heard(slices: Vec<Slice>, head: u64) -> Upstream {
        let mut upstream = Upstream::new(EdgeId(1), BTreeMap::from([(0, 0)]));
        upstream.queue(slices, Seq(head), Position::START);
        upstream
    }

    #[test]
    fn what_the_writer_still_has_counts_in_events() {
        let upstream = heard(vec![slice(1, 8), slice(2, 8)], 102);
        assert_eq!(upstream.lag(Position::START), 16 + 100 * 8);
    }

    #[test]
    fn an_epoch_s_start_says_nothing_of_what_is_to_come() {
        let start = Slice { mark: None, ..slice(1, 0) };
        assert_eq!(heard(vec![start, slice(2, 8)], 102).lag(Position::START), 8 + 100 * 8);
    }

    #[test]
    fn nothing_is_to_come_of_a_log_that_is_forsaken_also_when_nothing_came() {
        let mut upstream = heard(vec![], 16);
        assert!(upstream.forsake(Position::START));
        assert_eq!((upstream.lag(Position::START), upstream.aside), (0, true));
        assert!(!upstream.forsake(Position::START));
    }

    #[test]
    fn lag_is_never_zero_while_a_record_is_still_to_come() {
        assert_eq!(heard(vec![slice(9, 0)], 10).lag(Position::START), 1);
        assert_eq!(heard(vec![], 7).lag(Position::START), 7);
        assert_eq!(heard(vec![slice(9, 0)], 9).lag(Position::START), 0);
    }

    #[test]
    fn records_for_other_readers_are_expected_to_go_on_in_between() {
        // Position 4 stands for four records of which one held two events for this reader.
        assert_eq!(heard(vec![slice(4, 2)], 104).lag(Position::START), 2 + 50);
    }

    #[test]
    fn a_log_that_begins_to_hold_more_is_believed_soon() {
        let mut upstream = heard((1..=2000).map(|seq| slice(seq, 1)).collect(), 2000);
        while upstream.take().is_some() {}
        upstream.queue((2001..=4000).map(|seq| slice(seq, 100)).collect(), Seq(5000), position(2000));
        while upstream.take().is_some() {}
        let lag = upstream.lag(position(4000));
        assert!((80_000..=105_000).contains(&lag), "{lag}");
    }
}
