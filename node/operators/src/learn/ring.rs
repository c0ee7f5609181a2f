//! A ring of notes: what is large is written now and then, in turn, and what changed it since is noted.
//!
//! An outcome changes a little in many places. Were each place written with the commit that changed
//! it, a commit would be many times as large as its events. So each commit notes what is needed to do its
//! changes again, and the units that hold the places are written in turn, one for every so many bytes
//! of notes. Reading takes the units as they stand and does again, in each, what was noted since it
//! was written: the same to the last bit. Notes that every unit has taken in are deleted.

use bytes::Bytes;

use super::pack::Unpack;
use super::store::{self, Unreadable};
use crate::operator::State;

#[derive(Debug)]
pub struct Ring<const UNITS: usize> {
    /// Notes stand behind 0 and this byte, by number.
    kind: u8,
    /// Bytes of notes from one unit's turn to the next one's.
    turn: usize,
    /// Of the commit in hand.
    notes: Vec<u8>,
    /// The numbers of the oldest note that is kept and of the next one.
    first: u64,
    next: u64,
    /// The last note that each unit has taken in.
    taken: [u64; UNITS],
    unit: usize,
    since: usize,
}

/// The notes of a commit, and which units had their turn with it.
#[derive(Debug)]
pub struct Noted {
    number: u64,
    value: Bytes,
    behind: usize,
}

impl Noted {
    pub fn notes(&self) -> &[u8] {
        self.value.get(self.behind..).unwrap_or(&[])
    }
}

impl<const UNITS: usize> Ring<UNITS> {
    pub fn new(kind: u8, turn: usize) -> Ring<UNITS> {
        Ring { kind, turn, notes: Vec::new(), first: 1, next: 1, taken: [0; UNITS], unit: 0, since: 0 }
    }

    /// Where the notes of the commit in hand are written to.
    pub fn notes(&mut self) -> &mut Vec<u8> {
        &mut self.notes
    }

    /// All notes that are kept, the oldest first: to be done again where `lacks` says so.
    pub fn read(&mut self, state: &mut dyn State) -> Result<Vec<Noted>, Unreadable> {
        let mut all = Vec::new();
        for (key, value) in state.scan(&[0, self.kind], usize::MAX) {
            let number = Unpack(key.get(2..).unwrap_or(&[])).array().map(u64::from_be_bytes);
            let number = number.ok_or_else(|| Unreadable::cut("the name of a note"))?;
            if all.is_empty() {
                (self.first, self.next) = (number, number);
                self.taken = [number.saturating_sub(1); UNITS];
            }
            if number != self.next {
                return Err(Unreadable("a note is missing".to_string()));
            }
            self.next += 1;
            let body = store::body(&value)?;
            let mut from = Unpack(body);
            let cut = || Unreadable::cut("a note");
            self.since = from.word().ok_or_else(cut)? as usize;
            for _ in 0..from.short().ok_or_else(cut)? {
                let unit = usize::from(from.short().ok_or_else(cut)?);
                *self.taken.get_mut(unit).ok_or_else(cut)? = number;
                self.unit = (unit + 1) % UNITS;
            }
            let behind = value.len() - from.0.len();
            all.push(Noted { number, value, behind });
        }
        Ok(all)
    }

    /// Whether the unit was written before this was noted.
    pub fn lacks(&self, unit: usize, noted: &Noted) -> bool {
        self.taken.get(unit).is_none_or(|taken| *taken < noted.number)
    }

    /// Keeps what was noted; `write` is called for the units whose turn it is.
    pub fn flush(&mut self, state: &mut dyn State, mut write: impl FnMut(usize, &mut dyn State)) {
        if self.notes.is_empty() {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.since += self.notes.len();
        let turns = (self.since / self.turn).min(UNITS);
        self.since = if turns < UNITS { self.since - turns * self.turn } else { 0 };
        let units: Vec<usize> = (0..turns).map(|turn| (self.unit + turn) % UNITS).collect();
        self.unit = (self.unit + turns) % UNITS;
        for unit in &units {
            write(*unit, state);
            if let Some(taken) = self.taken.get_mut(*unit) {
                *taken = number;
            }
        }
        if turns < UNITS {
            store::put(state, &note_key(self.kind, number), |out| {
                out.extend_from_slice(&(self.since as u64).to_le_bytes());
                out.extend_from_slice(&(units.len() as u16).to_le_bytes());
                units.iter().for_each(|unit| out.extend_from_slice(&(*unit as u16).to_le_bytes()));
                out.extend_from_slice(&self.notes);
            });
        }
        let kept = self.taken.iter().min().map_or(number, |taken| taken + 1);
        (self.first..kept.min(number)).for_each(|old| state.delete(&note_key(self.kind, old)));
        self.first = kept.max(self.first);
        self.notes.clear();
    }
}

fn note_key(kind: u8, number: u64) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [0, kind, a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_state::MemoryState;

    const UNITS: usize = 4;
    const KIND: u8 = b'j';

    /// Each unit is the hash of what it was told.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct Units([u64; UNITS]);

    impl Units {
        fn learn(&mut self, notes: &[u8], wants: impl Fn(usize) -> bool) {
            for byte in notes {
                let unit = usize::from(*byte) % UNITS;
                if wants(unit) {
                    self.0[unit] = self.0[unit].wrapping_mul(31).wrapping_add(u64::from(*byte) + 1);
                }
            }
        }

        fn read(state: &mut MemoryState) -> (Units, Ring<UNITS>) {
            let (mut units, mut ring) = (Units::default(), Ring::new(KIND, 50));
            for (unit, at) in units.0.iter_mut().enumerate() {
                *at = state
                    .get(&[0, b'u', unit as u8])
                    .map_or(0, |bytes| u64::from_le_bytes(store::body(&bytes).unwrap().try_into().unwrap()));
            }
            for noted in ring.read(state).unwrap() {
                units.learn(noted.notes(), |unit| ring.lacks(unit, &noted));
            }
            (units, ring)
        }
    }

    #[test]
    fn what_is_read_at_any_time_is_what_was_done() {
        let (mut state, mut done, mut most) = (MemoryState::new(), Units::default(), 0);
        let mut ring = Ring::<UNITS>::new(KIND, 50);
        for commit in 0..400u32 {
            let length = [7, 0, 30, 120, 3, 900][commit as usize % 6];
            let notes: Vec<u8> = (0..length).map(|i| (commit * 7 + i * i) as u8).collect();
            ring.notes().extend_from_slice(&notes);
            done.learn(&notes, |_| true);
            let now = done.clone();
            ring.flush(&mut state, |unit, state| {
                store::put(state, &[0, b'u', unit as u8], |out| {
                    out.extend_from_slice(&now.0[unit].to_le_bytes());
                });
            });
            state.stage();
            state.commit_all();
            let (read, again) = Units::read(&mut state);
            assert_eq!(read, done, "after commit {commit}");
            if commit % 7 == 0 {
                ring = again;
            }
            most = most.max(state.scan(&[0, KIND], usize::MAX).len());
        }
        assert!(most < 20, "old notes are deleted: {most}");
    }

    #[test]
    fn a_missing_note_is_told() {
        let (mut state, mut ring) = (MemoryState::new(), Ring::<UNITS>::new(KIND, 1000));
        for _ in 0..3 {
            ring.notes().push(1);
            ring.flush(&mut state, |_, _| ());
        }
        state.delete(&note_key(KIND, 2));
        let error = Ring::<UNITS>::new(KIND, 1000).read(&mut state).unwrap_err();
        assert!(error.to_string().contains("missing"));
    }
}
