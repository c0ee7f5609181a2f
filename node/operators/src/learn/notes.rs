//! What one outcome teaches, as it is done and as it is noted to be done again (see `ring`).

use dunlin_protocol::time::Time;

use super::classes::CLASSES;
use super::lately::Residual;
use super::pack::{self, Unpack};
use super::store::Unreadable;

/// To cells and groups.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Note<'a> {
    pub change: f64,
    pub rose: bool,
    /// The slope of the classes' loss, where they learn.
    pub slope: Option<[f32; CLASSES]>,
    pub tokens: &'a [u16],
    /// Cells of what is known of the class that it was.
    pub reads: &'a [u16],
    pub residual: Option<Residual>,
    pub groups: &'a [u16],
}

/// To the lines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lesson<'a> {
    pub change: f64,
    pub asked: Asked,
    /// What the logistic line goes out from, and whether it happened.
    pub chance: Option<(f64, bool)>,
    pub inputs: &'a [f32],
    pub wide: &'a [f32],
}

/// Which lines learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    pub rls: bool,
    pub lately: bool,
    pub median: bool,
}

impl Note<'_> {
    pub fn pack(&self, out: &mut Vec<u8>) {
        pack::floats(out, &[self.change]);
        let there = [self.rose, self.slope.is_some(), self.residual.is_some()];
        out.push(bits(there));
        for list in [self.tokens, self.reads, self.groups] {
            out.push(list.len() as u8);
        }
        if let Some(slope) = &self.slope {
            pack::singles(out, slope);
        }
        if let Some(residual) = &self.residual {
            out.extend_from_slice(&residual.of.0.to_le_bytes());
            out.extend_from_slice(&residual.at.0.to_le_bytes());
            pack::floats(out, &[residual.short, residual.long]);
        }
        for list in [self.tokens, self.reads, self.groups] {
            pack::shorts(out, list);
        }
    }
}

impl Lesson<'_> {
    pub fn pack(&self, out: &mut Vec<u8>) {
        pack::floats(out, &[self.change, self.chance.map_or(0.0, |(offset, _)| offset)]);
        let Asked { rls, lately, median } = self.asked;
        let (asked, happened) = (self.chance.is_some(), self.chance.is_some_and(|(_, happened)| happened));
        out.push(bits([rls, lately, median, asked, happened]));
        for list in [self.inputs, self.wide] {
            out.extend_from_slice(&(list.len() as u16).to_le_bytes());
            pack::singles(out, list);
        }
    }
}

/// Everything is learned anew: another anchor was chosen. In the place of a lesson.
const RESTART: u8 = u8::MAX;

fn bits<const N: usize>(flags: [bool; N]) -> u8 {
    flags.iter().enumerate().fold(0, |bits, (place, flag)| bits | u8::from(*flag) << place)
}

/// Calls `each` for all notes in `bytes`.
pub fn again(bytes: &[u8], mut each: impl FnMut(&Note<'_>)) -> Result<(), Unreadable> {
    let mut from = Unpack(bytes);
    while !from.0.is_empty() {
        note(&mut from, &mut each).ok_or_else(|| Unreadable::cut("a note"))?;
    }
    Ok(())
}

fn note(from: &mut Unpack<'_>, each: &mut impl FnMut(&Note<'_>)) -> Option<()> {
    let (change, there) = (from.float()?, from.byte()?);
    let [tokens, reads, groups] = [from.byte()?, from.byte()?, from.byte()?].map(usize::from);
    let mut slope = None;
    if there & 2 != 0 {
        from.singles(slope.insert([0.0; CLASSES]))?;
    }
    let mut residual = None;
    if there & 4 != 0 {
        let (of, at) = (Time(from.word()?), Time(from.word()?));
        residual = Some(Residual { of, at, short: from.float()?, long: from.float()? });
    }
    let (tokens, reads, groups) = (from.shorts(tokens)?, from.shorts(reads)?, from.shorts(groups)?);
    let rose = there & 1 != 0;
    each(&Note { change, rose, slope, tokens: &tokens, reads: &reads, residual, groups: &groups });
    Some(())
}

/// Calls `each` for all lessons in `bytes`; none: a restart.
pub fn lessons(bytes: &[u8], mut each: impl FnMut(Option<&Lesson<'_>>)) -> Result<(), Unreadable> {
    let mut from = Unpack(bytes);
    while !from.0.is_empty() {
        lesson(&mut from, &mut each).ok_or_else(|| Unreadable::cut("a lesson"))?;
    }
    Ok(())
}

fn lesson(from: &mut Unpack<'_>, each: &mut impl FnMut(Option<&Lesson<'_>>)) -> Option<()> {
    let (change, offset, flags) = (from.float()?, from.float()?, from.byte()?);
    if flags == RESTART {
        each(None);
        return Some(());
    }
    let flag = |place: u8| flags >> place & 1 != 0;
    let mut list = || {
        let mut list = vec![0.0; usize::from(from.short()?)];
        from.singles(&mut list).map(|()| list)
    };
    let (inputs, wide) = (list()?, list()?);
    let asked = Asked { rls: flag(0), lately: flag(1), median: flag(2) };
    let chance = flag(3).then(|| (offset, flag(4)));
    each(Some(&Lesson { change, asked, chance, inputs: &inputs, wide: &wide }));
    Some(())
}

/// Notes that the lines began anew.
pub fn restart(out: &mut Vec<u8>) {
    pack::floats(out, &[0.0, 0.0]);
    out.push(RESTART);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_bit_for_bit() {
        let residual = Residual { of: Time(7), at: Time(u64::MAX), short: 0.1, long: -0.0 };
        let full = Note {
            change: 0.1 + 0.2,
            rose: true,
            slope: Some([0.25; CLASSES]),
            tokens: &[1, 65_535],
            reads: &[9],
            residual: Some(residual),
            groups: &[3, 4, 5],
        };
        let notes = [full, Note::default(), Note { residual: None, ..full }];
        let (mut bytes, mut read) = (Vec::new(), 0);
        notes.iter().for_each(|note| note.pack(&mut bytes));
        again(&bytes, |note| {
            assert_eq!(*note, notes[read]);
            read += 1;
        })
        .unwrap();
        assert_eq!(read, notes.len());
        assert!(again(&bytes[..bytes.len() - 1], |_| ()).is_err());
    }

    #[test]
    fn lessons_come_back_bit_for_bit() {
        let asked = Asked { rls: true, lately: false, median: true };
        let full = Lesson {
            change: 0.1,
            asked,
            chance: Some((0.5, true)),
            inputs: &[1.0, f32::MIN_POSITIVE],
            wide: &[2.0],
        };
        let told = [Some(full), None, Some(Lesson { chance: None, inputs: &[], ..full })];
        let (mut bytes, mut read) = (Vec::new(), 0);
        for lesson in &told {
            match lesson {
                Some(lesson) => lesson.pack(&mut bytes),
                None => restart(&mut bytes),
            }
        }
        lessons(&bytes, |lesson| {
            assert_eq!(lesson.copied(), told[read]);
            read += 1;
        })
        .unwrap();
        assert_eq!(read, told.len());
        assert!(lessons(&bytes[..bytes.len() - 1], |_| ()).is_err());
    }
}
