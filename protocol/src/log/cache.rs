//! The newest persisted records of a log, in memory for readers that keep up.
//!
//! Whoever falls behind what is kept here is read for from the disk, where each record is read, hashed
//! and decoded once more: that costs several times as much, so who is a little late would only get later.
//! Records that a reader still wants are therefore kept for longer than others, as long as there is room.

use alloc::collections::VecDeque;

use super::writer::Kept;
use crate::id::Seq;
use crate::limits::LOG_CACHE_BYTES;

/// In order, without gaps, up to the last record that is persisted.
#[derive(Debug)]
pub struct Cache {
    records: VecDeque<Kept>,
    bytes: usize,
    /// The first record that a reader wants who reads from here.
    wanted: Seq,
    /// Bytes beyond `LOG_CACHE_BYTES` that such records may take.
    room: usize,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { records: VecDeque::new(), bytes: 0, wanted: Seq(u64::MAX), room: 0 }
    }
}

impl Cache {
    pub fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes;
        self.records.push_back(kept);
        self.trim();
    }

    pub fn get(&self, seq: Seq) -> Option<&Kept> {
        let index = seq.0.checked_sub(self.first()?.0)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    pub fn first(&self) -> Option<Seq> {
        self.records.front().map(|kept| kept.position.seq)
    }

    /// The newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Kept> {
        self.records.iter().rev()
    }

    /// Soon the oldest go.
    pub fn is_crowded(&self) -> bool {
        self.bytes > LOG_CACHE_BYTES / 2
    }

    /// Bytes beyond those that every log may keep.
    pub fn extra(&self) -> usize {
        self.bytes.saturating_sub(LOG_CACHE_BYTES)
    }

    /// A reader wants what is here from `wanted` on, and so many bytes more may be kept for it.
    pub fn keep_for(&mut self, wanted: Seq, room: usize) {
        (self.wanted, self.room) = (wanted, room);
        self.trim();
    }

    /// What is before `seq` stands in the log no more.
    pub fn cut_before(&mut self, seq: Seq) {
        while self.first().is_some_and(|first| first < seq) {
            self.pop();
        }
    }

    fn trim(&mut self) {
        while self.records.len() > 1 && self.extra() > 0 {
            let wanted = self.first().is_some_and(|first| first >= self.wanted);
            if wanted && self.extra() <= self.room {
                return;
            }
            self.pop();
        }
    }

    fn pop(&mut self) {
        self.bytes -= self.records.pop_front().map_or(0, |kept| kept.bytes);
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::id::{Epoch, Hash, Position};
    use crate::log::record::{Append, Body};

    const EACH: usize = LOG_CACHE_BYTES / 4;

    fn cache(records: u64) -> Cache {
        let mut cache = Cache::default();
        (1..=records).for_each(|seq| cache.push(kept(seq)));
        cache
    }

    fn kept(seq: u64) -> Kept {
        let position = Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash::default() };
        let body = Arc::new(Body::Append(Append::default()));
        Kept { position, previous: Hash::default(), body, bytes: EACH }
    }

    #[test]
    fn the_newest_are_kept() {
        let cache = cache(10);
        assert_eq!((cache.first(), cache.extra()), (Some(Seq(7)), 0));
        assert!(cache.get(Seq(6)).is_none() && cache.get(Seq(11)).is_none());
        assert_eq!(cache.get(Seq(8)).map(|kept| kept.position.seq), Some(Seq(8)));
    }

    #[test]
    fn what_a_reader_wants_stays_while_there_is_room() {
        let mut cache = cache(4);
        cache.keep_for(Seq(1), 2 * EACH);
        (5..=6).for_each(|seq| cache.push(kept(seq)));
        assert_eq!((cache.first(), cache.extra()), (Some(Seq(1)), 2 * EACH));
        cache.push(kept(7));
        assert_eq!(cache.first(), Some(Seq(2)), "there is no room for more");
        cache.keep_for(Seq(3), 2 * EACH);
        assert_eq!(cache.first(), Some(Seq(3)), "the reader has gone on");
        cache.keep_for(Seq(u64::MAX), 2 * EACH);
        assert_eq!((cache.first(), cache.extra()), (Some(Seq(4)), 0), "nobody wants more");
    }
}
