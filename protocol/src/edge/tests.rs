//! Edges by example: one log of small appends, one reader, one subscription.

use alloc::vec;
use alloc::vec::Vec;

use super::reader::{Heard, Owner, Reader, Taken, Word};
use super::writer::{Push, Subscription};
use bytes::Bytes;

use crate::event::Event;
use crate::id::{Epoch, Hash, LogId, NodeId, Position, Seq};
use crate::limits::{EDGE_CREDIT_BYTES, EDGE_REPEAT};
use crate::log::record::{Append, Body, EpochStart};
use crate::log::writer::{Log, Recovered};
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::{Durability, Retention};
use crate::pipeline::plan::SlotRange;
use crate::time::Time;
use crate::wire::message::{Broadcast, EdgeId, Filter, From, Message, Slice};

const NOW: Time = Time(10_000);

/// A persisted log: its epoch's start, then an append of one event for each payload size; 0: of none.
fn log_of(payloads: &[usize]) -> Log {
    let mut log = Log::new(LogName::Catalog(NodeId([1; 32])), Durability::Disk, Retention::default());
    log.append(Epoch(1), Body::EpochStart(EpochStart { writer: NodeId([1; 32]), keepers: vec![], at: NOW }));
    for size in payloads {
        let event = Event { payload: vec![b'x'; *size].into(), ..Event::default() };
        let events = if *size == 0 { vec![] } else { vec![event] };
        log.append(Epoch(1), Body::Append(Append { events, ..Append::default() }));
    }
    log.on_persisted(Seq(u64::MAX), NOW);
    log
}

fn all() -> Filter {
    Filter { outputs: vec![0], slots: SlotRange::ALL }
}

fn subscription(log: &Log, credit: u64) -> Subscription {
    Subscription::new(log, None, all(), Position::START, credit)
}

fn reader() -> Reader {
    let owner = Owner::Actor(LogId([3; 16]));
    let mut reader = Reader::new(EdgeId(1), LogId([2; 16]), NodeId([1; 32]), owner, all(), From::Start);
    reader.beat(NOW, true);
    reader.on_subscribed(Position::START, Seq(0), NOW);
    reader
}

fn batch(push: Push) -> (Position, Vec<Slice>) {
    match push {
        Push::Batch { after, slices } => (after, slices),
        other => panic!("{other:?} is no batch"),
    }
}

/// One batch for each of the log's records with events.
fn batches(log: &Log) -> Vec<(Position, Vec<Slice>)> {
    let mut writer = subscription(log, 1);
    let mut batches = Vec::new();
    while let Push::Batch { after, slices } = writer.push(log) {
        writer.on_credit(u64::MAX, writer.sent());
        batches.push((after, slices));
        writer = Subscription::new(log, None, all(), writer.sent(), 1);
    }
    batches
}

#[test]
fn batch_that_follows_on_is_taken_once() {
    let log = log_of(&[10, 10]);
    let (after, slices) = batch(subscription(&log, 1000).push(&log));
    let mut reader = reader();
    assert_eq!(reader.on_batch(after, slices.clone(), Seq(3), NOW), Taken::Slices(slices.clone()));
    assert_eq!(reader.on_batch(after, slices, Seq(3), NOW), Taken::Known);
    assert!(reader.is_level());
}

#[test]
fn batch_behind_a_missing_one_is_a_gap() {
    let batches = batches(&log_of(&[10, 10]));
    let mut reader = reader();
    let (after, slices) = batches.last().cloned().unwrap();
    assert_eq!(reader.on_batch(after, slices, Seq(3), NOW), Taken::Gap);
    assert_eq!(reader.received(), Position::START);
}

#[test]
fn the_end_of_a_log_that_is_told_again_is_taken_once() {
    let mut log = log_of(&[]);
    log.append(Epoch(1), Body::Close { successor: LogId([9; 16]) });
    log.on_persisted(Seq(u64::MAX), NOW);
    let (after, slices) = batch(subscription(&log, 1000).push(&log));
    let mut reader = reader();
    let taken = reader.on_batch(after, slices.clone(), Seq(2), NOW);
    assert!(matches!(taken, Taken::Slices(taken) if taken.iter().any(|slice| slice.closed.is_some())));
    // As the writer tells it to whoever subscribes at the end.
    let end = slices[slices.len() - 1].clone();
    assert_eq!(reader.on_batch(end.position, vec![end], Seq(2), NOW), Taken::Known);
}

#[test]
fn batch_of_an_earlier_subscription_is_passed_over() {
    let log = log_of(&[10]);
    let (after, slices) = batch(subscription(&log, 1000).push(&log));
    let mut reader = reader();
    reader.lost();
    assert_eq!(reader.on_batch(after, slices, Seq(2), NOW), Taken::Known);
}

#[test]
fn resubscription_begins_behind_what_came_and_grants_what_is_not_held() {
    let log = log_of(&[1000]);
    let (after, slices) = batch(subscription(&log, 10_000).push(&log));
    let weight: u64 = slices.iter().map(Slice::weight).sum();
    let mut reader = reader();
    reader.on_batch(after, slices, Seq(2), NOW);
    reader.lost();
    match reader.beat(NOW, true) {
        Some(Message::Subscribe { from, credit, committed, .. }) => {
            assert_eq!(from, From::After(reader.received()));
            assert_eq!(credit, EDGE_CREDIT_BYTES - weight);
            assert_eq!(committed, Position::START);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscription_is_repeated_until_it_stands() {
    let mut reader = reader();
    reader.lost();
    assert!(reader.beat(NOW, false).is_none(), "nobody to say it to");
    assert!(reader.beat(NOW, true).is_some());
    assert!(reader.beat(NOW, true).is_none());
    assert!(reader.beat(NOW.after(EDGE_REPEAT), true).is_some());
}

#[test]
fn credit_goes_back_once_all_that_came_is_done() {
    let log = log_of(&[1000]);
    let (after, slices) = batch(subscription(&log, 10_000).push(&log));
    let weight: u64 = slices.iter().map(Slice::weight).sum();
    let mut reader = reader();
    reader.on_batch(after, slices, Seq(2), NOW);
    let at = reader.received();
    let later = NOW.after(EDGE_REPEAT);
    assert_eq!(reader.consumed(weight / 2, at, later), Word::Enough);
    match reader.consumed(weight - weight / 2, at, later) {
        Word::Now(Message::Credit { total, committed, .. }) => {
            assert_eq!((total, committed), (EDGE_CREDIT_BYTES + weight, at));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_events_one_by_one_the_writer_is_told_together() {
    let log = log_of(&[100, 100]);
    let (after, slices) = batch(subscription(&log, 10_000).push(&log));
    let mut reader = reader();
    let mut at = after;
    for slice in slices {
        let (before, weight) = (at, slice.weight());
        at = slice.position;
        assert!(matches!(reader.on_batch(before, vec![slice], Seq(3), NOW), Taken::Slices(_)));
        assert!(matches!(reader.consumed(weight, at, NOW), Word::At(soon) if soon > NOW));
    }
    match reader.owed(NOW.after(EDGE_REPEAT)) {
        Some(Message::Credit { received, committed, .. }) => assert_eq!((received, committed), (at, at)),
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.owed(NOW.after(EDGE_REPEAT)), None, "it is said once");
}

#[test]
fn reader_falls_back_to_where_the_log_really_ended() {
    let log = log_of(&[10, 10]);
    let (after, slices) = batch(subscription(&log, 1000).push(&log));
    let to = slices.first().map(|slice| slice.position).unwrap();
    let mut reader = reader();
    reader.on_batch(after, slices, Seq(3), NOW);
    reader.fall_back(to);
    assert_eq!(reader.received(), to);
    assert!(
        matches!(reader.beat(NOW, true), Some(Message::Subscribe { from: From::After(at), committed, .. })
            if at == to && committed == Position::START)
    );
}

#[test]
fn writer_sends_one_batch_beyond_its_credit_and_no_more() {
    let log = log_of(&[1000, 1000, 1000]);
    let mut writer = subscription(&log, 100);
    let (_, slices) = batch(writer.push(&log));
    let weight: u64 = slices.iter().map(Slice::weight).sum();
    assert_eq!(writer.push(&log), Push::Nothing);
    let received = writer.sent();
    writer.on_credit(weight, received);
    assert_eq!(writer.push(&log), Push::Nothing, "all that is granted is sent");
    writer.on_credit(weight + 1, received);
    batch(writer.push(&log));
}

#[test]
fn writer_tells_how_many_events_it_still_has_for_a_reader() {
    let mut log = log_of(&[1000, 10, 0, 10]);
    let mut writer = subscription(&log, 100);
    assert_eq!(writer.behind(&log), 3);
    batch(writer.push(&log));
    assert_eq!(writer.behind(&log), 2);
    // Records of many events behind records of one.
    let events = vec![Event::default(); 500];
    log.append(Epoch(1), Body::Append(Append { events, ..Append::default() }));
    log.on_persisted(Seq(u64::MAX), NOW);
    assert_eq!(writer.behind(&log), 502);
    writer.on_credit(u64::MAX, writer.sent());
    batch(writer.push(&log));
    assert_eq!(writer.behind(&log), 0);
}

#[test]
fn a_share_s_reader_waits_for_as_many_events_as_its_share_was_so_far() {
    let key = |n: u32| Bytes::copy_from_slice(&n.to_le_bytes());
    let append = |keys: core::ops::Range<u32>| {
        let events = keys.map(|n| Event { key: key(n), ..Event::default() }).collect();
        Body::Append(Append { events, ..Append::default() })
    };
    let half = Filter { outputs: vec![0], slots: SlotRange::of_share(0, 2) };
    let mut log = log_of(&[]);
    log.append(Epoch(1), append(0..1000));
    log.on_persisted(Seq(u64::MAX), NOW);
    let mut writer = Subscription::new(&log, None, half, Position::START, 10_000);
    assert_eq!(writer.behind(&log), 500);
    let (_, slices) = batch(writer.push(&log));
    let came = slices.iter().map(|slice| slice.events.len() as u64).sum::<u64>();
    log.append(Epoch(1), append(1000..2000));
    log.on_persisted(Seq(u64::MAX), NOW);
    assert!((400..600).contains(&came), "{came}");
    assert_eq!(writer.behind(&log), came);
}

#[test]
fn reader_that_repeats_itself_has_lost_what_was_sent() {
    let log = log_of(&[10]);
    let mut writer = subscription(&log, 100);
    batch(writer.push(&log));
    assert!(!writer.on_credit(100, Position::START));
    assert!(writer.on_credit(100, Position::START));
}

#[test]
fn records_without_events_are_one_position() {
    let log = log_of(&[0, 0, 0]);
    let (after, slices) = batch(subscription(&log, 1000).push(&log));
    assert_eq!((after, slices.len()), (Position::START, 1));
    assert_eq!(slices.first().map(|slice| slice.position.seq), Some(Seq(4)));
}

#[test]
fn position_of_another_history_is_told_apart() {
    let log = log_of(&[10, 10]);
    let elsewhere = Position { epoch: Epoch(1), seq: Seq(1), hash: Hash([9; 16]) };
    let mut writer = Subscription::new(&log, None, all(), elsewhere, 1000);
    assert_eq!(writer.push(&log), Push::Diverged);
}

#[test]
fn what_is_no_longer_in_memory_is_read() {
    let mut log = Log::new(LogName::Catalog(NodeId([1; 32])), Durability::Disk, Retention::default());
    let head = log_of(&[10]).persisted();
    let found = Recovered { head, first: Seq(1), covered: Position::START, bytes: 100 };
    log.recover(found, None, Time(0));
    assert_eq!(subscription(&log, 100).push(&log), Push::Read { from: Seq(1), bytes: 100 });
}

/// A tap's reader that goes by gossip, and the batches that are broadcast of a log of so many records.
fn by_gossip(payloads: &[usize]) -> (Reader, Vec<Broadcast>) {
    let log = log_of(payloads);
    let batches = batches(&log).into_iter();
    let broadcasts = batches.map(|(after, slices)| Broadcast { after, slices, head: Seq(9) }).collect();
    let mut reader = Reader::new(EdgeId(1), LogId([2; 16]), NodeId([1; 32]), Owner::Hub, all(), From::Start);
    reader.beat(NOW, true);
    reader.on_subscribed(Position::START, Seq(0), NOW);
    assert!(reader.on_by_gossip(Position::START));
    (reader, broadcasts)
}

#[test]
fn what_comes_by_gossip_is_taken_in_order_and_once() {
    let (mut reader, all) = by_gossip(&[10, 10]);
    let hears = |reader: &Reader| all.iter().map(|it| reader.hears(it)).collect::<Vec<Heard>>();
    let (next, early, known) = (Heard::Next, Heard::Early, Heard::Known);
    assert_eq!(hears(&reader), [next, early, early]);
    reader.take(&all[0], NOW);
    assert_eq!(hears(&reader), [known, next, early]);
    let mut other = all[1].clone();
    other.after.hash = Hash([9; 16]);
    assert_eq!(reader.hears(&other), early, "not what follows on what it has");
    reader.lost();
    assert_eq!(hears(&reader), [known, early, early], "it goes directly");
}

#[test]
fn a_slow_reader_takes_nothing_by_gossip_beyond_its_window() {
    let (mut reader, all) = by_gossip(&[10, EDGE_CREDIT_BYTES as usize, 10]);
    all[..3].iter().for_each(|broadcast| _ = reader.take(broadcast, NOW));
    assert_eq!(reader.hears(&all[3]), Heard::NoRoom);
    reader.lost();
    match reader.beat(NOW, true) {
        Some(Message::Subscribe { from, credit, .. }) => {
            assert_eq!((from, credit), (From::After(all[2].last()), 0), "it pulls once there is room");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_broadcast_is_asked_for_once_it_is_late() {
    let (mut reader, all) = by_gossip(&[10, 10]);
    reader.take(&all[0], NOW);
    reader.on_head(Seq(9), all[0].last(), NOW);
    assert!(!reader.is_late(NOW.after(EDGE_REPEAT)), "it has all that was broadcast");
    reader.on_head(Seq(9), all[1].last(), NOW);
    assert!(!reader.is_late(NOW));
    let later = NOW.after(EDGE_REPEAT);
    assert!(reader.is_late(later));
    match reader.beat(later, true) {
        Some(Message::Subscribe { from, .. }) => assert_eq!(from, From::After(all[0].last())),
        other => panic!("{other:?}"),
    }
    let (mut reader, all) = by_gossip(&[10, 10]);
    reader.on_head(Seq(9), all[0].last(), NOW);
    reader.take(&all[0], NOW);
    assert!(!reader.is_late(later), "it only took its time");
}
