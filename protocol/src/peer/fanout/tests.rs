//! A node whose source log is tapped by others that are played here: two nodes are many.

use alloc::vec;
use alloc::vec::Vec;

use crate::effect::Input;
use crate::id::{LogId, NodeId, Position, Seq, TopicId};
use crate::limits::{BROADCAST_BYTES_MAX, EDGE_CREDIT_BYTES};
use crate::peer::TapBounds;
use crate::peer::tests::Lone;
use crate::pipeline::plan::{Role, SlotRange};
use crate::time::Span;
use crate::wire::message::{Broadcast, EdgeId, Filter, From, Message, Refusal};

const ONE: NodeId = NodeId([1; 32]);
const TWO: NodeId = NodeId([2; 32]);

struct Writer {
    node: Lone,
    log: LogId,
    topic: TopicId,
}

impl Writer {
    fn new() -> Writer {
        let mut node = Lone::deployed("memory", TapBounds::default());
        node.publish(0, 10);
        let log = node.log_of(Role::Source);
        for from in [ONE, TWO] {
            node.take(Input::Connected { node: from });
        }
        Writer { node, log, topic: TopicId::of(&log, &[0]) }
    }

    fn say(&mut self, from: NodeId, message: Message) {
        self.node.take(Input::Message { from, message });
    }

    fn subscribe(&mut self, from: NodeId, at: From) {
        let filter = Filter { outputs: vec![0], slots: SlotRange::ALL };
        let (reader, committed, credit) = (None, Position::START, EDGE_CREDIT_BYTES);
        let (edge, log) = (EdgeId(7), self.log);
        self.say(from, Message::Subscribe { edge, log, reader, filter, from: at, committed, credit });
    }

    /// Both tap the log, join its topic, and go by gossip.
    fn with_both() -> Writer {
        let mut writer = Writer::new();
        for from in [ONE, TWO] {
            writer.subscribe(from, From::Start);
        }
        for from in [ONE, TWO] {
            writer.say(from, Message::InTopic { topic: writer.topic });
        }
        writer.node.pass(Span(4_000));
        assert!(writer.is_told(ONE) && writer.is_told(TWO), "{:?}", writer.node.sent);
        writer.node.sent.clear();
        writer
    }

    /// The node was told that it goes by gossip.
    fn is_told(&self, node: NodeId) -> bool {
        self.said_to(node).iter().any(|message| matches!(message, Message::ByGossip { .. }))
    }

    fn said_to(&self, node: NodeId) -> Vec<&Message> {
        self.node.sent.iter().filter(|(to, _)| *to == node).map(|(_, message)| message).collect()
    }

    /// Records that it was sent for itself.
    fn records_to(&self, node: NodeId) -> usize {
        let said = self.said_to(node).into_iter();
        said.map(|message| if let Message::Batch { slices, .. } = message { slices.len() } else { 0 }).sum()
    }

    fn end(&self) -> Position {
        self.node.broadcasts.last().map_or(Position::START, |(_, broadcast)| broadcast.last())
    }

    fn credit(&mut self, from: NodeId, total: u64, received: Position, committed: Position) {
        self.say(from, Message::Credit { edge: EdgeId(7), total, received, committed });
    }
}

#[test]
fn many_nodes_are_offered_the_topic_and_few_are_not() {
    let mut writer = Writer::new();
    let offer = Message::Offer { log: writer.log, outputs: vec![0] };
    writer.subscribe(ONE, From::Start);
    writer.node.pass(Span(20_000));
    assert!(!writer.said_to(ONE).contains(&&offer));
    writer.subscribe(TWO, From::Now);
    assert!(writer.said_to(ONE).contains(&&offer) && writer.said_to(TWO).contains(&&offer));
}

#[test]
fn what_is_new_goes_out_once_for_all() {
    let mut writer = Writer::with_both();
    (1..5).for_each(|n| writer.node.publish(n, 10));
    assert_eq!((writer.records_to(ONE), writer.records_to(TWO)), (0, 0));
    let broadcasts: Vec<&Broadcast> = writer.node.broadcasts.iter().map(|(_, broadcast)| broadcast).collect();
    assert!(broadcasts.windows(2).all(|pair| pair[1].after == pair[0].last()), "they follow on each other");
    let events: usize = broadcasts.iter().flat_map(|it| &it.slices).map(|slice| slice.events.len()).sum();
    assert_eq!(events, 4);
    assert!(writer.node.broadcasts.iter().all(|(topic, _)| *topic == writer.topic));
}

#[test]
fn who_has_not_joined_is_served_directly() {
    let mut writer = Writer::new();
    writer.subscribe(ONE, From::Start);
    writer.subscribe(TWO, From::Start);
    writer.say(ONE, Message::InTopic { topic: writer.topic });
    writer.say(TWO, Message::OutOfTopic { topic: writer.topic });
    writer.node.pass(Span(4_000));
    assert!(writer.is_told(ONE) && !writer.is_told(TWO));
    writer.node.sent.clear();
    writer.node.publish(1, 10);
    assert_eq!((writer.records_to(ONE), writer.records_to(TWO), writer.node.broadcasts.len()), (0, 1, 1));
}

#[test]
fn where_the_broadcasts_stand_is_told_to_each() {
    let mut writer = Writer::with_both();
    writer.node.publish(1, 10);
    writer.node.pass(Span(1_500));
    let end = writer.end();
    for node in [ONE, TWO] {
        let told = writer.said_to(node).into_iter().any(|message| {
            matches!(message, Message::Batch { after, slices, .. } if *after == end && slices.is_empty())
        });
        assert!(told, "{:?}", writer.said_to(node));
    }
}

#[test]
fn who_lacks_what_was_broadcast_subscribes_again_and_catches_up() {
    let mut writer = Writer::with_both();
    let before = writer.end();
    writer.node.publish(1, 10);
    let lost = writer.node.broadcasts[0].1.after;
    assert_eq!(before, Position::START);
    writer.subscribe(ONE, From::After(lost));
    assert_eq!(writer.records_to(ONE), 1, "it is sent what it lacks");
    assert!(writer.is_told(ONE), "and goes by gossip again");
    writer.node.publish(2, 10);
    assert_eq!((writer.records_to(ONE), writer.node.broadcasts.len()), (1, 2));
}

#[test]
fn who_says_the_same_twice_is_asked_to_subscribe_again() {
    let mut writer = Writer::with_both();
    writer.node.publish(1, 10);
    let stands = writer.node.broadcasts[0].1.after;
    for _ in 0..2 {
        writer.credit(ONE, EDGE_CREDIT_BYTES, stands, stands);
    }
    let refused = Message::Refused { edge: EdgeId(7), why: Refusal::Unknown };
    assert!(writer.said_to(ONE).contains(&&refused));
    assert!(!writer.said_to(TWO).contains(&&refused));
}

#[test]
fn broadcasts_wait_for_the_quickest_and_go_on_with_it() {
    let mut writer = Writer::with_both();
    for n in 1..30 {
        writer.node.publish_at_once(n, 100_000);
        writer.node.pass(Span(10));
    }
    let sent = |writer: &Writer| writer.node.broadcasts.iter().map(|(_, it)| it.weight()).sum::<u64>();
    assert!(sent(&writer) <= EDGE_CREDIT_BYTES + 500_000, "{} bytes are under way", sent(&writer));
    let before = sent(&writer);
    let end = writer.end();
    writer.credit(TWO, 2 * EDGE_CREDIT_BYTES, end, end);
    writer.node.pass(Span(10));
    assert!(sent(&writer) > before);
}

#[test]
fn nobody_waits_for_those_that_stand_still() {
    let mut writer = Writer::with_both();
    (1..30).for_each(|n| writer.node.publish(n, 100_000));
    writer.node.pass(Span(4_000));
    let refused = Message::Refused { edge: EdgeId(7), why: Refusal::Unknown };
    assert!(writer.said_to(ONE).contains(&&refused) && writer.said_to(TWO).contains(&&refused));
}

#[test]
fn what_reached_nobody_goes_directly() {
    let mut writer = Writer::with_both();
    writer.node.publish(1, 10);
    let stands = writer.node.broadcasts[0].1.after;
    writer.node.take(Input::NotBroadcast { topic: writer.topic });
    writer.subscribe(ONE, From::After(stands));
    writer.node.publish(2, 10);
    assert_eq!((writer.records_to(ONE), writer.node.broadcasts.len()), (2, 1));
    writer.node.pass(Span(7_000));
    writer.node.publish(3, 10);
    assert_eq!((writer.records_to(ONE), writer.node.broadcasts.len()), (2, 2), "later it is tried again");
}

#[test]
fn a_batch_that_is_too_large_goes_directly() {
    let mut writer = Writer::with_both();
    writer.node.publish(1, BROADCAST_BYTES_MAX as usize);
    assert!(writer.node.broadcasts.is_empty());
    let refused = Message::Refused { edge: EdgeId(7), why: Refusal::Unknown };
    assert!(writer.said_to(ONE).contains(&&refused));
}

#[test]
fn few_readers_go_directly_again_after_a_while() {
    let mut writer = Writer::with_both();
    writer.say(TWO, Message::Unsubscribe { edge: EdgeId(7) });
    writer.node.publish(1, 10);
    assert_eq!(writer.records_to(ONE), 0, "somebody may come back");
    writer.node.pass(Span(12_000));
    let end = writer.end();
    writer.subscribe(ONE, From::After(end));
    writer.node.publish(2, 10);
    assert_eq!(writer.records_to(ONE), 1);
    writer.say(ONE, Message::Unsubscribe { edge: EdgeId(7) });
    writer.node.pass(Span(2_000));
    assert!(writer.node.peer.fanout.streams.is_empty() && writer.node.peer.fanout.cursors.is_empty());
    let own = writer.node.peer.subscriptions.keys().filter(|(node, _)| *node == writer.node.peer.me());
    assert_eq!(own.count(), 1, "the stage's own edge is left");
    assert_ne!(end.seq, Seq(0));
}
