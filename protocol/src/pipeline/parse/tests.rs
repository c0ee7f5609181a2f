use alloc::{format, vec};

use super::super::manifest::{AnomalySpec, Horizon};
use super::*;

const WHOLE: &str = r#"
name       = "fare-watch"
durability = "page"
copies     = 1
retention  = { age = "3d", bytes = "1GiB", when_full = "block" }

[source.quotes]
key    = "flight"
time   = "observed_at"
lateness = "2h"

[source.history]
time   = "observed_at"
file   = { path = "fares.csv", pace = "1000x" }

[source.host]
host   = { every = "1s" }

[stage.clean]
from   = ["quotes", "history"]
wasm   = "functions/clean.wasm"
config = { z = "EUR", a = 1.5, nested = [1, true, 2019-03-02T11:10:14Z] }
limits = { fuel = "50M", memory = "64MiB" }

[stage.cheap]
from   = ["clean"]
filter = "event.price < 120.0"

[stage.euro]
from   = ["clean"]
map    = { zebra = "event.flight", eur = "event.price * 0.9" }

[stage.outlook]
from   = ["clean"]
key    = "flight"
learn  = { target = "price", after = "71h", rises_by = 0.05, features = ["price"], interval = 0.8, seed = 7 }

[stage.delay]
from   = ["clean"]
learn  = { label = "arr_delay", label_at = "landed_at", models = ["last_value"] }

[sink.alerts]
from   = ["outlook"]
http   = { url = "http://127.0.0.1:9000/alerts" }

[sink.archive]
from   = ["cheap", "outlook.scores"]
file   = { path = "out.jsonl" }

[sink.screen]
from   = ["cheap"]
stdout = {}

[placement.outlook]
labels = { zone = "edge" }
shares = 8

[stage.load]
from     = ["clean"]
forecast = { target = ["load", "OT"], horizon = 24, interval = 0.8 }

[stage.later]
from     = ["clean"]
key      = "flight"
forecast = { target = "load", horizon = ["3d", "1h"], features = ["price"], models = ["rls"], seed = 3 }
"#;

#[test]
fn the_whole_language_is_read() {
    let manifest = Manifest::from_toml(WHOLE, "fare.toml").unwrap();
    let part = |name: &str| name.parse::<Name>().unwrap();
    assert_eq!(manifest.durability, Durability::Page);
    assert_eq!(manifest.retention.bytes, 1 << 30);
    assert_eq!(manifest.sources[&part("quotes")].lateness, Span::seconds(7200));
    let Connector::File { pace, .. } = &manifest.sources[&part("history")].connector else { panic!() };
    assert_eq!(*pace, Pace::Times(1000));
    let Operator::Wasm(wasm) = &manifest.stages[&part("clean")].operator else { panic!() };
    assert_eq!(wasm.config, r#"{"z":"EUR","a":1.5,"nested":[1,true,"2019-03-02T11:10:14Z"]}"#);
    assert_eq!(wasm.limits, WasmLimits { fuel: 50_000_000, memory: 64 << 20 });
    let Operator::Map(fields) = &manifest.stages[&part("euro")].operator else { panic!() };
    assert_eq!(fields[0].0, "zebra", "fields stand in file order");
    let Operator::Learn(learn) = &manifest.stages[&part("outlook")].operator else { panic!() };
    let after = Span::seconds(71 * 3600);
    let rises_by = Some(F64(0.05));
    let Operator::Forecast(load) = &manifest.stages[&part("load")].operator else { panic!() };
    assert_eq!((&load.targets[..], &load.horizon), (&["load".into(), "OT".into()][..], &Horizon::Steps(24)));
    let Operator::Forecast(later) = &manifest.stages[&part("later")].operator else { panic!() };
    assert_eq!(later.horizon, Horizon::Spans([3600, 3 * 86_400].map(Span::seconds).to_vec()));
    assert_eq!(learn.label, Label::Later { target: "price".into(), after, rises_by });
    assert_eq!(manifest.placement[&part("outlook")].shares, Some(8));
}

#[test]
fn json_gives_the_manifest_back() {
    let mut manifest = Manifest::from_toml(WHOLE, "fare.toml").unwrap();
    for stage in manifest.stages.values_mut() {
        if let Operator::Wasm(wasm) = &mut stage.operator {
            wasm.module = Module::Digest(crate::id::Digest([0xab; 32]));
        }
    }
    let text = manifest.to_json();
    let again = Manifest::from_json(&text).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(again.to_json(), text);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let manifest =
        Manifest::from_toml("name = 'p'\n[source.s]\n[stage.w]\nfrom = ['s']\nwasm = 'w'", "p").unwrap();
    assert_eq!(manifest.durability, Durability::Disk);
    assert_eq!(manifest.retention, Retention::default());
    assert_eq!(manifest.copies, 1);
    let Operator::Wasm(wasm) = &manifest.stages.values().next().unwrap().operator else { panic!() };
    assert_eq!(wasm.config, "{}");
}

/// The example with one piece replaced gives this error.
#[track_caller]
fn wrong(piece: &str, with: &str, expect: &str) {
    assert!(WHOLE.contains(piece), "{piece}");
    let error = Manifest::from_toml(&WHOLE.replacen(piece, with, 1), "fare.toml").unwrap_err();
    assert_eq!(format!("{error}"), expect);
}

#[test]
fn misspellings_get_the_nearest_word() {
    wrong(
        "durability",
        "durabilty ",
        "fare.toml:3:1: the pipeline file has no setting 'durabilty'; did you mean 'durability'?",
    );
    wrong(
        "\"page\"",
        "\"Disc\"",
        "fare.toml:3:14: durability of the pipeline file cannot be 'Disc'; did you mean 'disk'?",
    );
    wrong(
        "[source.host]",
        "[sources.host]",
        "fare.toml:16:2: the pipeline file has no setting 'sources'; did you mean 'source'?",
    );
    wrong(
        "lateness",
        "lateless",
        "fare.toml:10:1: source 'quotes' has no setting 'lateless'; did you mean 'lateness'?",
    );
    wrong(
        "filter =",
        "fliter =",
        "fare.toml:27:1: stage 'cheap' has no setting 'fliter'; did you mean 'filter'?",
    );
    wrong(
        "rises_by",
        "rise_by",
        "fare.toml:36:45: learn of stage 'outlook' has no setting 'rise_by'; did you mean 'rises_by'?",
    );
    wrong(
        "[\"quotes\", \"history\"]",
        "[\"qoutes\"]",
        "fare.toml:20:11: stage 'clean' reads 'qoutes', which does not exist; did you mean 'quotes'?",
    );
    wrong(
        "outlook.scores",
        "outlook.score",
        "fare.toml:47:20: sink 'archive' reads 'outlook.score', which does not exist; did you mean 'outlook.scores'?",
    );
    wrong(
        "[placement.outlook]",
        "[placement.outlok]",
        "fare.toml:54:12: placement 'outlok' names no stage, source or sink; did you mean 'outlook'?",
    );
}

#[test]
fn what_is_not_there_yet_is_said() {
    wrong("copies     = 1", "copies = 3", "fare.toml:4:10: copies = 3 is not there yet; use copies = 1");
    wrong(
        "filter = \"event.price < 120.0\"",
        "window = { tumbling = \"1h\" }",
        "fare.toml:27:1: window (in stage 'cheap') is not there yet; remove it, or wait for a later version",
    );
    wrong(
        "seed = 7",
        "shared = true",
        "fare.toml:36:100: shared (in learn of stage 'outlook') is not there yet; remove it, or wait for a later version",
    );
    wrong(
        "when_full = \"block\"",
        "when_full = \"drop\"",
        "fare.toml:5:44: when_full = \"drop\" is not there yet; use when_full = \"block\"",
    );
}

#[test]
fn each_stage_is_one_thing_in_one_place() {
    wrong(
        "map    =",
        "filter = \"true\"\nmap    =",
        "fare.toml:32:1: stage 'euro' has two operators, filter and map; make it two stages, one behind the other",
    );
    wrong(
        "filter = \"event.price < 120.0\"",
        "",
        "fare.toml:25:8: stage 'cheap' does nothing: it has no operator; add one of filter, map, wasm, learn, forecast, anomaly",
    );
    wrong(
        "from   = [\"quotes\", \"history\"]",
        "from = []",
        "fare.toml:20:8: from of stage 'clean' is empty; write it like from = [\"quotes\"]",
    );
    wrong(
        "from   = [\"quotes\", \"history\"]",
        "from = \"quotes\"",
        "fare.toml:20:8: from of stage 'clean' must be a list of strings, but this is a string; write it like from = [\"quotes\"]",
    );
    wrong(
        "[stage.euro]",
        "[stage.quotes]",
        "fare.toml:29:8: 'quotes' is the name of a source and of a stage; give one of them another name",
    );
    wrong(
        "[stage.euro]",
        "[stage.\"a b\"]",
        "fare.toml:29:8: 'a b' cannot be the name of a stage: it may hold letters, digits, '_' and '-', and begins with a letter or digit; use up to 63 letters, digits, '_' and '-', a letter or digit first",
    );
    wrong(
        "filter = \"event",
        "key = \"flight\"\nfilter = \"event",
        "fare.toml:27:1: stage 'cheap' is a filter stage, which needs no key: events keep the one they have; remove it, or name the key at the wasm, learn, forecast or anomaly stage that reads this one",
    );
    wrong(
        "outlook.scores",
        "clean.scores",
        "fare.toml:47:20: sink 'archive' reads 'clean.scores', but 'clean' is no learn or forecast stage; read 'clean', or the scores of a learn or forecast stage",
    );
    wrong(
        "from   = [\"quotes\", \"history\"]",
        "from   = [\"cheap\"]",
        "fare.toml:26:10: the stages read each other in a circle: cheap reads clean reads cheap; remove one of them from the other's 'from'",
    );
    wrong(
        "[placement.outlook]",
        "[placement.cheap]",
        "fare.toml:54:12: 'cheap' cannot be placed: a filter or map runs inside the actor in front of it; place the wasm, learn, forecast or anomaly stage in front of it, or remove this table",
    );
}

#[test]
fn values_are_checked_where_they_stand() {
    wrong(
        "\"2h\"",
        "\"2 hours\"",
        "fare.toml:10:12: '2 hours' (lateness of source 'quotes') is not a duration; write it like \"500ms\", \"10s\", \"5m\", \"2h\" or \"7d\"",
    );
    wrong(
        "\"1000x\"",
        "\"quick\"",
        "fare.toml:14:39: pace of file of source 'history' cannot be 'quick'; valid here: fast, real, 10x, 1000x",
    );
    wrong(
        "\"64MiB\"",
        "\"9GiB\"",
        "fare.toml:23:35: memory of limits of stage 'clean' is more than the 4GiB that a function can address; use memory = \"64MiB\"",
    );
    wrong(
        "shares = 8",
        "shares = 65",
        "fare.toml:56:10: shares of placement 'outlook' is 65, but it must be 1 to 64; use a number from 1 to 64",
    );
    let long = format!("\"{}\"", "event.v + ".repeat(200));
    wrong(
        "\"event.price < 120.0\"",
        &long,
        "fare.toml:27:10: the expression 'filter' of stage 'cheap' has 2000 bytes, more than the 1024 allowed; split it over two stages, or write a wasm function",
    );
    wrong(
        "name       = \"fare-watch\"",
        "name = fare",
        "fare.toml:2:8: this is not TOML: invalid boolean, expected `false`; strings need quotes: check that line",
    );
    wrong(
        "name       = \"fare-watch\"",
        "name = \"fare-watch\"\nname = \"again\"",
        "fare.toml:3:1: this is not TOML: duplicate key; a key stands once in its table: take one of the two out",
    );
}

#[test]
fn a_forecast_says_what_and_how_far() {
    let load = r#"forecast = { target = ["load", "OT"], horizon = 24, interval = 0.8 }"#;
    wrong(
        load,
        "forecast = { horizon = 24 }",
        "fare.toml:60:1: forecast of stage 'load' needs 'target'; add target = \"load\", or target = [\"load\", \"temperature\"]",
    );
    wrong(
        load,
        "forecast = { target = 'load' }",
        "fare.toml:60:1: forecast of stage 'load' needs 'horizon'; add horizon = 24, or horizon = [\"1h\", \"3d\"]",
    );
    wrong(
        "horizon = 24,",
        "horizon = 193,",
        "fare.toml:60:49: horizon of forecast of stage 'load' is 193, but it must be 1 to 192; use a number from 1 to 192",
    );
    wrong(
        "[\"3d\", \"1h\"]",
        "[\"3d\", \"soon\"]",
        "fare.toml:65:48: 'soon' in horizon of forecast of stage 'later' is no length of time; write spans like horizon = [\"1h\", \"3d\"]",
    );
}

#[test]
fn an_anomaly_has_a_window() {
    let load = r#"forecast = { target = ["load", "OT"], horizon = 24, interval = 0.8 }"#;
    wrong(
        load,
        "anomaly = { windw = 20 }",
        "fare.toml:60:13: anomaly of stage 'load' has no setting 'windw'; did you mean 'window'?",
    );
    wrong(
        load,
        "anomaly = { window = 5 }",
        "fare.toml:60:22: window of anomaly of stage 'load' is 5, but it must be 20 to 10000; use a number from 20 to 10000",
    );
    let right = WHOLE.replace(load, r#"anomaly = { features = ["load", "OT"] }"#);
    let manifest = Manifest::from_toml(&right, "fare.toml").unwrap();
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest.clone()));
    let stage = &manifest.stages[&"load".parse::<Name>().unwrap()];
    let features = Some(vec!["load".into(), "OT".into()]);
    assert_eq!(stage.operator, Operator::Anomaly(AnomalySpec { features, window: 250, seed: 0 }));
}

#[test]
fn json_errors_tell_their_path_or_line() {
    let error = |text: &str| format!("{}", Manifest::from_json(text).unwrap_err());
    assert_eq!(
        error(r#"{"name":"p","source":{"s":{}},"stage":{"x":{"from":["t"],"filter":"true"}}}"#),
        "manifest: at stage.x.from[0]: stage 'x' reads 't', which does not exist; valid here: s"
    );
    assert_eq!(
        error("{\"name\":\n 5"),
        "manifest:2:2: this is not JSON: EOF while parsing an object; check that line"
    );
    assert!(error(r#"{"name":"a","name":"b"}"#).contains("the key 'name' stands twice"));
}

#[test]
fn ways_must_not_multiply() {
    let mut text = alloc::string::String::from("name = 'p'\n[source.a0]\n[source.b0]\n");
    for n in 1..40 {
        let m = n - 1;
        text += &format!("[stage.a{n}]\nfrom = ['a{m}', 'b{m}']\nfilter = 'true'\n");
        text += &format!("[stage.b{n}]\nfrom = ['a{m}', 'b{m}']\nfilter = 'true'\n");
    }
    let error = format!("{}", Manifest::from_toml(&text, "p.toml").unwrap_err());
    assert!(error.contains("more than 4096 ways"), "{error}");
}

#[test]
fn a_later_error_finds_its_place() {
    let error = Manifest::error_at(WHOLE, "fare.toml", &["stage", "euro", "map", "eur"], "r", "h");
    assert_eq!(format!("{error}"), "fare.toml:31:42: r; h");
    let error = Manifest::error_at(WHOLE, "fare.toml", &["stage", "cheap"], "r", "h");
    assert_eq!(format!("{error}"), "fare.toml:25:8: r; h");
}
