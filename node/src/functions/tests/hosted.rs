//! Whole actors behind `Functions`: staging, panics, snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dunlin_operators::operator::{Handled, Operator, State};
use dunlin_protocol::effect::{ActorSpec, Again, CallError, CallId, Input, Invoked, LookId, Outcome};
use dunlin_protocol::id::{LogId, NodeId, Position, Seq};
use dunlin_protocol::mesh::catalog::{CatalogRef, LogName, Share};
use dunlin_protocol::pipeline::manifest::{Outlet, StreamName, WasmLimits};
use dunlin_protocol::pipeline::plan::{Chain, Feed, Head, Output, Role, UnitId};
use dunlin_protocol::time::Time;

use super::guests::{Memory, NOW, batch, count, position, settings, spec};
use crate::functions::{Engine, Functions, FunctionsSettings, HeadFactory};
use crate::inbox::{Inbox, Inputs};

const ACTOR: LogId = LogId([5; 16]);

/// A mesh of one actor, driven by hand.
struct Stage {
    functions: Functions,
    inputs: Inputs,
    memory: Arc<Memory>,
    calls: u64,
}

impl Stage {
    async fn new(head: Head, heads: HeadFactory) -> Stage {
        let memory = Memory::with_module(&count());
        let (inbox, inputs) = Inbox::new();
        let engine = Engine::new(settings()).unwrap();
        let settings = FunctionsSettings { engine, calls: 2, sink_calls: 2 };
        let functions = Functions::start(settings, memory.ports(), heads, inbox).await.unwrap();
        let mut stage = Stage { functions, inputs, memory, calls: 0 };
        stage.functions.host(ACTOR, actor_spec(head), Position::START);
        assert_eq!(stage.next().await, Input::Hosted { actor: ACTOR, outcome: Ok(()) });
        stage
    }

    async fn counting() -> Stage {
        let spec = spec(&count(), "{}", WasmLimits::default());
        Stage::new(Head::Wasm { stage: "count".parse().unwrap(), spec }, HeadFactory::new(|_| Ok(None))).await
    }

    async fn next(&mut self) -> Input {
        tokio::time::timeout(Duration::from_secs(120), self.inputs.recv()).await.unwrap().unwrap()
    }

    async fn invoke(&mut self, keys: &[&str]) -> Result<Outcome, CallError> {
        self.calls += 1;
        let events: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "{}")).collect();
        self.functions.invoke(ACTOR, CallId(self.calls), Arc::new(batch(&events)), NOW);
        match self.next().await {
            Input::Returned { actor: ACTOR, call, outcome } if call == CallId(self.calls) => outcome,
            other => panic!("{other:?}"),
        }
    }

    async fn look_up(&mut self, key: Option<&str>) -> Vec<(Bytes, Bytes)> {
        let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        self.functions.look_up(ACTOR, LookId(1), key, 10);
        match self.next().await {
            Input::LookedUp { look: LookId(1), entries } => entries,
            other => panic!("{other:?}"),
        }
    }
}

fn actor_spec(head: Head) -> Arc<ActorSpec> {
    let node = NodeId([1; 32]);
    let unit = UnitId { role: Role::Stage, name: "count".parse().unwrap() };
    let born = CatalogRef { node, seq: Seq(1) };
    let name = LogName::Actor {
        pipeline: "p".parse().unwrap(),
        born,
        unit,
        share: Share::Slots { index: 0, of: 1 },
    };
    let stream = StreamName { base: "count".parse().unwrap(), side: None };
    let outputs = vec![Output { stream, from: Feed::Head, rekeyed: None }];
    Arc::new(ActorSpec { name, chain: Chain { head, steps: Vec::new(), outputs }, follows: None })
}

fn pair(key: &'static str, value: &'static str) -> (Bytes, Bytes) {
    (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_state_is_seen_by_calls_and_by_nobody_else_until_applied() {
    let mut stage = Stage::counting().await;
    assert_eq!(stage.invoke(&["a", "a"]).await.unwrap().emitted.len(), 2);
    let second = stage.invoke(&["a", "b"]).await.unwrap();
    let changed: Vec<_> = second.changes.into_iter().map(|c| (c.key, c.value.unwrap())).collect();
    assert_eq!(changed, [pair("a", "3"), pair("b", "1")]);
    assert_eq!(stage.look_up(None).await, []);

    stage.functions.apply(ACTOR, position(1));
    assert_eq!(stage.look_up(None).await, [pair("a", "3"), pair("b", "1")]);
    assert_eq!(stage.look_up(Some("b")).await, [pair("b", "1")]);
    assert_eq!(stage.look_up(Some("c")).await, []);
    assert_eq!(*stage.memory.applied.lock().unwrap(), [position(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_state_was_never_there() {
    let mut stage = Stage::counting().await;
    stage.invoke(&["a"]).await.unwrap();
    stage.functions.apply(ACTOR, position(1));
    stage.invoke(&["a", "a"]).await.unwrap();
    stage.functions.discard(ACTOR);
    let again = stage.invoke(&["a"]).await.unwrap();
    assert_eq!(again.changes[0].value, Some(Bytes::from_static(b"2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_holds_the_state_at_its_position() {
    let mut stage = Stage::counting().await;
    stage.invoke(&["a"]).await.unwrap();
    stage.functions.apply(ACTOR, position(1));
    stage.invoke(&["a"]).await.unwrap();
    stage.functions.snapshot(ACTOR, position(1), Bytes::from_static(b"fold"));
    assert_eq!(stage.next().await, Input::Snapshotted { log: ACTOR, at: position(1), outcome: Ok(()) });
    let written = stage.memory.snapshots.lock().unwrap().clone();
    assert_eq!(written, [(position(1), Bytes::from_static(b"fold"), vec![pair("a", "1")])]);

    stage.functions.snapshot(ACTOR, position(2), Bytes::new());
    let Input::Snapshotted { outcome: Err(why), .. } = stage.next().await else { panic!() };
    assert!(why.contains("stands at 1 and not at 2"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_was_not_applied_is_taken_from_the_log() {
    let mut stage = Stage::counting().await;
    stage.invoke(&["a"]).await.unwrap();
    *stage.memory.broken.lock().unwrap() = Some("no space left".to_owned());
    stage.functions.apply(ACTOR, position(1));
    stage.invoke(&["b"]).await.unwrap();
    assert_eq!(*stage.memory.brought_up.lock().unwrap(), [Position::START, position(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_hosted_says_so() {
    let mut stage = Stage::counting().await;
    let other = LogId([6; 16]);
    let spec = spec(&Bytes::from_static(b"nowhere"), "{}", WasmLimits::default());
    stage.functions.host(
        other,
        actor_spec(Head::Wasm { stage: "s".parse().unwrap(), spec }),
        Position::START,
    );
    let Input::Hosted { outcome: Err(why), .. } = stage.next().await else { panic!() };
    assert!(why.contains("is not on this node"), "{why}");

    stage.functions.unhost(ACTOR);
    let error = stage.invoke(&["a"]).await.unwrap_err();
    assert_eq!(error.again, Again::Later);
    stage.functions.stop().await;
}

/// Stages its call's number under `k`; panics at every third call, counted over all its lives.
struct Fragile(Arc<AtomicUsize>);

impl Operator for Fragile {
    fn handle(&mut self, _: &[Invoked], _: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let mut seen = state.get(b"k").map(|bytes| bytes.to_vec()).unwrap_or_default();
        seen.push(b'0' + number as u8);
        state.put(b"k", Bytes::from(seen));
        assert!(!number.is_multiple_of(3), "the third time is too much");
        Ok(Handled::default())
    }

    fn forget(&mut self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_call_and_nothing_that_was_staged() {
    let calls = Arc::new(AtomicUsize::new(0));
    let heads = HeadFactory::new(move |_| Ok(Some(Box::new(Fragile(calls.clone())))));
    let head = Head::Sink { sink: "s".parse().unwrap(), outlet: Outlet::Stdout };
    let mut stage = Stage::new(head, heads).await;
    stage.invoke(&["a"]).await.unwrap();
    stage.functions.apply(ACTOR, position(1));
    stage.invoke(&["a"]).await.unwrap();

    // The look-up is already behind the call that panics: the next worker answers it.
    stage.functions.invoke(ACTOR, CallId(70), Arc::new(batch(&[("a", "{}")])), NOW);
    stage.functions.look_up(ACTOR, LookId(1), None, 10);
    let Input::Returned { call: CallId(70), outcome: Err(error), .. } = stage.next().await else { panic!() };
    assert_eq!(error.again, Again::Maybe);
    assert!(error.reason.contains("the function host panicked: "), "{}", error.reason);
    assert!(error.reason.contains("the third time is too much"), "{}", error.reason);
    assert_eq!(stage.next().await, Input::LookedUp { look: LookId(1), entries: vec![pair("k", "1")] });

    let outcome = stage.invoke(&["a"]).await.unwrap();
    assert_eq!(outcome.changes[0].value, Some(Bytes::from_static(b"124")));
    stage.functions.apply(ACTOR, position(2));
    assert_eq!(stage.look_up(None).await, [pair("k", "124")]);
    assert_eq!(*stage.memory.brought_up.lock().unwrap(), [Position::START, position(1)]);
}
