//! One guest, one call: what it may do, and how it is stopped.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use dunlin_operators::operator::{Handled, Operator};
use dunlin_protocol::effect::{Again, CallError};
use dunlin_protocol::id::Digest;
use dunlin_protocol::log::record::Observed;
use dunlin_protocol::pipeline::manifest::{Module, WasmLimits, WasmSpec};
use dunlin_protocol::time::Time;
use serde_json::{Value, json};

use super::guests::{ENGINE, Memory, NOW, Plain, batch, clean, count, operator, settings, spec, trouble};
use crate::functions::engine::{Engine, EngineError};
use crate::functions::wasm::WasmOperator;

const SMALL: WasmLimits = WasmLimits { fuel: 50_000_000, memory: 16 << 20 };
const LARGE: WasmLimits = WasmLimits { fuel: 2_000_000_000, memory: 64 << 20 };

fn payloads(handled: &Handled) -> Vec<Value> {
    handled.emitted.iter().map(|from| serde_json::from_slice(&from.event.payload).unwrap()).collect()
}

fn try_trouble(word: &str, limits: WasmLimits) -> (Result<Handled, CallError>, Plain) {
    let mut state = Plain::default();
    let payload = json!({ "do": word }).to_string();
    let events = batch(&[("k", &payload)]);
    let outcome = operator(&ENGINE, &trouble(), "{}", limits).handle(&events, NOW, &mut state);
    (outcome, state)
}

/// The guest is stopped, and the reason holds all of these.
#[track_caller]
fn stopped(word: &str, limits: WasmLimits, again: Again, reasons: &[&str]) {
    let error = try_trouble(word, limits).0.unwrap_err();
    assert_eq!((error.stage.as_str(), error.again), ("stage", again), "{error:?}");
    for reason in reasons {
        assert!(error.reason.contains(reason), "'{reason}' is not in: {}", error.reason);
    }
    assert!(error.reason.len() < 2000, "too long: {}", error.reason);
}

#[track_caller]
fn made(word: &str) -> (Value, Vec<Observed>) {
    let handled = try_trouble(word, LARGE).0.unwrap();
    (payloads(&handled).remove(0), handled.observed)
}

#[test]
fn clean_rounds_and_adds_and_drops() {
    let mut clean = operator(&ENGINE, &clean(), r#"{"currency":"EUR"}"#, WasmLimits::default());
    let fare = |price: &str| {
        format!(r#"{{"flight":"LH801_2019_4_1_8_10","departure":"2019-03-05T23:10:14Z","price":{price}}}"#)
    };
    let (good, null, zero) = (fare("136.2199485"), fare("null"), fare("0"));
    let events = batch(&[("a", &null), ("LH801", &good), ("a", &zero)]);
    let handled = clean.handle(&events, NOW, &mut Plain::default()).unwrap();
    assert_eq!(
        payloads(&handled),
        [json!({
            "flight": "LH801_2019_4_1_8_10", "departure": "2019-03-05T23:10:14Z",
            "price": 136.22, "days_left": 3.5, "carrier": "LH", "currency": "EUR",
        })]
    );
    let [from] = &handled.emitted[..] else { panic!("{handled:?}") };
    assert_eq!((from.cause, from.side, &from.event.key[..]), (1, None, &b"LH801"[..]));
    assert_eq!(from.event.headers, events[1].placed.event.headers);
    assert_eq!(handled.observed, []);

    let error = clean.handle(&batch(&[("a", "[1]")]), NOW, &mut Plain::default()).unwrap_err();
    assert_eq!(error.again, Again::Never);
    assert!(error.reason.starts_with("the function gave up: event "), "{}", error.reason);
}

#[test]
fn count_counts_by_key() {
    let mut state = Plain::default();
    let mut count = operator(&ENGINE, &count(), "{}", WasmLimits::default());
    count.handle(&batch(&[("a", "{}"), ("b", "{}"), ("a", "{}")]), NOW, &mut state).unwrap();
    let handled = count.handle(&batch(&[("a", "{}")]), NOW, &mut state).unwrap();
    assert_eq!(payloads(&handled), [json!({ "key": "a", "count": 3 })]);
    assert_eq!(state.0.get(&b"b"[..]), Some(&Bytes::from_static(b"1")));
}

#[test]
fn a_panic_says_where_and_what() {
    stopped(
        "panic",
        SMALL,
        Again::Maybe,
        &["this guest panics on purpose", "trouble::Trouble", "unreachable"],
    );
}

#[test]
fn endless_work_ends() {
    stopped("loop", SMALL, Again::Maybe, &["its fuel of 50000000", "limits.fuel"]);
    stopped("flood-state", LARGE, Again::Maybe, &["called the host more than"]);
    stopped("recurse", LARGE, Again::Maybe, &["recursion that is too deep", "trouble::recurse"]);
}

#[test]
fn a_call_ends_in_time_whatever_its_fuel() {
    let engine = Engine::new(crate::functions::EngineSettings {
        call_time_max: Duration::from_millis(100),
        ..settings()
    })
    .unwrap();
    let limits = WasmLimits { fuel: u64::MAX / 2, ..SMALL };
    let mut trouble = operator(&engine, &trouble(), "{}", limits);
    let events = batch(&[("k", r#"{"do":"loop"}"#)]);
    let error = trouble.handle(&events, NOW, &mut Plain::default()).unwrap_err();
    assert!(error.reason.contains("ran longer than 0.1 s"), "{}", error.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guest_that_runs_for_long_gives_its_thread_to_others() {
    let call_time_max = Duration::from_secs(3);
    let engine = Engine::new(crate::functions::EngineSettings { call_time_max, ..settings() }).unwrap();
    let limits = WasmLimits { fuel: u64::MAX / 2, ..SMALL };
    let mut trouble = operator(&engine, &trouble(), "{}", limits);
    let (begun, begins) = tokio::sync::oneshot::channel();
    let call = tokio::spawn(async move {
        begun.send(()).unwrap();
        trouble.handle(&batch(&[("k", r#"{"do":"loop"}"#)]), NOW, &mut Plain::default())
    });
    begins.await.unwrap();
    // The runtime's only thread is the guest's at first.
    tokio::spawn(async {}).await.unwrap();
    assert!(!call.is_finished(), "the other one went first");
    assert!(call.await.unwrap().unwrap_err().reason.contains("ran longer than 3 s"));
}

#[test]
fn memory_is_bounded() {
    stopped("eat", SMALL, Again::Maybe, &["more than its 16 MiB of memory", "limits.memory"]);
}

#[test]
fn what_a_call_gives_is_bounded() {
    stopped("big-state", LARGE, Again::Maybe, &["emitted and changed more than"]);
    stopped("big-output", LARGE, Again::Maybe, &["an event may have"]);
    stopped("many-outputs", LARGE, Again::Maybe, &["the function"]);
    stopped("long-state-key", LARGE, Again::Maybe, &["a state key of 4098 bytes, and one may have 4096"]);
    stopped("long-key", LARGE, Again::Maybe, &["a key of 1025 bytes; a key may have 1024"]);
    stopped("end-of-time", LARGE, Again::Maybe, &["behind the year 9999"]);
    stopped("wrong-cause", LARGE, Again::Maybe, &["named event 1000 as a cause"]);
    assert_eq!(made("flood-log").0, json!({}));
}

#[test]
fn only_the_state_of_the_batch_can_be_touched() {
    stopped("other-key", SMALL, Again::Maybe, &["state of 'somebody-else'"]);
    stopped("longer-key", SMALL, Again::Maybe, &["state of 'k0'"]);
    let (outcome, state) = try_trouble("scan", SMALL);
    assert_eq!(payloads(&outcome.unwrap()), [json!({ "found": ["k", "k/a", "k/b"], "left": 2 })]);
    assert_eq!(state.0.len(), 2);
}

#[test]
fn failures_say_whether_to_try_again() {
    stopped("give-up", SMALL, Again::Never, &["gave up: it will never work"]);
    stopped("retry", SMALL, Again::Maybe, &["after 1500 ms: not yet"]);
    stopped("exit", SMALL, Again::Maybe, &["exit status"]);
}

#[test]
fn there_is_no_world_outside() {
    assert_eq!(made("environment").0, json!({ "variables": 0 }));
    assert!(made("file").0["refused"].is_string());
    assert_eq!(made("socket").0, json!({ "refused": true }));
    assert_eq!(made("sleep").0, json!({}));
}

#[test]
fn time_stands_still_and_is_noted() {
    let (now, observed) = made("now");
    assert_eq!(now, json!({ "host": NOW.0, "wasi": NOW.0 }));
    assert_eq!(observed, [Observed::Now(NOW)]);
}

#[test]
fn randomness_is_the_calls_own_and_noted() {
    let ((first, seen), (second, seen_again)) = (made("random"), made("random"));
    assert_eq!((&first, &seen), (&second, &seen_again));
    assert!(matches!(seen[..], [Observed::Random(_)]), "{seen:?}");
    let events = batch(&[("k", r#"{"do":"random"}"#)]);
    let mut trouble = operator(&ENGINE, &trouble(), "{}", LARGE);
    let later = trouble.handle(&events, Time(NOW.0 + 1), &mut Plain::default()).unwrap();
    assert_ne!(payloads(&later), [first]);
}

#[test]
fn two_runs_are_bit_identical() {
    let run = || {
        let engine = Engine::new(settings()).unwrap();
        let mut trouble = operator(&engine, &trouble(), "{}", LARGE);
        let words = ["random", "now", "scan", "nothing"].map(|word| json!({ "do": word }).to_string());
        let events: Vec<(&str, &str)> = words.iter().map(|payload| ("k", payload.as_str())).collect();
        let mut state = Plain::default();
        (trouble.handle(&batch(&events), NOW, &mut state).unwrap(), state)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_full_pool_is_a_wait() {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = operator(&ENGINE, &count(), "{}", WasmLimits::default());
                    count.handle(&batch(&[("a", "{}")]), NOW, &mut Plain::default()).unwrap().emitted.len()
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), 1);
        }
    });
}

#[test]
fn a_damaged_cache_entry_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("of-another-version.cwasm"), b"x").unwrap();
    let engine = || {
        Engine::new(crate::functions::EngineSettings { cache: Some(folder.path().into()), ..settings() })
            .unwrap()
    };
    let works = |engine: &Engine| {
        let mut count = operator(engine, &count(), "{}", WasmLimits::default());
        count.handle(&batch(&[("a", "{}")]), NOW, &mut Plain::default()).unwrap();
    };
    let first = engine();
    works(&first);
    let path = first.cache_path(Digest::of(&count())).unwrap();
    let written = fs::read(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the other version's entry is gone");

    for damage in [0, 40, written.len() / 2, written.len() - 1] {
        let mut bytes = written.clone();
        bytes[damage] ^= 1;
        fs::write(&path, &bytes).unwrap();
        works(&engine());
        assert_eq!(fs::read(&path).unwrap().len(), written.len());
        assert_ne!(fs::read(&path).unwrap(), bytes, "byte {damage}");
    }
    fs::write(&path, &written[..20]).unwrap();
    works(&engine());

    // From the cache, without the module.
    let spec = spec(&count(), "{}", WasmLimits::default());
    WasmOperator::new(&engine(), &"stage".parse().unwrap(), &spec, &Memory::default()).unwrap();
}

#[track_caller]
fn refused(bytes: &'static [u8], stored_as: Option<Digest>, reason: &str) {
    let module = Bytes::from_static(bytes);
    let memory = Memory::default();
    let digest = stored_as.unwrap_or(Digest::of(&module));
    memory.modules.lock().unwrap().insert(digest, module);
    let spec =
        WasmSpec { module: Module::Digest(digest), config: "{}".into(), limits: WasmLimits::default() };
    let error: EngineError =
        WasmOperator::new(&ENGINE, &"stage".parse().unwrap(), &spec, &memory).unwrap_err();
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn what_is_no_function_is_refused_with_a_sentence() {
    refused(b"hello", None, "is no WebAssembly component");
    refused(b"\0asm\x01\0\0\0", None, "build it for wasm32-wasip2");
    refused(b"\0asm\x0d\0\x01\0garbage", None, "does not compile");
    refused(b"\0asm\x0d\0\x01\0", None, "does not fit the world");
    refused(b"x", Some(Digest([1; 32])), "does not have the digest");
}
