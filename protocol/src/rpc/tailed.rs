//! What a tap is answered: runs of events, each run from one record.
//!
//! An event's id and the cursor behind it follow from the run that it stands in, so they are said once
//! for the run and worked out by whoever wants them: they would weigh as much as a small event does, in
//! bytes and in work, on every event.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cursor, CursorAt, TailEvent};
use crate::event::{Event, Placed};
use crate::id::{EventId, LogId, Position};

/// Some of a tail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tailed {
    /// Where the tap stood before the first run.
    pub before: Cursor,
    pub runs: Vec<Run>,
}

/// Events of one record, ascending by their index in it. Without events: the tap has passed the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub log: LogId,
    /// The record's.
    pub position: Position,
    pub events: Events,
}

/// Events with their index in their record, shared by all taps that are answered them. Encoded they are the
/// list alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events(pub Arc<Vec<(u32, Event)>>);

impl core::ops::Deref for Events {
    type Target = [(u32, Event)];

    fn deref(&self) -> &[(u32, Event)] {
        &self.0
    }
}

impl FromIterator<(u32, Event)> for Events {
    fn from_iter<I: IntoIterator<Item = (u32, Event)>>(events: I) -> Events {
        Events(Arc::new(events.into_iter().collect()))
    }
}

impl Serialize for Events {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Events, D::Error> {
        Vec::deserialize(deserializer).map(|events| Events(Arc::new(events)))
    }
}

impl Tailed {
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.events.is_empty())
    }

    /// The events alone.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.runs.iter().flat_map(|run| run.events.iter()).map(|(_, event)| event)
    }

    /// What counts against the client's credit, in bytes.
    pub fn weight(&self) -> u64 {
        self.events().map(|event| event.weight() as u64).sum()
    }
}

/// Each event with its id and the cursor that stands behind it.
impl IntoIterator for Tailed {
    type Item = TailEvent;
    type IntoIter = TailedEvents;

    fn into_iter(self) -> TailedEvents {
        TailedEvents { cursor: Arc::new(self.before), runs: self.runs.into_iter(), run: None }
    }
}

/// Where a tap stands behind one event: the cursor before its run, and how far it came in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    before: Arc<Cursor>,
    here: Option<(LogId, CursorAt)>,
}

impl Place {
    pub fn cursor(&self) -> Cursor {
        let mut cursor = (*self.before).clone();
        cursor.0.extend(self.here);
        cursor
    }
}

impl From<Cursor> for Place {
    fn from(cursor: Cursor) -> Place {
        Place { before: Arc::new(cursor), here: None }
    }
}

/// The events of a [`Tailed`], one by one.
#[derive(Debug, Default)]
pub struct TailedEvents {
    cursor: Arc<Cursor>,
    runs: alloc::vec::IntoIter<Run>,
    run: Option<RunEvents>,
}

#[derive(Debug)]
struct RunEvents {
    log: LogId,
    position: Position,
    events: alloc::vec::IntoIter<(u32, Event)>,
}

impl Iterator for TailedEvents {
    type Item = TailEvent;

    fn next(&mut self) -> Option<TailEvent> {
        loop {
            if let Some(RunEvents { log, position, events }) = &mut self.run {
                if let Some((index, event)) = events.next() {
                    let id = EventId { log: *log, epoch: position.epoch, seq: position.seq, index };
                    let before = self.cursor.0.get(log).copied().unwrap_or_default();
                    let here = Some((*log, CursorAt { index: Some(index), ..before }));
                    let place = Place { before: self.cursor.clone(), here };
                    return Some(TailEvent { placed: Placed { id, event }, place });
                }
                let passed = CursorAt { position: *position, index: None };
                Arc::make_mut(&mut self.cursor).0.insert(*log, passed);
                self.run = None;
            }
            let Run { log, position, events } = self.runs.next()?;
            // Who decoded them has them alone.
            let events = Arc::try_unwrap(events.0).unwrap_or_else(|shared| shared.to_vec());
            self.run = Some(RunEvents { log, position, events: events.into_iter() });
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::id::{Epoch, Seq};

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch(1), seq: Seq(seq), ..Position::START }
    }

    #[test]
    fn ids_and_cursors_follow_from_the_runs() {
        let (one, two) = (LogId([1; 16]), LogId([2; 16]));
        let run = |log, seq, indexes: &[u32]| Run {
            log,
            position: at(seq),
            events: indexes.iter().map(|index| (*index, Event::default())).collect(),
        };
        let before = Cursor([(one, CursorAt { position: at(4), index: Some(0) })].into());
        let runs = vec![run(one, 5, &[1, 3]), run(two, 1, &[]), run(two, 2, &[0]), run(one, 6, &[0])];
        let events: Vec<TailEvent> = Tailed { before, runs }.into_iter().collect();
        let seen: Vec<(LogId, u64, u32)> =
            events.iter().map(|event| event.placed.id).map(|id| (id.log, id.seq.0, id.index)).collect();
        assert_eq!(seen, [(one, 5, 1), (one, 5, 3), (two, 2, 0), (one, 6, 0)]);
        let cursor = |place: usize, log: LogId| {
            let at = *events[place].place.cursor().0.get(&log)?;
            Some((at.position.seq.0, at.index))
        };
        assert_eq!((cursor(0, one), cursor(0, two)), (Some((4, Some(1))), None));
        assert_eq!((cursor(1, one), cursor(2, one)), (Some((4, Some(3))), Some((5, None))));
        assert_eq!((cursor(2, two), cursor(3, two)), (Some((1, Some(0))), Some((2, None))));
        assert_eq!(cursor(3, one), Some((5, Some(0))));
    }
}
