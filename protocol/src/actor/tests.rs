//! Actors and source logs by example.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::fold::SourceMemory;
use super::machine::{Action, Actor, Room};
use super::source::{SourceLog, Taken};
use super::upstream::Upstream;
use super::work::{Next, Verdict, Work, backoff};
use crate::edge::reader::Ahead;
use crate::effect::{ActorSpec, Again, CallError, FailedEvent, Invoked, Outcome, Refused, SourceStream};
use crate::event::{Event, Placed};
use crate::id::{Epoch, EventId, Hash, LetterId, LogId, NodeId, Position, Seq};
use crate::limits::{ATTEMPTS_MAX, COMMIT_BYTES_MAX, DEAD_LETTERS_MAX};
use crate::log::record::{Advance, Change, Commit, Emitted, Parked, ParkedId};
use crate::mesh::catalog::LogName;
use crate::pipeline::manifest::{Connector, Source};
use crate::pipeline::plan::{Chain, Feed, Head, Step, StepOperator};
use crate::rpc::{FaultKind, LetterMove, ProducerRange, Publish};
use crate::time::{Span, Time};
use crate::wire::message::{EdgeId, Slice, SliceEvent};

const NOW: Time = Time(50_000);
const UPSTREAM: LogId = LogId([5; 16]);

/// Event number `seq` of the upstream log; its payload is its name, such as `a1`, its key the letter.
fn event(seq: u64, name: &str) -> Invoked {
    let key = name.as_bytes()[..1].to_vec().into();
    let event = Event { key, payload: name.as_bytes().to_vec().into(), ..Event::default() };
    let id = EventId { log: UPSTREAM, epoch: Epoch(1), seq: Seq(seq), index: 0 };
    Invoked { input: 0, step: None, placed: Placed { id, event } }
}

fn names<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a str> {
    events.into_iter().map(|event| core::str::from_utf8(&event.payload).unwrap()).collect()
}

fn work_of(list: &[&str]) -> Work {
    let mut work = Work::default();
    (1..).zip(list).for_each(|(seq, name)| work.take(event(seq, name)));
    work.seal();
    work
}

fn echo(batch: &[Invoked]) -> Outcome {
    let emitted = batch.iter().map(|one| Emitted { output: 0, event: one.placed.event.clone() }).collect();
    Outcome { emitted, ..Outcome::default() }
}

fn trap(again: Again) -> CallError {
    CallError { stage: "s".into(), reason: "trap".into(), again }
}

/// Makes all calls; one with an event of this name traps. Returns how many calls it took.
fn run(work: &mut Work, poison: &str) -> usize {
    let mut calls = 0;
    while let Next::Call(batch) = work.next_call() {
        calls += 1;
        let bad = batch.iter().any(|one| one.placed.event.payload == poison.as_bytes());
        let outcome = if bad { Err(trap(Again::Maybe)) } else { Ok(echo(&batch)) };
        assert_eq!(work.on_returned(outcome, false, NOW), Verdict::GoOn);
    }
    calls
}

#[track_caller]
fn check(list: &[&str], poison: &str, emitted: &[&str], parked: &[&str]) {
    let mut work = work_of(list);
    run(&mut work, poison);
    assert_eq!(names(work.commit.emitted.iter().map(|one| &one.event)), emitted);
    assert_eq!(names(work.commit.parked.iter().map(|one| &one.event)), parked);
    assert_eq!(work.commit.events_in as usize, list.len());
}

#[test]
fn calls_without_a_poison_event_are_one() {
    let mut work = work_of(&["a1", "b1", "c1"]);
    assert_eq!(run(&mut work, "-"), 1);
}

#[test]
fn halves_isolate_a_poison_event() {
    check(&["a1", "b1", "c1", "d1", "e1", "f1"], "d1", &["a1", "b1", "c1", "e1", "f1"], &["d1"]);
}

#[test]
fn later_events_of_a_poison_event_s_key_park_behind_it() {
    check(&["a1", "b1", "a2", "b2", "a3"], "a2", &["a1", "b1", "b2"], &["a2", "a3"]);
}

#[test]
fn call_without_room_in_the_commit_waits_for_the_next_one_and_counts_no_attempt() {
    let large = |batch: &[Invoked]| {
        let mut outcome = echo(batch);
        let change = Change { key: "k".into(), value: Some(alloc::vec![0; COMMIT_BYTES_MAX / 2].into()) };
        outcome.changes.push(change);
        Ok(outcome)
    };
    let mut work = work_of(&["a1", "b1", "a2", "c1"]);
    assert!(matches!(work.next_call(), Next::Call(batch) if batch.len() == 4));
    assert_eq!(work.on_returned(Err(trap(Again::Maybe)), false, NOW), Verdict::GoOn);
    let Next::Call(first) = work.next_call() else { panic!("the first half") };
    assert_eq!(work.on_returned(large(&first), false, NOW), Verdict::GoOn);
    let Next::Call(second) = work.next_call() else { panic!("the second half") };
    assert_eq!(work.on_returned(large(&second), false, NOW), Verdict::CloseEarly);

    let mut work = work.close_early(&[]);
    let Next::Call(again) = work.next_call() else { panic!("what came before") };
    assert_eq!(again, first);
    assert_eq!(work.on_returned(large(&again), false, NOW), Verdict::GoOn);
    assert_eq!(work.next_call(), Next::Commit);
    assert_eq!(names(work.commit.emitted.iter().map(|one| &one.event)), ["a1", "b1"]);
    assert_eq!(names(work.commit.parked.iter().map(|one| &one.event)), ["a2", "c1"]);
    assert!(work.commit.parked.iter().all(|one| (one.attempts, one.due) == (0, Time(0))));
    assert_eq!((work.commit.events_in, work.commit.dead.len()), (4, 0));
}

#[test]
fn parked_event_waits_longer_each_time() {
    let mut work = work_of(&["a1"]);
    run(&mut work, "a1");
    assert_eq!(
        work.commit.parked.first().map(|one| (one.attempts, one.due)),
        Some((1, NOW.after(backoff(1))))
    );
    assert!(backoff(2) > backoff(1));
}

fn parked(attempts: u32) -> Parked {
    let Invoked { input, placed: Placed { id, event }, .. } = event(1, "a1");
    Parked { id, input, event, attempts, due: Time(0), reason: "trap".into(), replayed: None }
}

#[test]
fn attempts_end_in_one_dead_letter() {
    let mut work = Work::default();
    work.retry(&parked(ATTEMPTS_MAX - 1), None);
    work.seal();
    run(&mut work, "a1");
    assert_eq!(work.commit.dead.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [ATTEMPTS_MAX]);
    assert_eq!((work.commit.parked.len(), work.commit.unparked.len()), (0, 1));
}

#[test]
fn event_that_can_never_succeed_dies_at_once() {
    let mut work = work_of(&["a1"]);
    work.next_call();
    work.on_returned(Err(trap(Again::Never)), false, NOW);
    assert_eq!((work.commit.dead.len(), work.commit.parked.len()), (1, 0));
}

#[test]
fn sink_that_refuses_everything_pauses() {
    let refuse = |index| FailedEvent {
        index,
        refused: None,
        stage: "s".into(),
        reason: "no".into(),
        again: Again::Never,
    };
    let mut work = work_of(&["a1", "b1"]);
    work.next_call();
    let all = Outcome { failed: vec![refuse(0), refuse(1)], ..Outcome::default() };
    let Verdict::WaitAndRepeat(why) = work.on_returned(Ok(all), true, NOW) else { panic!("it pauses") };
    assert!(why.contains("every event is refused (no)") && why.contains("goes on by itself"), "{why}");
    let mut work = work_of(&["a1", "b1"]);
    work.next_call();
    let one = Outcome { failed: vec![refuse(0)], ..Outcome::default() };
    assert_eq!(work.on_returned(Ok(one), true, NOW), Verdict::GoOn);
    assert_eq!(names(work.commit.dead.iter().map(|letter| &letter.event)), ["a1"]);
}

#[test]
fn work_begun_anew_keeps_its_order() {
    let list = ["a1", "b1", "a2", "c1"];
    let mut work = work_of(&list);
    work.next_call();
    assert!(matches!(work.on_returned(Err(trap(Again::Later)), true, NOW), Verdict::WaitAndRepeat(_)));
    let mut anew = work.begin_anew(&[]);
    let Next::Call(batch) = anew.next_call() else { panic!("nothing to call") };
    assert_eq!(names(batch.iter().map(|one| &one.placed.event)), list);
    assert_eq!(anew.commit.events_in, 4);
}

fn actor() -> Actor {
    let chain = Chain { head: Head::Pass, steps: vec![], outputs: vec![] };
    let spec = Arc::new(ActorSpec { name: LogName::Catalog(NodeId([1; 32])), chain, follows: None });
    let mut actor = Actor::new(LogId([6; 16]), spec, false);
    actor.upstream.insert(UPSTREAM, Upstream::new(EdgeId(1), BTreeMap::from([(0, 0)])));
    actor.opened(Time(0));
    actor
}

/// The log ends with record `head`, and all of it came.
fn heads(head: u64) -> Ahead {
    Ahead { head: Seq(head), behind: 0 }
}

fn slice(seq: u64, name: &str) -> Slice {
    let event = event(seq, name).placed.event;
    let position = Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash([seq as u8; 16]) };
    Slice { position, events: vec![SliceEvent { index: 0, output: 0, event }], mark: None, closed: None }
}

/// Lets the actor take what waits and its function succeed; returns the commit.
fn commit_of(actor: &mut Actor) -> Commit {
    let actions = actor.step(NOW, Room::All);
    let [Action::Invoke { call, batch }] = actions.as_slice() else { panic!("{actions:?}") };
    match actor.on_returned(*call, Ok(echo(batch)), NOW).pop() {
        Some(Action::Commit(commit)) => commit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_takes_a_commit_only_once_it_stands() {
    let mut actor = actor();
    actor.on_slices(&UPSTREAM, vec![slice(1, "a1"), slice(2, "b1")], heads(2), NOW);
    let commit = commit_of(&mut actor);
    assert_eq!(commit.frontier.iter().map(|advance| advance.to.seq).collect::<Vec<_>>(), [Seq(2)]);
    assert_eq!(actor.memory.position_in(&UPSTREAM), Position::START);
    actor.on_committed();
    assert_eq!(actor.memory.position_in(&UPSTREAM).seq, Seq(2));
}

#[test]
fn actor_holds_one_commit_at_a_time() {
    let mut actor = actor();
    actor.on_slices(&UPSTREAM, vec![slice(1, "a1")], heads(1), NOW);
    commit_of(&mut actor);
    actor.on_slices(&UPSTREAM, vec![slice(2, "a2")], heads(2), NOW);
    assert_eq!(actor.step(NOW, Room::All), []);
    actor.on_committed();
    assert_eq!(commit_of(&mut actor).events_in, 1);
}

#[test]
fn commit_that_did_not_stand_is_appended_again() {
    let mut actor = actor();
    actor.on_slices(&UPSTREAM, vec![slice(1, "a1")], heads(1), NOW);
    let commit = commit_of(&mut actor);
    actor.on_commit_failed("full", NOW);
    assert!(actor.trouble.is_some());
    assert_eq!(actor.step(NOW.after(Span(60_000)), Room::All), [Action::Commit(commit)]);
    actor.on_committed();
    assert_eq!((actor.trouble.as_deref(), actor.lag()), (None, 0));
}

#[test]
fn full_log_takes_no_commit() {
    let mut actor = actor();
    actor.on_slices(&UPSTREAM, vec![slice(1, "a1")], heads(1), NOW);
    assert_eq!(actor.step(NOW, Room::Letters), []);
    assert_eq!(actor.lag(), 1);
}

#[test]
fn frontier_falls_back_with_its_log() {
    let mut actor = actor();
    let at = |seq| Position { epoch: Epoch(1), seq: Seq(seq), hash: Hash([0; 16]) };
    actor
        .memory
        .frontier
        .insert(UPSTREAM, Advance { log: UPSTREAM, to: at(9), watermark: Time(3), idle: false });
    actor.fall_back(&UPSTREAM, at(4));
    assert_eq!(actor.memory.position_in(&UPSTREAM), at(4));
}

#[test]
fn what_waits_of_a_log_that_lost_its_tail_is_taken_up_to_where_it_ended() {
    let mut actor = actor();
    let slices: Vec<Slice> = (1..=4).map(|seq| slice(seq, "a1")).collect();
    let lost = slices[2].weight() + slices[3].weight();
    let ended = slices[1].position;
    actor.on_slices(&UPSTREAM, slices, heads(4), NOW);
    assert_eq!(actor.fall_back(&UPSTREAM, ended), lost);
    assert_eq!(actor.memory.position_in(&UPSTREAM), Position::START, "nothing is committed yet");
    let commit = commit_of(&mut actor);
    assert_eq!(commit.events_in, 2);
    assert_eq!(commit.frontier.last().map(|advance| advance.to), Some(ended));
}

fn source() -> SourceLog {
    let source = Source { key: None, time: None, lateness: Span(100), connector: Connector::Publish };
    let (pipeline, name) = ("p".parse().unwrap(), "in".parse().unwrap());
    let stream = Arc::new(SourceStream { pipeline, name, source, connector: Connector::Publish });
    SourceLog::new(LogId([8; 16]), stream, SourceMemory::default())
}

fn publish(first: u64, last: u64) -> Publish {
    let sequences: Vec<u64> = (first..=last).collect();
    let events = sequences.iter().map(|n| Event { time: Time(n * 1000), ..Event::default() }).collect();
    let producer = Some(ProducerRange { producer: "me".parse().unwrap(), first, sequences, last });
    Publish { pipeline: "p".parse().unwrap(), source: "in".parse().unwrap(), producer, log: None, events }
}

/// Publishes and appends what is taken; returns (events appended, last), or the refusal's sentence.
fn put(source: &mut SourceLog, first: u64, last: u64) -> Result<(usize, u64), alloc::string::String> {
    match source.take(publish(first, last), NOW) {
        Taken::Append { append, last, .. } => {
            source.appended(&append);
            Ok((append.events.len(), last))
        }
        Taken::Known { last, .. } => Ok((0, last)),
        Taken::Refused(fault) => {
            assert_eq!(fault.kind, FaultKind::Conflict);
            Err(fault.detail)
        }
    }
}

#[test]
fn gap_is_refused_with_the_number_expected() {
    let mut source = source();
    assert_eq!(put(&mut source, 1, 3), Ok((3, 3)));
    assert!(put(&mut source, 5, 6).unwrap_err().contains("send from 4 on"));
}

#[test]
fn unknown_producer_begins_at_one() {
    assert!(put(&mut source(), 2, 3).unwrap_err().contains("send from 1 on"));
}

#[test]
fn repetition_is_acknowledged_without_effect() {
    let mut source = source();
    assert_eq!(put(&mut source, 1, 3), Ok((3, 3)));
    assert_eq!(put(&mut source, 1, 3), Ok((0, 3)));
}

#[test]
fn overlap_is_cut() {
    let mut source = source();
    assert_eq!(put(&mut source, 1, 3), Ok((3, 3)));
    assert_eq!(put(&mut source, 2, 5), Ok((2, 5)));
}

/// Acknowledged means kept, by this request or an earlier one.
#[test]
fn what_is_known_is_acknowledged_like_what_is_new() {
    let mut source = source();
    let mut acknowledged = |first, last| match source.take(publish(first, last), NOW) {
        Taken::Append { append, acknowledged, .. } => {
            source.appended(&append);
            acknowledged
        }
        Taken::Known { acknowledged, .. } => acknowledged,
        Taken::Refused(fault) => panic!("{fault:?}"),
    };
    assert_eq!([(1, 3), (1, 3), (2, 3), (2, 6)].map(|(first, last)| acknowledged(first, last)), [3, 3, 2, 5]);
}

#[test]
fn what_did_not_stand_may_be_sent_again() {
    let mut source = source();
    assert_eq!(put(&mut source, 1, 3), Ok((3, 3)));
    source.failed(Seq(1), core::iter::empty());
    assert_eq!(put(&mut source, 1, 3), Ok((3, 3)));
}

#[test]
fn watermark_is_the_newest_time_less_the_lateness_and_never_goes_back() {
    let mut source = source();
    let Taken::Append { append, .. } = source.take(publish(1, 3), NOW) else { panic!("not taken") };
    assert_eq!(append.watermark, Time(2900));
    source.appended(&append);
    let mut older = publish(4, 4);
    older.events.iter_mut().for_each(|event| event.time = Time(1));
    let Taken::Append { append, .. } = source.take(older, NOW) else { panic!("not taken") };
    assert_eq!(append.watermark, Time(2900));
}

// --- dead letters ---

/// Lets an actor whose two fused steps both refuse `a1` commit that.
fn with_two_letters() -> Actor {
    let step = |stage: &str| Step {
        stage: stage.parse().unwrap(),
        from: Feed::Head,
        operator: StepOperator::Filter("true".into()),
    };
    let chain = Chain { head: Head::Pass, steps: vec![step("one"), step("two")], outputs: vec![] };
    let mut actor = actor();
    actor.spec = Arc::new(ActorSpec { name: actor.spec.name.clone(), chain, follows: None });
    actor.on_slices(&UPSTREAM, vec![slice(1, "a1")], heads(1), NOW);
    let actions = actor.step(NOW, Room::All);
    let [Action::Invoke { call, batch }] = actions.as_slice() else { panic!("{actions:?}") };
    let event = batch[0].placed.event.clone();
    let refuse = |step: u16, stage: &str| FailedEvent {
        index: 0,
        refused: Some(Refused { step, event: event.clone() }),
        stage: stage.into(),
        reason: "no".into(),
        again: Again::Never,
    };
    let outcome = Outcome { failed: vec![refuse(0, "one"), refuse(1, "two")], ..Outcome::default() };
    actor.on_returned(*call, Ok(outcome), NOW);
    actor.on_committed();
    actor
}

fn letter(number: u64) -> LetterId {
    LetterId { actor: LogId([6; 16]), number }
}

fn letters(actor: &Actor) -> Vec<(u64, &str)> {
    actor.memory.dead.values().map(|letter| (letter.id.number, letter.stage.as_str())).collect()
}

/// The step at which an event entered, and its name.
type Call = (Option<u16>, String);

/// Carries the actor to rest, its function succeeding; returns what it invoked and what orders gave.
fn rest(actor: &mut Actor) -> (Vec<Call>, Vec<(u64, u64)>) {
    let (mut invoked, mut moved) = (Vec::new(), Vec::new());
    let mut actions: VecDeque<Action> = actor.step(NOW, Room::All).into();
    while let Some(action) = actions.pop_front() {
        match action {
            Action::Invoke { call, batch } => {
                let name = |one: &Invoked| (one.step, names([&one.placed.event]).concat());
                invoked.extend(batch.iter().map(name));
                actions.extend(actor.on_returned(call, Ok(echo(&batch)), NOW));
            }
            Action::Commit(_) => {
                actor.on_committed();
                actions.extend(actor.step(NOW, Room::All));
            }
            Action::LettersMoved { moved: so_many, left, .. } => moved.push((so_many, left)),
            Action::Discard | Action::Wake(_) => {}
        }
    }
    (invoked, moved)
}

#[test]
fn letters_of_one_event_have_names_of_their_own() {
    assert_eq!(letters(&with_two_letters()), [(1, "one"), (2, "two")]);
}

#[test]
fn a_replayed_letter_goes_to_the_step_that_refused_it_and_leaves() {
    let mut actor = with_two_letters();
    actor.order_letters(1, LetterMove::Replay, Some(letter(2)));
    let (invoked, moved) = rest(&mut actor);
    assert_eq!((invoked, moved), (vec![(Some(1), "a1".into())], vec![(1, 0)]));
    assert_eq!(letters(&actor), [(1, "one")]);
    assert!(actor.memory.parked.is_empty());
}

#[test]
fn a_dropped_letter_is_gone_and_nothing_runs() {
    let mut actor = with_two_letters();
    actor.order_letters(1, LetterMove::Drop, None);
    actor.order_letters(2, LetterMove::Drop, Some(letter(1)));
    assert_eq!(rest(&mut actor), (vec![], vec![(2, 0), (0, 0)]));
    assert_eq!((actor.memory.dead.len(), actor.memory.dead_bytes, actor.memory.letters), (0, 0, 2));
}

#[test]
fn a_letter_whose_stage_is_gone_is_a_letter_again() {
    let mut actor = with_two_letters();
    let chain = Chain { head: Head::Pass, steps: vec![], outputs: vec![] };
    actor.spec = Arc::new(ActorSpec { name: actor.spec.name.clone(), chain, follows: None });
    actor.order_letters(1, LetterMove::Replay, Some(letter(1)));
    assert_eq!(rest(&mut actor), (vec![], vec![(1, 0)]));
    assert_eq!(letters(&actor), [(2, "two"), (3, "one")]);
    assert!(actor.memory.dead[&letter(3)].reason.contains("no longer"));
}

#[test]
fn a_replayed_letter_goes_first_of_its_key() {
    let mut actor = with_two_letters();
    actor.memory.parked.push(Parked { due: NOW.after(Span(1)), ..parked(1) });
    actor.order_letters(1, LetterMove::Replay, None);
    rest(&mut actor);
    assert_eq!(actor.memory.parked.len(), 1, "what was parked still waits for its time");
    assert_eq!(letters(&actor), []);
}

#[test]
fn letters_move_while_a_sink_waits_for_its_outside() {
    let mut actor = with_two_letters();
    actor.on_slices(&UPSTREAM, vec![slice(2, "b1")], heads(2), NOW);
    let actions = actor.step(NOW, Room::All);
    let [Action::Invoke { call, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    actor.on_returned(*call, Err(trap(Again::Later)), NOW);
    actor.order_letters(1, LetterMove::Drop, None);
    assert!(matches!(actor.step(NOW, Room::All).first(), Some(Action::Commit(_))));
    actor.on_committed();
    assert_eq!((letters(&actor), actor.lag()), (vec![], 1));
    let actions = actor.step(NOW.after(Span(60_000)), Room::All);
    assert!(actions.iter().any(|action| matches!(action, Action::Invoke { .. })), "{actions:?}");
}

#[test]
fn an_actor_full_of_letters_pauses_until_some_go() {
    let mut actor = with_two_letters();
    let one = actor.memory.dead[&letter(1)].clone();
    for number in 3..=DEAD_LETTERS_MAX as u64 {
        actor.memory.dead.insert(letter(number), one.clone());
    }
    actor.on_slices(&UPSTREAM, vec![slice(2, "b1")], heads(2), NOW);
    let actions = actor.step(NOW, Room::All);
    assert!(!actions.iter().any(|action| matches!(action, Action::Invoke { .. })), "{actions:?}");
    assert!(actor.full.is_some() && actor.trouble.is_some());
    actor.order_letters(1, LetterMove::Drop, Some(letter(2)));
    assert_eq!(rest(&mut actor).0, [(None, "b1".into())]);
    assert_eq!((actor.full, actor.trouble), (None, None));
}

#[test]
fn two_letters_of_one_event_are_parked_apart() {
    let mut actor = with_two_letters();
    actor.order_letters(1, LetterMove::Replay, None);
    let actions = actor.step(NOW, Room::All);
    let [Action::Commit(commit)] = actions.as_slice() else { panic!("{actions:?}") };
    let ids: Vec<ParkedId> = commit.parked.iter().map(Parked::parked_id).collect();
    assert_eq!(ids.iter().map(|id| id.replayed).collect::<Vec<_>>(), [Some(letter(1)), Some(letter(2))]);
    assert_eq!(commit.undead, [letter(1), letter(2)]);
    let (invoked, _) = {
        actor.on_committed();
        rest(&mut actor)
    };
    assert_eq!(invoked, [(Some(0), "a1".into()), (Some(1), "a1".into())]);
}
