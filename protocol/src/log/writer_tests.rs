//! A log by example: epochs, failures, retention.

use alloc::vec;
use alloc::vec::Vec;

use super::record::{Append, Body, EpochStart, Record};
use super::writer::{Kept, Log, Recovered, Standing};
use crate::event::Event;
use crate::id::{Epoch, Hash, LogId, NodeId, Position, Seq};
use crate::limits::LOG_CACHE_BYTES;
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::{Durability, Retention, WhenFull};
use crate::time::{Span, Time};

const READER: LogId = LogId([7; 16]);
const NOW: Time = Time(10_000);

fn log() -> Log {
    let retention = Retention { age: Span(1000), bytes: 200_000, when_full: WhenFull::Block };
    let mut log = Log::new(LogName::Catalog(NodeId([1; 32])), Durability::Disk, retention);
    log.open = true;
    log
}

fn start() -> Body {
    Body::EpochStart(EpochStart { writer: NodeId([1; 32]), keepers: vec![], at: NOW })
}

fn append(bytes: usize) -> Body {
    let event = Event { payload: vec![b'x'; bytes].into(), ..Event::default() };
    Body::Append(Append { events: vec![event], ..Append::default() })
}

/// Appends in the log's epoch and persists.
fn stand(log: &mut Log, bodies: impl IntoIterator<Item = Body>) -> Vec<Record> {
    let epoch = log.epoch().max(Epoch(1));
    let records = bodies.into_iter().map(|body| log.append(epoch, body)).collect();
    log.on_persisted(Seq(u64::MAX), NOW);
    records
}

/// The log after a restart that found only the first `kept` records.
fn reopened(records: &[Record], kept: usize) -> Log {
    let mut log = log();
    let found = &records[..kept];
    let head = found.last().map_or(Position::START, Record::position);
    let bytes = found.iter().map(|record| record.body.len() as u64).sum();
    log.recover(Recovered { head, first: Seq(1), covered: Position::START, bytes }, None, NOW);
    found.iter().filter_map(Kept::of).for_each(|kept| log.replayed(kept, NOW));
    log.append(Epoch(log.epoch().0 + 1), start());
    log.on_persisted(Seq(u64::MAX), NOW);
    log
}

#[test]
fn reader_of_a_lost_tail_falls_back_to_where_the_epoch_ended() {
    let records = stand(&mut log(), [start(), append(1), append(1), append(1)]);
    let log = reopened(&records, 2);
    assert_eq!(log.epoch(), Epoch(2));
    assert_eq!(log.standing(records[3].position()), Standing::Beyond(records[1].position()));
    assert_eq!(log.standing(records[2].position()), Standing::Beyond(records[1].position()));
    assert_eq!(log.standing(records[1].position()), Standing::Within);
    assert_eq!(log.standing(log.head()), Standing::Within);
}

#[test]
fn reader_ahead_of_its_own_epoch_falls_back_to_what_is_persisted() {
    let mut log = log();
    let records = stand(&mut log, [start(), append(1)]);
    let ahead = Position { epoch: Epoch(1), seq: Seq(9), hash: Hash([9; 16]) };
    assert_eq!(log.standing(ahead), Standing::Beyond(records[1].position()));
}

#[test]
fn what_could_not_be_persisted_is_dropped_with_all_behind_it() {
    let mut log = log();
    stand(&mut log, [start()]);
    let first = log.append(Epoch(1), append(10));
    log.append(Epoch(1), append(10));
    log.append(Epoch(1), append(10));
    assert_eq!(log.on_persist_failed(Seq(3)).len(), 2);
    assert_eq!((log.head(), log.persisted().seq), (first.position(), Seq(1)));
    assert_eq!(log.append(Epoch(1), append(5)).seq, Seq(3));
    log.on_persisted(Seq(3), NOW);
    assert_eq!((log.persisted(), log.pending_bytes()), (log.head(), 0));
}

#[test]
fn nothing_is_served_before_it_is_persisted() {
    let mut log = log();
    stand(&mut log, [start()]);
    log.append(Epoch(1), append(10));
    assert_eq!((log.served().seq, log.cached(Seq(2))), (Seq(1), None));
    log.on_persisted(Seq(2), NOW);
    assert_eq!(log.cached(Seq(2)).map(|kept| kept.position), Some(log.head()));
}

#[test]
fn unread_records_fill_the_log_until_their_reader_has_passed() {
    let mut log = log();
    log.expect_readers([READER].into_iter());
    stand(&mut log, [start(), append(100_000)]);
    assert!(!log.is_full());
    log.append(Epoch(1), append(100_000));
    assert!(log.is_full(), "what is on its way to the disk counts");
    log.on_persisted(Seq(3), NOW);
    assert!(log.is_full());
    log.reader_committed(READER, log.head());
    assert!(!log.is_full());
}

#[test]
fn record_goes_once_it_is_passed_covered_and_old() {
    let mut log = log();
    log.expect_readers([READER].into_iter());
    stand(&mut log, [start()]);
    (0..3).for_each(|_| drop(stand(&mut log, [append(70_000)])));
    let old = NOW.after(Span(2000));
    assert_eq!(log.truncatable(old), None, "its reader was not heard of");
    log.reader_committed(READER, log.head());
    assert_eq!(log.truncatable(old), None, "no snapshot covers it");
    log.snapshotted(Some(log.head()));
    let before = log.truncatable(old).unwrap();
    assert!(before > Seq(1) && log.first() == before && log.cached(Seq(1)).is_none());
    assert_eq!(log.standing(Position { epoch: Epoch(1), seq: Seq(0), hash: Hash([0; 16]) }), Standing::Gone);
}

#[test]
fn young_records_stay_while_the_log_is_small() {
    let mut log = log();
    stand(&mut log, [start(), append(70_000)]);
    stand(&mut log, [append(70_000)]);
    log.snapshotted(Some(log.head()));
    assert_eq!(log.truncatable(NOW), None);
    stand(&mut log, [append(70_000)]);
    log.snapshotted(Some(log.head()));
    assert!(log.truncatable(NOW).is_some(), "beyond its bytes");
}

#[test]
fn age_of_records_counts_from_the_restart() {
    let mut log = log();
    log.retention.age = Span::seconds(60);
    let records = stand(&mut log, [start(), append(200_000), append(200_000)]);
    let mut log = reopened(&records, 3);
    log.retention.age = Span::seconds(60);
    // Its bytes are no reason to let anything go.
    log.retention.bytes = 1 << 30;
    log.snapshotted(Some(log.persisted()));
    assert_eq!(log.truncatable(NOW.after(Span::seconds(59))), None);
    assert!(log.truncatable(NOW.after(Span::seconds(61))).is_some());
}

#[test]
fn full_log_found_at_a_restart_is_free_as_far_as_its_readers_are() {
    let reader = LogId([9; 16]);
    let mut log = log();
    let records = stand(&mut log, [start(), append(200_000), append(200_000), append(200_000)]);
    let mut log = reopened(&records, 4);
    log.retention.bytes = 300_000;
    log.expect_readers([reader].into_iter());
    assert!(log.is_full());
    log.reader_committed(reader, records[2].position());
    assert!(!log.is_full());
}

#[test]
fn events_behind_a_record_are_counted_in_memory_and_about_so_beyond() {
    let mut log = log();
    // Twice what is kept in memory, in records of two sizes.
    let big = LOG_CACHE_BYTES / 100;
    let bodies = (0..200).flat_map(|_| [append(big), append(1), append(1)]);
    let records = stand(&mut log, [start()].into_iter().chain(bodies));
    assert_eq!(log.events(), 600);
    for behind in [0, 1, 2, 60, 599, 600] {
        assert!(log.events_behind(Seq(601 - behind)).abs_diff(behind) <= 3, "{behind}");
    }
    let head = records.last().map_or(Position::START, Record::position);
    let covered = records[300].position();
    let bytes = records.iter().map(|record| record.body.len() as u64).sum();
    let recovered = |first: u64, ever: Option<u64>| {
        let mut log = self::log();
        log.recover(Recovered { head, first: Seq(first), covered, bytes }, None, NOW);
        records[301..].iter().filter_map(Kept::of).for_each(|kept| log.replayed(kept, NOW));
        log.counted(ever);
        log
    };
    let whole = recovered(1, Some(600));
    assert_eq!((whole.events(), whole.events_behind(Seq(0))), (600, 600));
    assert!(whole.events_behind(Seq(150)).abs_diff(450) <= 3);
    // Half of what the snapshot covers is gone, and how many events stood there with it.
    assert!(recovered(151, Some(600)).events_behind(Seq(150)).abs_diff(450) <= 3);
    assert!(recovered(1, None).events_behind(Seq(0)).abs_diff(600) <= 3);
}

#[test]
fn a_log_that_no_snapshot_covers_lets_go_of_nothing_after_a_restart() {
    let records = stand(&mut log(), [start(), append(1), append(1)]);
    let mut log = reopened(&records, 3);
    assert_eq!(log.truncatable(Time(NOW.0 + 100_000)), None);
}
