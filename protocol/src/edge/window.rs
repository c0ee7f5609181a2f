//! Records of one log that the taps of a node share: they came over one edge, and each tap reads them at
//! its own pace.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::event::Event;
use crate::id::{LogId, Position, Seq};
use crate::rpc::tailed::Events;
use crate::wire::message::Slice;

/// How far a tap may stand ahead of a window that it joins, in records.
const AHEAD_MAX: u64 = 256;

/// One record, or a run of records without events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub position: Position,
    pub events: Events,
    pub closed: Option<LogId>,
    /// What it costs of the edge's credit.
    weight: u64,
}

impl Piece {
    fn of(slice: Slice) -> Piece {
        let weight = slice.weight();
        let Slice { position, events, mark: _, closed } = slice;
        let events: Vec<(u32, Event)> = events.into_iter().map(|event| (event.index, event.event)).collect();
        Piece { position, events: Events(Arc::new(events)), closed, weight }
    }
}

/// Where a tap stands to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// What follows on it is not here, or it cannot be told whether it is.
    Apart,
    /// The window comes to it soon; until then it cannot be told whether both read the same records.
    Ahead,
    /// What follows on it is in the window, or comes next.
    Within,
}

/// What one edge has brought and taps may still want, in the log's order.
#[derive(Debug)]
pub struct Window {
    /// What the first piece follows on.
    after: Position,
    pieces: VecDeque<Piece>,
    /// So many of them, from the front, are done with: the quickest tap has taken them.
    done: usize,
    done_bytes: u64,
}

impl Window {
    pub fn at(after: Position) -> Window {
        Window { after, pieces: VecDeque::new(), done: 0, done_bytes: 0 }
    }

    pub fn after(&self) -> Position {
        self.after
    }

    /// The last position that came.
    pub fn end(&self) -> Position {
        self.pieces.back().map_or(self.after, |piece| piece.position)
    }

    pub fn push(&mut self, slices: Vec<Slice>) {
        self.pieces.extend(slices.into_iter().map(Piece::of));
    }

    /// Only a position of the same hash is the same place: what follows on it here follows on it anywhere.
    pub fn standing(&self, at: Position) -> Standing {
        let end = self.end();
        let known = at == self.after || at == end || {
            let place = self.pieces.partition_point(|piece| piece.position.seq < at.seq);
            self.pieces.get(place).is_some_and(|piece| piece.position == at)
        };
        match known {
            true => Standing::Within,
            false if at.seq > end.seq && at.seq.0 - end.seq.0 <= AHEAD_MAX => Standing::Ahead,
            false => Standing::Apart,
        }
    }

    /// What a tap that has taken everything up to `at` reads on, from here to the end. A log's close is
    /// told again to whoever stands at its position.
    pub fn behind(&self, at: Position) -> impl Iterator<Item = &Piece> {
        let first = self.pieces.partition_point(|piece| {
            piece.position.seq < at.seq || (piece.position.seq == at.seq && piece.closed.is_none())
        });
        self.pieces.range(first..)
    }

    /// Everything up to `seq` is done with. Returns its bytes, so far as they were not before.
    pub fn done_to(&mut self, seq: Seq) -> u64 {
        let mut bytes = 0;
        while let Some(piece) = self.pieces.get(self.done)
            && piece.position.seq <= seq
        {
            bytes += piece.weight;
            self.done += 1;
        }
        self.done_bytes += bytes;
        bytes
    }

    /// The last position that is done with.
    pub fn done(&self) -> Position {
        self.done
            .checked_sub(1)
            .and_then(|last| self.pieces.get(last))
            .map_or(self.after, |piece| piece.position)
    }

    /// Lets go of what is done with: all that every tap has taken (`floor`) but `rest` bytes, and beyond
    /// `keep` bytes whoever wants it. The last piece stays: it may be the log's close.
    pub fn trim(&mut self, floor: Seq, rest: u64, keep: u64) {
        while self.done > 0
            && self.pieces.len() > 1
            && let Some(first) = self.pieces.front()
            && (self.done_bytes > keep || (self.done_bytes > rest && first.position.seq <= floor))
        {
            self.after = first.position;
            self.done_bytes -= first.weight;
            self.done -= 1;
            self.pieces.pop_front();
        }
    }

    /// The log ends at `to`, which is before what came. Returns the bytes that go and were not done with.
    pub fn fall_back(&mut self, to: Position) -> u64 {
        let mut freed = 0;
        while let Some(last) = self.pieces.back()
            && last.position.seq > to.seq
        {
            match self.pieces.len() <= self.done {
                true => {
                    self.done -= 1;
                    self.done_bytes -= last.weight;
                }
                false => freed += last.weight,
            }
            self.pieces.pop_back();
        }
        if self.end() != to {
            freed += self.pieces.range(self.done..).map(|piece| piece.weight).sum::<u64>();
            *self = Window::at(to);
        }
        freed
    }

    /// Bytes that are held although the quickest tap has them.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{Epoch, Hash};
    use crate::wire::message::SliceEvent;

    /// In every history a record has a hash of its own.
    fn at(seq: u64, history: u8) -> Position {
        let mut hash = [history; 16];
        hash[0] = seq as u8;
        Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash(hash) }
    }

    fn slice(seq: u64) -> Slice {
        let event = SliceEvent { index: 0, output: 0, event: Event::default() };
        Slice { position: at(seq, 1), events: vec![event], mark: None, closed: None }
    }

    /// Behind record 10, records 11 to 14 of one event each.
    fn window() -> Window {
        let mut window = Window::at(at(10, 1));
        window.push((11..=14).map(slice).collect());
        window
    }

    fn seqs(window: &Window, seq: u64) -> Vec<u64> {
        window.behind(at(seq, 1)).map(|piece| piece.position.seq.0).collect()
    }

    #[test]
    fn a_tap_reads_what_is_behind_its_place() {
        assert_eq!(seqs(&window(), 10), [11, 12, 13, 14]);
        assert_eq!(seqs(&window(), 12), [13, 14]);
        assert!(seqs(&window(), 14).is_empty());
    }

    #[test]
    fn only_the_same_record_is_the_same_place() {
        let standings = |history| [9, 10, 12, 14, 15].map(|seq| window().standing(at(seq, history)));
        let (apart, ahead, within) = (Standing::Apart, Standing::Ahead, Standing::Within);
        assert_eq!(standings(1), [apart, within, within, within, ahead]);
        assert_eq!(standings(2), [apart, apart, apart, apart, ahead]);
        assert_eq!(window().standing(at(14 + AHEAD_MAX + 1, 1)), apart, "too far ahead");
    }

    #[test]
    fn the_end_of_a_run_without_events_is_a_place_and_its_middle_is_none() {
        let mut window = Window::at(at(10, 1));
        window.push(vec![Slice { events: vec![], ..slice(13) }]);
        assert_eq!(window.standing(at(13, 1)), Standing::Within);
        assert_eq!(window.standing(at(12, 1)), Standing::Apart);
    }

    #[test]
    fn what_every_tap_has_goes_first_and_what_some_lack_goes_at_the_bound() {
        let mut window = window();
        let all = window.done_to(Seq(13));
        assert_eq!(window.done_to(Seq(13)), 0, "counted once");
        let each = all / 3;
        window.trim(Seq(11), 0, all);
        assert_eq!(window.after(), at(11, 1), "the slowest tap needs the rest");
        window.trim(Seq(11), 0, each);
        assert_eq!((window.after(), window.done_bytes()), (at(12, 1), each), "it falls off");
        window.trim(Seq(20), 0, 0);
        assert_eq!(seqs(&window, 13), [14], "what nobody has yet stays");
        window.done_to(Seq(14));
        window.trim(Seq(20), 0, 0);
        assert_eq!(seqs(&window, 13), [14], "the last piece stays");
    }

    #[test]
    fn a_close_is_told_to_whoever_stands_at_it() {
        let mut window = Window::at(at(14, 1));
        let close = Slice { events: vec![], closed: Some(LogId([7; 16])), ..slice(14) };
        window.push(vec![close]);
        assert_eq!(seqs(&window, 14), [14]);
        assert_eq!(window.standing(at(14, 1)), Standing::Within);
    }

    #[test]
    fn falling_back_frees_what_was_not_done_with() {
        let mut partly = window();
        let each = partly.done_to(Seq(12)) / 2;
        assert_eq!(partly.fall_back(at(11, 1)), 2 * each);
        assert_eq!((seqs(&partly, 10), partly.done_bytes()), (vec![11], each));
        let mut whole = window();
        assert_eq!(whole.fall_back(at(8, 1)), 4 * each);
        assert_eq!((whole.after(), whole.end(), whole.done()), (at(8, 1), at(8, 1), at(8, 1)));
    }
}
