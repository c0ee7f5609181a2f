use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::effect::{CallId, Input, Invoked, Outcome, RecoveredLog, RequestId, Timer};
use crate::event::Event;
use crate::id::{Position, Seq};
use crate::log::record::{Emitted, Parked, Record};
use crate::mesh::catalog::{LogName, NodeFacts};
use crate::peer::{PeerConfig, TapBounds};
use crate::pipeline::manifest::Manifest;
use crate::rpc::{FaultKind, ProducerRange, Publish, Request, Response};
use crate::time::{Span, Time};

const BASE: &str = "name = 'p'
[source.in]
[stage.some]
from = ['in']
filter = 'event.v > 1'
[sink.out]
from = ['some']
stdout = {}
";

type Bodies = fn(&Body) -> bool;

/// A lone node with a disk that takes everything at once, unless a test says otherwise.
struct Lone {
    peer: Peer,
    now: Time,
    disk: BTreeMap<LogId, (LogName, Vec<Record>)>,
    inputs: VecDeque<Input>,
    timers: BTreeMap<Timer, Time>,
    answers: Vec<Response>,
    requests: u64,
    /// The disk refuses what holds such a body.
    refuses: Option<Bodies>,
    /// The node dies before such a body is written; what it still wants done is lost.
    dies_before: Option<Bodies>,
    dead: bool,
    /// Functions do not answer.
    holds_calls: bool,
    held: Vec<(LogId, CallId, Arc<Vec<Invoked>>)>,
    hosted: Vec<Arc<ActorSpec>>,
    unhosted: BTreeSet<LogId>,
}

fn config(generation: u64) -> PeerConfig {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    PeerConfig {
        key,
        generation,
        seed: 1,
        facts: NodeFacts::default(),
        mesh: "m".into(),
        joined: false,
        taps: TapBounds::default(),
        gossip: crate::peer::GossipBounds::default(),
    }
}

impl Lone {
    fn new() -> Lone {
        let mut lone = Lone {
            peer: Peer::new(config(1)),
            now: Time(1_000_000),
            disk: BTreeMap::new(),
            inputs: VecDeque::new(),
            timers: BTreeMap::new(),
            answers: Vec::new(),
            requests: 0,
            refuses: None,
            dies_before: None,
            dead: false,
            holds_calls: false,
            held: Vec::new(),
            hosted: Vec::new(),
            unhosted: BTreeSet::new(),
        };
        lone.give(Input::Start);
        lone.pass(3_000);
        lone
    }

    /// A process that died comes back to its disk.
    fn restart(&mut self) {
        self.peer = Peer::new(config(self.now.0));
        self.inputs.clear();
        self.timers.clear();
        self.hosted.clear();
        (self.dead, self.dies_before) = (false, None);
        for (log, (name, records)) in self.disk.clone() {
            let head = records.last().map_or(Position::START, Record::position);
            let bytes = records.iter().map(|record| record.body.len() as u64).sum();
            let found =
                RecoveredLog { name, head, first: Seq(1), snapshot: None, bytes, damage: None, noted: None };
            self.inputs.push_back(Input::Recovered(found));
            self.inputs.push_back(Input::Replay { log, records });
        }
        self.give(Input::Start);
        self.pass(3_000);
    }

    fn give(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut effects = Effects::new();
            self.peer.handle(self.now, input, &mut effects);
            for effect in effects {
                if !self.dead {
                    self.carry_out(effect);
                }
            }
            if self.dead {
                self.inputs.clear();
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::CreateLog { log, name } => {
                assert!(self.disk.insert(log, (name, Vec::new())).is_none(), "a log is created twice");
            }
            Effect::Persist { log, records, .. } => self.persist(log, records),
            Effect::Host { actor, spec, .. } => {
                self.hosted.push(spec);
                self.inputs.push_back(Input::Hosted { actor, outcome: Ok(()) });
            }
            Effect::Unhost { actor } => {
                self.unhosted.insert(actor);
            }
            Effect::Invoke { actor, call, batch, .. } => match self.holds_calls {
                true => self.held.push((actor, call, batch)),
                false => self.inputs.push_back(returned(actor, call, &batch)),
            },
            Effect::SetTimer { timer, at } => {
                self.timers.insert(timer, at);
            }
            Effect::Answer { response, .. } => self.answers.push(response),
            Effect::RemoveLog { log } => {
                self.disk.remove(&log);
            }
            Effect::Read { .. }
            | Effect::Snapshot { .. }
            | Effect::Truncate { .. }
            | Effect::WriteAnew { .. }
            | Effect::Apply { .. }
            | Effect::Discard { .. }
            | Effect::LookUp { .. }
            | Effect::Send { .. }
            | Effect::Dial { .. }
            | Effect::Disconnect { .. }
            | Effect::JoinTopic { .. }
            | Effect::LeaveTopic { .. }
            | Effect::Broadcast { .. }
            | Effect::Stop { .. }
            | Effect::FetchModule { .. }
            | Effect::StartConnector { .. }
            | Effect::StopConnector { .. }
            | Effect::Report(_) => {}
        }
    }

    fn persist(&mut self, log: LogId, records: Vec<Record>) {
        let holds = |bodies: Option<Bodies>| {
            let decoded = records.iter().filter_map(|record| record.decode().ok());
            bodies.is_some_and(|bodies| decoded.into_iter().any(|body| bodies(&body)))
        };
        if holds(self.dies_before) {
            self.dead = true;
            return;
        }
        let Some(first) = records.first().map(|record| record.seq) else { return };
        if holds(self.refuses) {
            let why = "no space left".into();
            return self.inputs.push_back(Input::PersistFailed { log, seq: first, full: true, why });
        }
        let kept = &mut self.disk.get_mut(&log).expect("it was created").1;
        for record in records {
            let head = kept.last().map_or(Position::START, Record::position);
            assert_eq!((record.seq, record.previous), (head.seq.next(), head.hash), "{log}");
            assert!(
                !kept.last().is_some_and(|last| matches!(last.decode(), Ok(Body::Close { .. }))),
                "it is closed"
            );
            self.inputs.push_back(Input::Persisted { log, seq: record.seq });
            kept.push(record);
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.after(Span(ms));
        while let Some((timer, at)) =
            self.timers.iter().map(|(timer, at)| (timer.clone(), *at)).min_by_key(|(_, at)| *at)
        {
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            self.timers.remove(&timer);
            self.give(Input::Timer(timer));
        }
        self.now = until;
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        self.give(Input::Request { id: RequestId(self.requests), request });
    }

    fn deploy(&mut self, text: &str) {
        self.ask(Request::Deploy { manifest: Manifest::from_toml(text, "p.toml").unwrap() });
        self.pass(2_000);
    }

    fn publish(&mut self, numbers: core::ops::RangeInclusive<u64>, log: Option<LogId>) {
        let sequences: Vec<u64> = numbers.clone().collect();
        let events = sequences.iter().map(|n| Event {
            key: bytes::Bytes::new(),
            time: Time(*n),
            headers: Vec::new(),
            payload: bytes::Bytes::from(format!("{{\"v\":{n}}}")),
        });
        let producer = ProducerRange {
            producer: "one".parse().unwrap(),
            first: *numbers.start(),
            last: *numbers.end(),
            sequences: sequences.clone(),
        };
        let publish = Publish {
            pipeline: "p".parse().unwrap(),
            source: "in".parse().unwrap(),
            producer: Some(producer),
            log,
            events: events.collect(),
        };
        self.ask(Request::Publish(publish));
        self.pass(1_000);
    }

    /// What the logs of a unit hold, oldest log first, a word for each record that moves events.
    fn shown(&self, unit: &str) -> Vec<Vec<String>> {
        let logs: Vec<&(LogName, Vec<Record>)> = self
            .disk
            .values()
            .filter(|(name, _)| matches!(name, LogName::Actor { unit: of, .. } if format!("{:?} {}", of.role, of.name) == unit))
            .collect();
        let ends_in = |records: &[Record]| match records.last().and_then(|record| record.decode().ok()) {
            Some(Body::Close { successor }) => Some(successor),
            _ => None,
        };
        let followed: BTreeSet<LogId> = logs.iter().filter_map(|(_, records)| ends_in(records)).collect();
        let mut at = logs.iter().find(|(name, _)| !followed.contains(&name.id()));
        let mut shown = Vec::new();
        while let Some((_, records)) = at {
            shown.push(records.iter().filter_map(word).collect());
            let next = ends_in(records);
            at = logs.iter().find(|(name, _)| Some(name.id()) == next);
        }
        assert_eq!(shown.len(), logs.len(), "one way through all of them");
        shown
    }

    fn events_out(&self) -> Vec<Time> {
        let mut out: Vec<Time> = Vec::new();
        for (name, records) in self.disk.values() {
            if matches!(name, LogName::Actor { unit, .. } if unit.role == Role::Behind) {
                for body in records.iter().filter_map(|record| record.decode().ok()) {
                    if let Body::Commit(commit) = body {
                        out.extend(commit.emitted.iter().map(|emitted| emitted.event.time));
                    }
                }
            }
        }
        out.sort();
        out
    }
}

fn returned(actor: LogId, call: CallId, batch: &[Invoked]) -> Input {
    let emitted = batch.iter().map(|one| Emitted { output: 0, event: one.placed.event.clone() });
    Input::Returned { actor, call, outcome: Ok(Outcome { emitted: emitted.collect(), ..Outcome::default() }) }
}

fn word(record: &Record) -> Option<String> {
    Some(match record.decode().unwrap() {
        Body::EpochStart(_) => "epoch".into(),
        Body::Append(append) if append.events.is_empty() => return None,
        Body::Append(append) => format!("append {}", append.events.len()),
        Body::Commit(commit) if commit.events_in == 0 => return None,
        Body::Commit(commit) => format!("commit {}", commit.events_in),
        Body::Close { .. } => "close".into(),
        Body::Inherit(_) => "inherit".into(),
        Body::Catalog { .. } => "fact".into(),
    })
}

fn changed(to: u64) -> String {
    BASE.replace("event.v > 1", &format!("event.v > {to}"))
}

fn begun() -> Lone {
    let mut lone = Lone::new();
    lone.deploy(BASE);
    lone.publish(1..=3, None);
    lone
}

#[track_caller]
fn check(lone: &Lone, unit: &str, expect: &[&[&str]]) {
    assert_eq!(lone.shown(unit), expect, "{unit}");
}

#[test]
fn a_changed_stage_closes_its_log_and_the_next_one_begins_with_what_it_knew() {
    let mut lone = begun();
    lone.deploy(&changed(2));
    assert!(matches!(lone.answers.last(), Some(Response::Deployed { changed: true, .. })));
    lone.publish(4..=5, None);
    check(&lone, "Behind in", &[&["epoch", "commit 3", "close"], &["epoch", "inherit", "commit 2"]]);
    check(&lone, "Source in", &[&["epoch", "append 3", "append 2"]]);
    assert_eq!(lone.shown("Sink out").len(), 1, "an unchanged reader goes on, across the close");
    assert_eq!(lone.events_out().len(), 5);
    lone.deploy(&changed(2));
    assert!(matches!(lone.answers.last(), Some(Response::Deployed { changed: false, .. })));
}

#[test]
fn a_changed_source_hands_its_producers_over_and_the_old_name_still_leads_there() {
    let mut lone = begun();
    let Some(Response::Published { log, .. }) = lone.answers.last().cloned() else { panic!() };
    lone.deploy(&BASE.replace("[source.in]", "[source.in]\nlateness = '1s'"));
    // A gap, a repetition that names the closed log, and what comes next.
    lone.publish(5..=6, None);
    assert!(
        matches!(lone.answers.last(), Some(Response::Failed(fault)) if fault.kind == FaultKind::Conflict)
    );
    lone.publish(2..=3, Some(log));
    assert!(matches!(lone.answers.last(), Some(Response::Published { acknowledged: 2, last: 3, .. })));
    lone.publish(3..=4, Some(log));
    check(&lone, "Source in", &[&["epoch", "append 3", "close"], &["epoch", "inherit", "append 1"]]);
    assert_eq!(lone.events_out().len(), 4);
}

#[test]
fn a_crash_before_the_close_or_behind_it_changes_nothing() {
    let points: [Bodies; 4] = [
        |body| matches!(body, Body::Close { .. }),
        |body| matches!(body, Body::Inherit(_)),
        |body| matches!(body, Body::Commit(commit) if commit.events_in == 2),
        |body| matches!(body, Body::Catalog { .. }),
    ];
    for dies_before in points {
        let mut lone = begun();
        lone.dies_before = Some(dies_before);
        lone.deploy(&changed(2));
        lone.publish(4..=5, None);
        lone.restart();
        // Of a revision that never stood nothing remains.
        lone.deploy(&changed(2));
        lone.publish(4..=5, None);
        assert_eq!(lone.events_out().len(), 5);
        let shown = lone.shown("Behind in");
        let last = |log: &Vec<String>| log.last().cloned().unwrap();
        assert_eq!((shown.len(), last(&shown[0])), (2, "close".into()));
        assert_eq!(shown[1].iter().filter(|word| *word == "inherit").count(), 1);
    }
}

#[test]
fn a_closed_log_is_served_but_never_written_again() {
    let mut lone = begun();
    lone.deploy(&changed(2));
    for _ in 0..3 {
        lone.restart();
    }
    lone.publish(4..=5, None);
    assert_eq!(lone.shown("Behind in")[0], ["epoch", "commit 3", "close"]);
    assert_eq!(lone.events_out().len(), 5);
}

#[test]
fn a_commit_under_way_is_finished_before_the_log_is_closed() {
    let mut lone = begun();
    lone.holds_calls = true;
    lone.publish(4..=5, None);
    lone.deploy(&changed(2));
    assert_eq!(lone.shown("Behind in"), [["epoch", "commit 3"]]);
    lone.holds_calls = false;
    for (actor, call, batch) in core::mem::take(&mut lone.held) {
        lone.give(returned(actor, call, &batch));
    }
    lone.pass(2_000);
    check(&lone, "Behind in", &[&["epoch", "commit 3", "commit 2", "close"], &["epoch", "inherit"]]);
    assert_eq!(lone.events_out().len(), 5);
}

#[test]
fn a_disk_that_refuses_the_close_or_what_follows_it_is_asked_again() {
    let refusals: [Bodies; 2] =
        [|body| matches!(body, Body::Close { .. }), |body| matches!(body, Body::Inherit(_))];
    for refuses in refusals {
        let mut lone = begun();
        lone.refuses = Some(refuses);
        lone.deploy(&changed(2));
        lone.publish(4..=5, None);
        assert_eq!(lone.events_out().len(), 3, "nobody is at work meanwhile");
        lone.refuses = None;
        lone.pass(2_000);
        assert_eq!(lone.events_out().len(), 5);
        assert_eq!(lone.shown("Behind in").len(), 2);
    }
}

#[test]
fn what_cannot_be_changed_is_refused_and_nothing_moves() {
    let mut lone = begun();
    lone.deploy(&BASE.replace("[source.in]", "[source.in]\nkey = 'v'"));
    let Some(Response::Failed(fault)) = lone.answers.last() else { panic!() };
    assert_eq!(fault.kind, FaultKind::Invalid);
    assert!(fault.detail.contains("the living source 'in' has no key"), "{}", fault.detail);
    assert_eq!(lone.shown("Behind in").len(), 1);
}

#[test]
fn two_redeploys_while_a_node_sleeps_are_one_step_for_it() {
    let mut lone = begun();
    lone.dies_before = Some(|body| matches!(body, Body::Close { .. }));
    lone.deploy(&changed(2));
    // The revision stands, and another one on top of it before the node gets to close anything.
    lone.refuses = Some(|body| matches!(body, Body::Close { .. }));
    lone.restart();
    lone.deploy(&changed(3));
    lone.refuses = None;
    lone.pass(3_000);
    lone.publish(4..=5, None);
    check(&lone, "Behind in", &[&["epoch", "commit 3", "epoch", "close"], &["epoch", "inherit", "commit 2"]]);
    let spec = lone.hosted.iter().rev().find(|spec| matches!(spec.chain.head, Head::Pass)).unwrap();
    assert!(format!("{:?}", spec.chain.steps).contains("event.v > 3"));
}

#[test]
fn a_removed_stage_stops_and_its_log_stays_until_the_pipeline_goes() {
    let mut lone = begun();
    lone.deploy(&BASE.replace("[sink.out]\nfrom = ['some']\nstdout = {}\n", ""));
    assert!(matches!(lone.answers.last(), Some(Response::Deployed { changed: true, .. })));
    assert_eq!(lone.shown("Sink out").len(), 1);
    let sink = lone.hosted.iter().find(|spec| matches!(spec.chain.head, Head::Sink { .. })).unwrap();
    assert!(lone.unhosted.contains(&sink.name.id()));
    lone.ask(Request::Remove { pipeline: "p".parse().unwrap() });
    lone.pass(2_000);
    assert!(lone.disk.values().all(|(name, _)| matches!(name, LogName::Catalog(_))));
}

#[test]
fn what_waits_of_a_stream_that_is_no_input_any_more_goes_on_waiting() {
    let manifest = |from: &str| {
        let text = BASE.replace("from = ['some']", from);
        Manifest::from_toml(&text, "p.toml").unwrap()
    };
    let unit = |manifest: &Manifest| {
        let plan = crate::pipeline::plan::Plan::of(manifest);
        plan.units.into_iter().find(|unit| unit.id.role == Role::Sink).unwrap()
    };
    let (old, new) = (unit(&manifest("from = ['in', 'some']")), unit(&manifest("from = ['some']")));
    let parked = |input: u16| Parked {
        id: crate::id::EventId {
            log: LogId([1; 16]),
            epoch: crate::id::Epoch(1),
            seq: Seq(1),
            index: u32::from(input),
        },
        input,
        event: Event { key: Default::default(), time: Time(1), headers: vec![], payload: Default::default() },
        attempts: 1,
        due: Time(2),
        reason: "it trapped".into(),
        replayed: None,
    };
    let mut memory = ActorMemory { parked: vec![parked(0), parked(1)], ..ActorMemory::default() };
    rewire_memory(&mut memory, &old, &new);
    assert_eq!(memory.parked.iter().map(|parked| parked.input).collect::<Vec<_>>(), [0, 0]);
    assert!(memory.dead.is_empty());
}
