use dunlin_protocol::event::Placed;
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq};
use dunlin_protocol::pipeline::manifest::Manifest;
use dunlin_protocol::pipeline::plan::{Plan, Role};

use super::*;
use crate::memory_state::MemoryState;
use crate::operator::Handled;

fn chain(text: &str, role: Role) -> Chain {
    let plan = Plan::of(&Manifest::from_toml(&format!("name = 'p'\n{text}"), "p.toml").unwrap());
    plan.units.into_iter().find(|unit| unit.id.role == role).unwrap().chain
}

fn batch(payloads: &[&str]) -> Vec<Invoked> {
    let invoked = |(index, payload): (usize, &&str)| {
        let id = EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index: index as u32 };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let event = Event { key: Bytes::from("k"), time: Time(5), headers: Vec::new(), payload };
        Invoked { input: 0, step: None, placed: Placed { id, event } }
    };
    payloads.iter().enumerate().map(invoked).collect()
}

/// `stream[ by field] key payload` for each emitted event, then the failures.
#[track_caller]
fn check(
    chain: &Chain,
    head: Option<Box<dyn Operator>>,
    payloads: &[&str],
    emitted: &[&str],
    failed: &[&str],
) {
    let mut runner = ChainRunner::new(chain, head).unwrap();
    let outcome = runner.run(&batch(payloads), Time(9), &mut MemoryState::new()).unwrap();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let got: Vec<String> = outcome
        .emitted
        .iter()
        .map(|emitted| {
            let output = &chain.outputs[emitted.output as usize];
            let by = output.rekeyed.as_ref().map(|field| format!(" by {field}")).unwrap_or_default();
            format!("{}{by} {} {}", output.stream, text(&emitted.event.key), text(&emitted.event.payload))
        })
        .collect();
    assert_eq!(got, emitted);
    let got: Vec<String> = outcome
        .failed
        .iter()
        .map(|failed| {
            assert_eq!(failed.again, Again::Never);
            let event = failed.refused.as_ref();
            let event = event.map_or("its own".to_owned(), |refused| text(&refused.event.payload));
            format!("{} {} {}: {event}", failed.index, failed.stage, failed.reason)
        })
        .collect();
    assert_eq!(got, failed);
}

const DIAMOND: &str = "
    [source.s]
    [stage.low]
    from = ['s']
    filter = 'event.v < 10'
    [stage.half]
    from = ['low']
    map = { v = 'event.v / 2.0', id = 'event.id' }
    [stage.both]
    from = ['s', 'half']
    filter = 'event.v > 2'
    [stage.keyed]
    from = ['both']
    key = 'id'
    learn = { label = 'v' }";

#[test]
fn an_event_reaches_every_output_that_it_should_in_order() {
    check(
        &chain(DIAMOND, Role::Behind),
        None,
        &[r#"{"v":3,"id":"a"}"#, r#"{"v": 20, "id": 7}"#, r#"{"v":8,"id":"b"}"#],
        &[
            r#"low k {"v":3,"id":"a"}"#,
            r#"half k {"v":1.5,"id":"a"}"#,
            r#"both k {"v":3,"id":"a"}"#,
            r#"both by id a {"v":3,"id":"a"}"#,
            r#"both k {"v": 20, "id": 7}"#,
            r#"both by id 7 {"v": 20, "id": 7}"#,
            r#"low k {"v":8,"id":"b"}"#,
            r#"half k {"v":4.0,"id":"b"}"#,
            r#"both k {"v":8,"id":"b"}"#,
            r#"both k {"v":4.0,"id":"b"}"#,
            r#"both by id b {"v":8,"id":"b"}"#,
            r#"both by id b {"v":4.0,"id":"b"}"#,
        ],
        &[],
    );
}

#[test]
fn a_failing_event_leaves_its_neighbours_alone() {
    check(
        &chain(DIAMOND, Role::Behind),
        None,
        &["{}", r#"{"v":5,"id":null}"#, "no json", r#"{"v":1,"id":"c"}"#],
        &[
            r#"low k {"v":5,"id":null}"#,
            r#"half k {"v":2.5,"id":null}"#,
            r#"both k {"v":5,"id":null}"#,
            r#"both k {"v":2.5,"id":null}"#,
            r#"low k {"v":1,"id":"c"}"#,
            r#"half k {"v":0.5,"id":"c"}"#,
        ],
        &[
            "0 low the expression `event.v < 10` failed: there is no field 'v': {}",
            "0 both the expression `event.v > 2` failed: there is no field 'v': {}",
            "1 keyed the event cannot get its key: its key field 'id' is null: {\"v\":5,\"id\":null}",
            "1 keyed the event cannot get its key: its key field 'id' is null: {\"v\":2.5,\"id\":null}",
            "2 low the payload is not JSON (expected ident at line 1 column 2): no json",
            "2 both the payload is not JSON (expected ident at line 1 column 2): no json",
        ],
    );
}

/// Emits every event twice on its main output and once on the side, and fails those of key `bad`.
struct Doubling;

impl Operator for Doubling {
    fn handle(&mut self, batch: &[Invoked], _: Time, state: &mut dyn State) -> Result<Handled, CallError> {
        let mut handled = Handled::default();
        for (index, invoked) in batch.iter().enumerate() {
            let event = invoked.placed.event.clone();
            state.put(&event.key, event.payload.clone());
            let cause = index as u32;
            if event.payload == "{}" {
                let (stage, reason) = ("head".to_owned(), "empty".to_owned());
                handled.failed.push(FailedEvent {
                    index: cause,
                    refused: None,
                    stage,
                    reason,
                    again: Again::Never,
                });
                continue;
            }
            handled.emitted.push(FromHead { cause, side: None, event: event.clone() });
            handled.emitted.push(FromHead { cause, side: Some(0), event: event.clone() });
            handled.emitted.push(FromHead { cause, side: None, event });
        }
        Ok(handled)
    }

    fn forget(&mut self) {}
}

#[test]
fn steps_follow_the_heads_main_and_side_outputs() {
    let learning = chain(
        "[source.s]
        [stage.l]
        from = ['s']
        learn = { label = 'v' }
        [stage.main]
        from = ['l']
        filter = 'event.v > 1'
        [stage.side]
        from = ['l.scores']
        map = { w = 'event.v' }",
        Role::Stage,
    );
    check(
        &learning,
        Some(Box::new(Doubling)),
        &[r#"{"w":1}"#, "{}", r#"{"v":2}"#],
        &[
            r#"l k {"w":1}"#,
            r#"l.scores k {"w":1}"#,
            r#"l k {"w":1}"#,
            r#"l k {"v":2}"#,
            r#"main k {"v":2}"#,
            r#"l.scores k {"v":2}"#,
            r#"side k {"w":2}"#,
            r#"l k {"v":2}"#,
            r#"main k {"v":2}"#,
        ],
        &[
            "0 main the expression `event.v > 1` failed: there is no field 'v': {\"w\":1}",
            "0 side field 'w': the expression `event.v` failed: there is no field 'v': {\"w\":1}",
            "0 main the expression `event.v > 1` failed: there is no field 'v': {\"w\":1}",
            "1 head empty: its own",
        ],
    );
}

#[test]
fn a_chain_needs_the_head_that_it_names() {
    let behind = chain(DIAMOND, Role::Behind);
    assert!(ChainRunner::new(&behind, Some(Box::new(Doubling))).is_err());
    let source = chain(DIAMOND, Role::Source);
    assert!(ChainRunner::new(&source, None).unwrap_err().contains("runs no function"));
    let stage = chain(DIAMOND, Role::Stage);
    assert_eq!(ChainRunner::new(&stage, None).unwrap_err(), "the function of stage 'keyed' is missing");
    let wrong = chain(&DIAMOND.replace("event.v < 10", "evnt.v < 10"), Role::Behind);
    assert!(ChainRunner::new(&wrong, None).unwrap_err().starts_with("stage 'low': there is no variable"));
}

/// Hands one event to the step that is called `stage` and says where it came out.
#[track_caller]
fn check_replayed(
    chain: &Chain,
    head: Option<Box<dyn Operator>>,
    stage: &str,
    payload: &str,
    emitted: &[&str],
) {
    let mut runner = ChainRunner::new(chain, head).unwrap();
    let step = chain.steps.iter().position(|step| step.stage.as_str() == stage).unwrap();
    let mut state = MemoryState::new();
    let mut batch = batch(&[payload]);
    batch[0].step = Some(step as u16);
    let outcome = runner.run(&batch, Time(9), &mut state).unwrap();
    let outputs = outcome.emitted.iter().map(|emitted| {
        let payload = String::from_utf8_lossy(&emitted.event.payload).into_owned();
        format!("{} {payload}", chain.outputs[usize::from(emitted.output)].stream)
    });
    assert_eq!(outputs.collect::<Vec<_>>(), emitted);
    assert_eq!(state, MemoryState::new(), "the head's work stands: it does not see the event again");
}

#[test]
fn a_replayed_event_enters_at_its_step_alone() {
    let keyed = chain(
        "[source.s]
        [stage.l]
        from = ['s']
        learn = { label = 'v' }
        [stage.one]
        from = ['l']
        filter = 'event.v > 1'
        [stage.behind]
        from = ['one']
        map = { w = 'event.v + 1' }
        [stage.two]
        from = ['l']
        map = { v = 'event.v' }",
        Role::Stage,
    );
    check_replayed(
        &keyed,
        Some(Box::new(Doubling)),
        "one",
        r#"{"v":2}"#,
        &[r#"one {"v":2}"#, r#"behind {"w":3}"#],
    );
    check_replayed(&keyed, Some(Box::new(Doubling)), "two", r#"{"v":2}"#, &[r#"two {"v":2}"#]);
    check_replayed(&keyed, Some(Box::new(Doubling)), "one", r#"{"v":1}"#, &[]);
}

#[test]
fn head_and_steps_share_a_batch() {
    let keyed = chain(
        "[source.s]
        [stage.l]
        from = ['s']
        learn = { label = 'v' }
        [stage.one]
        from = ['l']
        filter = 'event.v > 1'",
        Role::Stage,
    );
    let mut runner = ChainRunner::new(&keyed, Some(Box::new(Doubling))).unwrap();
    let mut batch = batch(&[r#"{"v":2}"#, r#"{"w":2}"#, "{}"]);
    batch[0].step = Some(0);
    let outcome = runner.run(&batch, Time(9), &mut MemoryState::new()).unwrap();
    let failed: Vec<(u32, Option<u16>)> = outcome
        .failed
        .iter()
        .map(|failed| (failed.index, failed.refused.as_ref().map(|at| at.step)))
        .collect();
    assert_eq!(failed, [(1, Some(0)), (1, Some(0)), (2, None)]);
}
