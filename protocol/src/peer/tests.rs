//! A lone node under a driver of one page: its disk is a list of records, its functions take every event
//! and emit nothing. What nodes do together is the simulator's.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{GossipBounds, Peer, PeerConfig, TapBounds};
use crate::effect::{Effect, Effects, Input, Level, Outcome, RecoveredLog, Report, RequestId, Timer};
use crate::event::Event;
use crate::id::{Digest, Epoch, LogId, NodeId, Position, Seq, TopicId};
use crate::log::record::{Body, Record};
use crate::mesh::catalog::{LogName, NodeFacts};
use crate::pipeline::manifest::{Manifest, Module, Operator};
use crate::pipeline::plan::{Role, SlotRange};
use crate::rpc::{Publish, Request, Response, TailEvent};
use crate::time::{Span, Time};
use crate::wire::message::{Broadcast, EdgeId, Filter, From, Message, Refusal};

const PIPELINE: &str = r#"
name = "p"
durability = "DURABILITY"
retention = RETENTION

[source.in]
key = "key"

[stage.count]
from = ["in"]
key = "key"
wasm = "0000000000000000000000000000000000000000000000000000000000000000"
"#;

/// A log on the disk: what is kept of it.
#[derive(Debug, Clone)]
struct Kept {
    name: LogName,
    records: Vec<Record>,
    snapshot: Option<(Position, Bytes)>,
}

pub(super) struct Lone {
    pub(super) peer: Peer,
    now: Time,
    disk: BTreeMap<LogId, Kept>,
    timers: BTreeMap<Timer, Time>,
    answers: Vec<Response>,
    /// What taps were answered.
    pub(super) tailed: BTreeMap<RequestId, Vec<TailEvent>>,
    reports: Vec<Report>,
    pub(super) sent: Vec<(NodeId, Message)>,
    pub(super) broadcasts: Vec<(TopicId, Broadcast)>,
    /// Sequence numbers of the source's records whose events a function was given.
    seen: Vec<Seq>,
}

impl Lone {
    /// Recovered, started, and open.
    fn on(disk: BTreeMap<LogId, Kept>, now: Time) -> Lone {
        Lone::with(disk, now, TapBounds::default())
    }

    /// A new one, whose taps share so much, with the pipeline deployed.
    pub(super) fn deployed(durability: &str, taps: TapBounds) -> Lone {
        Lone::keeping(r#"{ bytes = "64KiB", age = "1s" }"#, durability, taps)
    }

    /// The same with another retention.
    pub(super) fn keeping(retention: &str, durability: &str, taps: TapBounds) -> Lone {
        let mut node = Lone::with(BTreeMap::new(), Time(100_000_000), taps);
        let pipeline = PIPELINE.replace("DURABILITY", durability).replace("RETENTION", retention);
        let mut manifest = Manifest::from_toml(&pipeline, "p").unwrap();
        for stage in manifest.stages.values_mut() {
            if let Operator::Wasm(spec) = &mut stage.operator {
                spec.module = Module::Digest(Digest([0; 32]));
            }
        }
        let answer = node.ask(Request::Deploy { manifest });
        assert!(matches!(answer, Response::Deployed { .. }), "{answer:?}");
        node
    }

    /// Event number `n`, of so many bytes.
    pub(super) fn publish(&mut self, n: u64, bytes: usize) {
        let answer = self.offer(n, bytes);
        assert!(matches!(answer, Response::Published { .. }), "{answer:?}");
    }

    /// The same, whatever the answer is.
    fn offer(&mut self, n: u64, bytes: usize) -> Response {
        self.ask(Lone::one_event(n, bytes))
    }

    /// The same, without time passing.
    pub(super) fn publish_at_once(&mut self, n: u64, bytes: usize) {
        self.take(Input::Request { id: RequestId(1), request: Lone::one_event(n, bytes) });
    }

    fn one_event(n: u64, bytes: usize) -> Request {
        let payload = Bytes::from(format!(r#"{{"key":"k","fill":"{}"}}"#, "x".repeat(bytes)));
        let event = Event { key: Bytes::from_static(b"k"), time: Time(n), headers: Vec::new(), payload };
        let (pipeline, source) = ("p".parse().unwrap(), "in".parse().unwrap());
        Request::Publish(Publish { pipeline, source, producer: None, log: None, events: vec![event] })
    }

    fn said(&self, what: &str) -> Vec<&Report> {
        self.reports.iter().filter(|report| report.what == what).collect()
    }

    fn with(disk: BTreeMap<LogId, Kept>, now: Time, taps: TapBounds) -> Lone {
        let mut node = Lone::settling(disk, now, taps, false);
        node.pass(Span(4_000));
        node
    }

    /// `joined`: it knows that there are others, and waits for them before it opens.
    fn settling(disk: BTreeMap<LogId, Kept>, now: Time, taps: TapBounds, joined: bool) -> Lone {
        let config = PeerConfig {
            key: (&[7; 32]).into(),
            generation: now.0,
            seed: 1,
            facts: NodeFacts::default(),
            mesh: "m".into(),
            joined,
            taps,
            gossip: GossipBounds { from_nodes: 2, below_nodes: 2 },
        };
        let (timers, answers, tailed, reports, sent, broadcasts, seen) = Default::default();
        let peer = Peer::new(config);
        let mut node = Lone { peer, now, disk, timers, answers, tailed, reports, sent, broadcasts, seen };
        node.take(Input::ModuleHeld { digest: Digest([0; 32]) });
        for (log, Kept { name, records, snapshot }) in node.disk.clone() {
            let first = records.first().map_or(Seq(1), |record| record.seq);
            let head = records.last().map_or(Position::START, Record::position);
            let bytes = records.iter().map(|record| record.body.len() as u64).sum();
            let covered = snapshot.as_ref().map_or(Seq(0), |(at, _)| at.seq);
            let found = RecoveredLog { name, head, first, snapshot, bytes, damage: None, noted: None };
            node.take(Input::Recovered(found));
            let records = records.into_iter().filter(|record| record.seq > covered).collect();
            node.take(Input::Replay { log, records });
        }
        node.take(Input::Start);
        node
    }

    pub(super) fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            for input in core::mem::take(&mut inputs) {
                let mut effects = Effects::new();
                self.peer.handle(self.now, input, &mut effects);
                inputs.extend(effects.into_iter().filter_map(|effect| self.carry_out(effect)));
            }
        }
    }

    /// Does it at once, and gives its completion.
    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::CreateLog { log, name } => {
                self.disk.entry(log).or_insert(Kept { name, records: Vec::new(), snapshot: None });
                None
            }
            Effect::Persist { log, records, .. } => {
                let seq = records.last()?.seq;
                self.disk.get_mut(&log)?.records.extend(records);
                Some(Input::Persisted { log, seq })
            }
            Effect::Read { log, read, from, .. } => {
                let records = self.disk.get(&log)?.records.iter().filter(|record| record.seq >= from);
                Some(Input::Read { log, read, outcome: Ok(records.cloned().collect()) })
            }
            Effect::Snapshot { log, at, fold, .. } => {
                self.disk.get_mut(&log)?.snapshot = Some((at, fold));
                Some(Input::Snapshotted { log, at, outcome: Ok(()) })
            }
            Effect::Truncate { log, before } => {
                self.disk.get_mut(&log)?.records.retain(|record| record.seq >= before);
                None
            }
            Effect::Host { actor, .. } => Some(Input::Hosted { actor, outcome: Ok(()) }),
            Effect::Invoke { actor, call, batch, .. } => {
                self.seen.extend(batch.iter().map(|invoked| invoked.placed.id.seq));
                Some(Input::Returned { actor, call, outcome: Ok(Outcome::default()) })
            }
            Effect::Answer { id, response: Response::Events { events }, .. } => {
                self.tailed.entry(id).or_default().extend(events);
                None
            }
            Effect::Answer { response, .. } => {
                self.answers.push(response);
                None
            }
            Effect::Send { to, message } => {
                self.sent.push((to, message));
                None
            }
            Effect::Broadcast { topic, broadcast } => {
                self.broadcasts.push((topic, broadcast));
                None
            }
            Effect::SetTimer { timer, at } => {
                self.timers.insert(timer, at);
                None
            }
            Effect::Report(report) => {
                self.reports.push(report);
                None
            }
            Effect::Apply { .. }
            | Effect::Discard { .. }
            | Effect::Unhost { .. }
            | Effect::StartConnector { .. }
            | Effect::StopConnector { .. } => None,
            Effect::RemoveLog { .. }
            | Effect::WriteAnew { .. }
            | Effect::LookUp { .. }
            | Effect::JoinTopic { .. }
            | Effect::LeaveTopic { .. }
            | Effect::Dial { .. }
            | Effect::Disconnect { .. }
            | Effect::Stop { .. }
            | Effect::FetchModule { .. } => panic!("a lone node wants {effect:?}"),
        }
    }

    /// Timers ring, each at its instant.
    pub(super) fn pass(&mut self, span: Span) {
        let until = self.now.after(span);
        while let Some((timer, at)) = self.timers.clone().into_iter().min_by_key(|(_, at)| *at)
            && at <= until
        {
            self.timers.remove(&timer);
            self.now = self.now.max(at);
            self.take(Input::Timer(timer));
        }
        self.now = until;
    }

    fn ask(&mut self, request: Request) -> Response {
        self.take(Input::Request { id: RequestId(1), request });
        self.pass(Span(2_000));
        self.answers.pop().expect("an answer")
    }

    pub(super) fn log_of(&self, role: Role) -> LogId {
        let is = |name: &LogName| matches!(name, LogName::Actor { unit, .. } if unit.role == role);
        *self.disk.iter().find(|(_, kept)| is(&kept.name)).expect("a log of this role").0
    }
}

/// A node whose stage has read more than its source's retention keeps, and whose stage's log then lost all
/// but its first records, started anew. With it the first record that the source's log keeps.
fn behind_retention(durability: &str, left: usize) -> (Lone, Seq) {
    let mut node = Lone::deployed(durability, TapBounds::default());
    (0..30).for_each(|n| node.publish(n, 10_000));
    node.pass(Span(30_000));
    let (source, stage) = (node.log_of(Role::Source), node.log_of(Role::Stage));
    let first = node.disk[&source].records[0].seq;
    assert!(first > Seq(10), "retention let go of records before {}", first.0);
    let mut disk = node.disk;
    let lost = disk.get_mut(&stage).unwrap();
    lost.snapshot = None;
    lost.records.truncate(left);
    assert!(matches!(lost.records[0].decode(), Ok(Body::EpochStart(_))));
    (Lone::on(disk, node.now), first)
}

#[test]
fn reader_that_lost_its_tail_behind_retention_goes_on_and_says_so() {
    for (durability, left) in [("memory", 1), ("memory", 3), ("page", 3)] {
        let (mut node, first) = behind_retention(durability, left);
        let source = node.log_of(Role::Source);
        let said = node.reports.iter().find(|report| report.what == "tail_gone").expect("it is reported");
        assert_eq!(said.level, Level::Warn);
        assert!(
            said.detail.contains(&format!("log {source} is read from record {} on", first.0)),
            "{said:?}"
        );
        let kept = node.disk[&source].records.iter().filter(|record| record.seq >= first);
        let with_events = |record: &&Record| matches!(record.decode(), Ok(Body::Append(append)) if !append.events.is_empty());
        let kept: Vec<Seq> = kept.filter(with_events).map(|record| record.seq).collect();
        node.pass(Span(2_000));
        assert_eq!(node.seen, kept, "{durability}, {left} left: what is kept is read, once");
        assert!(node.reports.iter().all(|report| report.level != Level::Error), "{:?}", node.reports);
    }
}

/// On `disk` nothing may be lost, so nothing is passed over.
#[test]
fn reader_on_disk_never_passes_over_what_is_gone() {
    let (mut node, _) = behind_retention("disk", 3);
    node.pass(Span(10_000));
    assert_eq!(node.seen, []);
    let said: Vec<_> = node.reports.iter().filter(|report| report.what == "edge_stopped").collect();
    assert_eq!(said.len(), 1, "said once: {:?}", node.reports);
    assert!(said[0].detail.to_string().contains("are no longer kept"), "{said:?}");
}

/// The node's disk once its pipeline has taken three events, and then the source's log as it was before the
/// last of them: an older copy put back.
fn older_copy(durability: &str) -> (BTreeMap<LogId, Kept>, LogId, Position, Time) {
    let mut node = Lone::deployed(durability, TapBounds::default());
    for n in 0..3 {
        node.publish(n, 10);
    }
    let source = node.log_of(Role::Source);
    let mut disk = node.disk;
    let records = &mut disk.get_mut(&source).unwrap().records;
    let newest = records.last().map(Record::position).unwrap();
    let kept = records
        .iter()
        .rposition(|record| matches!(record.decode(), Ok(Body::Append(append)) if !append.events.is_empty()));
    records.truncate(kept.unwrap());
    (disk, source, newest, node.now)
}

#[test]
fn folder_that_lacks_what_its_own_readers_read_stops_and_says_so() {
    let (disk, source, newest, now) = older_copy("disk");
    let before = disk[&source].records.len();
    let mut node = Lone::on(disk, now);
    let said = node.said("folder_outdated");
    assert_eq!(said.len(), 1, "{:?}", node.reports);
    assert_eq!(said[0].level, Level::Error);
    let upto = format!("the log of 'in' of 'p' up to record {}", newest.seq.0);
    assert!(said[0].detail.contains(&upto), "{said:?}");
    match node.offer(9, 10) {
        Response::Failed(fault) => assert!(fault.detail.contains("older copy"), "{fault:?}"),
        other => panic!("{other:?}"),
    }
    let appended = node.disk[&source].records[before..].iter().map(|record| record.decode().unwrap());
    assert!(appended.clone().all(|body| matches!(body, Body::EpochStart(_))), "no event enters");
    assert_eq!(node.seen, [], "and none is worked on");
    match node.ask(Request::Status) {
        Response::Status(status) => assert!(status.troubles[0].contains("older copy"), "{status:?}"),
        other => panic!("{other:?}"),
    }
    assert!(node.said("tail_lost").is_empty(), "nobody falls back to another history");
}

#[test]
fn where_a_tail_may_be_lost_an_older_copy_is_a_lost_tail() {
    let (disk, _, _, now) = older_copy("page");
    let mut node = Lone::on(disk, now);
    assert_eq!((node.said("folder_outdated").len(), node.said("tail_lost").len()), (0, 1));
    assert!(matches!(node.offer(9, 10), Response::Published { .. }));
}

/// What another node's reader says of this node's source log, as soon as they are connected.
fn told_by_another(disk: BTreeMap<LogId, Kept>, now: Time, log: LogId, at: Position) -> Lone {
    let mut node = Lone::settling(disk, now, TapBounds::default(), true);
    let other = NodeId([9; 32]);
    node.take(Input::Connected { node: other });
    let message = Message::Subscribe {
        edge: EdgeId(1),
        log,
        reader: Some(LogId([5; 16])),
        filter: Filter { outputs: vec![0], slots: SlotRange::ALL },
        from: From::After(at),
        committed: at,
        credit: 1_000,
    };
    node.take(Input::Message { from: other, message });
    node.pass(Span(12_000));
    node
}

#[test]
fn folder_is_stopped_before_it_opens_when_a_reader_is_there() {
    for durability in ["disk", "page", "memory"] {
        let (disk, source, newest, now) = older_copy(durability);
        // In every class the number of an epoch is synced before anything is written in it.
        let at = match durability {
            "disk" => newest,
            _ => Position { epoch: Epoch(newest.epoch.0 + 1), ..newest },
        };
        let before = disk[&source].records.len();
        let node = told_by_another(disk, now, source, at);
        assert_eq!(node.said("folder_outdated").len(), 1, "{durability}");
        assert_eq!(node.disk[&source].records.len(), before, "{durability}: not even an epoch begins");
        let refused = Message::Refused { edge: EdgeId(1), why: Refusal::Diverged };
        assert!(node.sent.iter().any(|(_, message)| *message == refused), "{:?}", node.sent);
    }
}

#[test]
fn reader_that_stands_where_the_log_ends_is_served() {
    let mut node = Lone::deployed("disk", TapBounds::default());
    node.publish(1, 10);
    let source = node.log_of(Role::Source);
    let end = node.disk[&source].records.last().map(Record::position).unwrap();
    let node = told_by_another(node.disk, node.now, source, end);
    assert!(node.said("folder_outdated").is_empty());
    let subscribed = |message: &Message| matches!(message, Message::Subscribed { at, .. } if *at == end);
    assert!(node.sent.iter().any(|(_, message)| subscribed(message)), "{:?}", node.sent);
}
