//! Events' ids as text. Those of one record differ in their last number alone.

use std::fmt::Write as _;

use dunlin_protocol::id::EventId;

/// Makes the text of ids, one after the other.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The last one, and what it shares with all of its record.
    last: Option<EventId>,
    shared: String,
}

impl Ids {
    pub fn text(&mut self, id: EventId) -> String {
        let first = EventId { index: 0, ..id };
        if self.last != Some(first) {
            self.last = Some(first);
            self.shared = first.to_string();
            self.shared.pop();
        }
        let mut text = String::with_capacity(self.shared.len() + 4);
        text.push_str(&self.shared);
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", id.index);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::id::{Epoch, LogId, Seq};

    #[test]
    fn texts_are_those_of_the_ids() {
        let mut ids = Ids::default();
        for (log, seq, index) in [(3, 9, 0), (3, 9, 1), (3, 9, 4095), (3, 10, 4095), (4, 10, 7)] {
            let id = EventId { log: LogId([log; 16]), epoch: Epoch(2), seq: Seq(seq), index };
            assert_eq!(ids.text(id), id.to_string());
        }
    }
}
