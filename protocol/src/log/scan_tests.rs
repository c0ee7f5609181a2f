//! Every kind of damage against every kind of place: never a panic, never a silent loss of what was
//! synced, and a torn tail cut exactly.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::id::Epoch;
use crate::log::record::Record;
use crate::log::segment::encode_group;

const LOG: LogId = LogId([7; 16]);

/// A log of three segments with the records of `sizes`, synced up to record `synced` (0: not at all).
#[derive(Debug, Clone)]
struct Disk {
    segments: Vec<(Seq, Vec<u8>)>,
    records: Vec<Record>,
    /// Segment index and end offset of each record.
    ends: Vec<(usize, u64)>,
    noted: Noted,
    synced: usize,
}

fn disk(sizes: &[usize], synced: usize) -> Disk {
    let mut disk =
        Disk { segments: vec![], records: vec![], ends: vec![], noted: Noted::Known(Note::new(LOG)), synced };
    let mut head = Position::START;
    for (index, size) in sizes.iter().enumerate() {
        if index % 3 == 0 {
            disk.segments.push((head.seq.next(), Header { log: LOG, after: head }.encode().to_vec()));
        }
        let body = Bytes::from(vec![index as u8; *size]);
        let record = Record::new(Epoch(1), head.seq.next(), head.hash, body);
        let (first, bytes) = disk.segments.last_mut().unwrap();
        head = encode_group(LOG, head, core::slice::from_ref(&record), bytes).unwrap();
        if index + 1 == synced {
            disk.noted = Noted::Known(Note::new(LOG).next(*first, bytes.len() as u64, head));
        }
        let end = bytes.len() as u64;
        disk.ends.push((disk.segments.len() - 1, end));
        disk.records.push(record);
    }
    disk
}

fn scan(disk: &Disk) -> (Vec<Verdict>, Vec<Record>, Scanned) {
    let mut scan = LogScan::new(LOG, disk.noted, Position::START, None);
    let mut records = vec![];
    let verdicts = disk
        .segments
        .iter()
        .map(|(first, bytes)| scan.segment(*first, bytes, &mut |framed| records.push(framed.record())))
        .collect();
    (verdicts, records, scan.finish())
}

/// What must hold whatever was done to the files.
#[track_caller]
fn check(disk: &Disk) {
    let (verdicts, records, scanned) = scan(disk);
    assert_eq!(records, disk.records[..records.len()], "what is served was written");
    assert_eq!(scanned.head.seq.0, records.len() as u64);
    if records.len() < disk.synced {
        assert!(scanned.damage.is_some(), "synced records went without a word");
    }
    // Whatever may be cut is beyond what was synced, and what stays is whole.
    let mut cut = disk.clone();
    for ((first, bytes), verdict) in cut.segments.iter_mut().zip(&verdicts) {
        if let Verdict::TornTail { valid_bytes } = verdict {
            if let Noted::Known(note) = disk.noted {
                assert!(*first > note.segment || (*first == note.segment && *valid_bytes >= note.end));
            }
            bytes.truncate(*valid_bytes as usize);
        }
    }
    cut.segments.retain(|(_, bytes)| !bytes.is_empty());
    if scanned.damage.is_none() {
        let (verdicts, again, rescanned) = scan(&cut);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Whole));
        assert_eq!((again, rescanned), (records, scanned), "cut exactly");
    }
}

#[test]
fn whole_log_is_whole() {
    let disk = disk(&[10, 0, 5000, 7, 9, 1, 2], 7);
    let (verdicts, records, scanned) = scan(&disk);
    assert_eq!(verdicts, [Verdict::Whole; 3]);
    assert_eq!(records, disk.records);
    assert_eq!((scanned.first, scanned.damage), (Seq(1), None));
    check(&disk);
}

#[test]
fn torn_tail_is_cut_exactly() {
    let mut disk = disk(&[10, 20, 30, 40, 50], 4);
    let kept = disk.ends[3].1;
    disk.segments[1].1.truncate(kept as usize + 17);
    let (verdicts, records, scanned) = scan(&disk);
    assert_eq!(verdicts, [Verdict::Whole, Verdict::TornTail { valid_bytes: kept }]);
    assert_eq!((records.len(), scanned.damage), (4, None));
}

#[test]
fn flip_before_the_synced_end_is_damage() {
    let mut disk = disk(&[10, 20, 30, 40, 50], 5);
    disk.segments[1].1[HEADER_BYTES + 45] ^= 1;
    let (verdicts, records, scanned) = scan(&disk);
    assert_eq!(verdicts[1], Verdict::Damaged { at: HEADER_BYTES as u64, why: Wrong::Chain });
    assert_eq!(records.len(), 3);
    assert!(scanned.damage.unwrap().contains("segment 4 at byte 72"));
}

#[test]
fn missing_segments_are_damage() {
    for missing in 0..3 {
        let mut disk = disk(&[1; 9], 9);
        disk.segments.remove(missing);
        let (_, records, scanned) = scan(&disk);
        assert_eq!(records.len(), missing * 3);
        assert!(scanned.damage.is_some(), "segment {missing}");
    }
}

#[test]
fn segments_that_a_snapshot_covers_may_be_gone() {
    let mut disk = disk(&[1; 9], 9);
    disk.segments.remove(0);
    let covered = disk.records[3].position();
    for floor in [None, Some(Seq(4))] {
        let mut scan = LogScan::new(LOG, disk.noted, covered, floor);
        for (first, bytes) in &disk.segments {
            assert_eq!(scan.segment(*first, bytes, &mut |_| {}), Verdict::Whole);
        }
        let scanned = scan.finish();
        assert_eq!((scanned.first, scanned.head.seq, scanned.damage), (Seq(4), Seq(9), None));
    }
}

#[test]
fn segment_that_retention_did_not_remove_is_missed_though_a_snapshot_covers_it() {
    let mut disk = disk(&[1; 9], 9);
    disk.segments.remove(0);
    let covered = disk.records[5].position();
    let mut scan = LogScan::new(LOG, disk.noted, covered, Some(Seq(1)));
    for (first, bytes) in &disk.segments {
        assert!(matches!(scan.segment(*first, bytes, &mut |_| {}), Verdict::Damaged { .. }));
    }
    assert!(scan.finish().damage.is_some());
}

#[test]
fn segment_behind_an_unsynced_tear_goes() {
    let mut disk = disk(&[10; 9], 2);
    let end = disk.segments[1].1.len();
    disk.segments[1].1.truncate(end - 1);
    let (verdicts, records, scanned) = scan(&disk);
    assert_eq!(verdicts[2], Verdict::TornTail { valid_bytes: 0 });
    assert_eq!((records.len(), scanned.damage), (5, None));
    check(&disk);
}

#[test]
fn older_file_put_back_is_damage() {
    let mut now = disk(&[10, 20], 2);
    let mut other = disk(&[10, 20], 2);
    let mut bytes = Header { log: LOG, after: Position::START }.encode().to_vec();
    let mut head = Position::START;
    for size in [10, 20] {
        let body = Bytes::from(vec![9; size]);
        let record = Record::new(Epoch(2), head.seq.next(), head.hash, body);
        head = encode_group(LOG, head, &[record], &mut bytes).unwrap();
    }
    other.segments[0].1 = bytes;
    now.segments = other.segments;
    assert!(scan(&now).2.damage.is_some());
}

#[test]
fn without_a_note_nothing_is_cut() {
    let mut disk = disk(&[10, 20, 30], 3);
    disk.noted = Noted::Unreadable;
    assert_eq!(scan(&disk).2.damage, None);
    disk.segments[0].1.pop();
    assert!(matches!(scan(&disk).0[0], Verdict::Damaged { .. }));
}

fn disks() -> impl Strategy<Value = Disk> {
    prop::collection::vec(0usize..200, 1..12)
        .prop_flat_map(|sizes| (0..=sizes.len(), Just(sizes)))
        .prop_map(|(synced, sizes)| disk(&sizes, synced))
}

/// A place in a disk: a segment and an offset in it, both wrapped into range.
fn place(disk: &Disk, segment: usize, offset: usize) -> (usize, usize) {
    let segment = segment % disk.segments.len();
    (segment, offset % disk.segments[segment].1.len())
}

proptest! {
    #[test]
    fn flipped_bits(disk in disks(), flips in prop::collection::vec((any::<usize>(), any::<usize>(), 0u8..8), 1..4)) {
        let mut disk = disk;
        for (segment, offset, bit) in flips {
            let (segment, offset) = place(&disk, segment, offset);
            disk.segments[segment].1[offset] ^= 1 << bit;
        }
        check(&disk);
    }

    #[test]
    fn truncation(disk in disks(), segment in any::<usize>(), offset in any::<usize>()) {
        let mut disk = disk;
        let (segment, offset) = place(&disk, segment, offset);
        disk.segments[segment].1.truncate(offset);
        check(&disk);
    }

    #[test]
    fn zeroed_blocks(disk in disks(), segment in any::<usize>(), offset in any::<usize>(), length in 1usize..600) {
        let mut disk = disk;
        let (segment, offset) = place(&disk, segment, offset);
        let bytes = &mut disk.segments[segment].1;
        let end = (offset + length).min(bytes.len());
        bytes[offset..end].fill(0);
        check(&disk);
    }

    #[test]
    fn rubbish_behind_the_end(disk in disks(), rubbish in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut disk = disk;
        disk.segments.last_mut().unwrap().1.extend(rubbish);
        let (_, records, scanned) = scan(&disk);
        prop_assert_eq!(records.len(), disk.records.len());
        prop_assert_eq!(scanned.damage, None);
        check(&disk);
    }

    #[test]
    fn segments_missing(disk in disks(), missing in any::<usize>()) {
        let mut disk = disk;
        let missing = missing % disk.segments.len();
        disk.segments.remove(missing);
        check(&disk);
    }

    #[test]
    fn any_bytes_as_a_segment(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut disk = disk(&[], 0);
        disk.segments.push((Seq(1), bytes));
        check(&disk);
    }

    #[test]
    fn oversized_length(disk in disks(), record in any::<usize>(), length in any::<u32>()) {
        let mut disk = disk;
        let record = record % disk.records.len();
        let (segment, end) = disk.ends[record];
        let start = end as usize - 40 - disk.records[record].body.len();
        disk.segments[segment].1[start..start + 4].copy_from_slice(&length.to_le_bytes());
        check(&disk);
    }
}
