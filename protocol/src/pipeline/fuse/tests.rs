use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn plan(text: &str) -> Plan {
    Plan::of(&Manifest::from_toml(&format!("name = 'p'\n{text}"), "p.toml").unwrap())
}

/// A line per unit: its name and home, what it reads, its steps, its outputs.
fn draw(plan: &Plan) -> String {
    let feed = |feed: &Feed| match feed {
        Feed::Head => "head".to_string(),
        Feed::Side(n) => format!("side{n}"),
        Feed::Step(n) => format!("{n}"),
    };
    let mut lines = Vec::new();
    for unit in &plan.units {
        let home = match &unit.home {
            Home::Entry(_) => "entry".to_string(),
            Home::WithInput => "with input".to_string(),
            Home::Shares(None) => "shares".to_string(),
            Home::Shares(Some(n)) => format!("{n} shares"),
            Home::Single => "single".to_string(),
        };
        let inputs: Vec<String> = unit
            .inputs
            .iter()
            .map(|i| format!("{:?} {}:{} ({})", i.unit.role, i.unit.name, i.output, i.stream))
            .collect();
        let steps: Vec<String> = unit
            .chain
            .steps
            .iter()
            .map(|step| {
                let does = match &step.operator {
                    StepOperator::Filter(_) => "filter".to_string(),
                    StepOperator::Map(_) => "map".to_string(),
                    StepOperator::Rekey(field) => format!("rekey {field}"),
                };
                format!("{} {does} <{}", step.stage, feed(&step.from))
            })
            .collect();
        let outputs: Vec<String> = unit
            .chain
            .outputs
            .iter()
            .map(|out| match &out.rekeyed {
                None => format!("{} <{}", out.stream, feed(&out.from)),
                Some(field) => format!("{} by {field} <{}", out.stream, feed(&out.from)),
            })
            .collect();
        lines.push(format!(
            "{:?} {} @ {home} | {} | {} | {}",
            unit.id.role,
            unit.id.name,
            inputs.join(", "),
            steps.join(", "),
            outputs.join(", ")
        ));
    }
    lines.join("\n")
}

#[track_caller]
fn check(text: &str, expect: &[&str]) {
    assert_eq!(draw(&plan(text)), expect.join("\n"));
}

#[test]
fn the_fare_watch_pipeline() {
    check(
        r#"
        [source.quotes]
        key = "flight"
        [source.history]
        key = "flight"
        [stage.clean]
        from = ["quotes", "history"]
        wasm = "clean.wasm"
        [stage.cheap]
        from = ["clean"]
        filter = "event.price < 120.0"
        [stage.euro]
        from = ["clean"]
        map = { flight = "event.flight", eur = "event.price * 0.9" }
        [stage.outlook]
        from = ["clean"]
        key = "flight"
        learn = { target = "price", after = "71h", rises_by = 0.05 }
        [sink.archive]
        from = ["cheap", "outlook.scores"]
        file = { path = "out.jsonl" }
        [placement.outlook]
        shares = 8"#,
        &[
            "Source history @ entry |  |  | history <head",
            "Source quotes @ entry |  |  | quotes <head",
            "Stage clean @ with input | Source quotes:0 (quotes), Source history:0 (history) \
             | cheap filter <head, euro map <head, outlook rekey flight <head \
             | clean <head, cheap <0, euro <1, clean by flight <2",
            "Stage outlook @ 8 shares | Stage clean:3 (clean) |  | outlook <head, outlook.scores <side0",
            "Sink archive @ single | Stage clean:1 (cheap), Stage outlook:1 (outlook.scores) |  | ",
        ],
    );
}

#[test]
fn a_key_survives_filters_and_maps_and_is_set_anew_where_it_must() {
    check(
        r#"
        [source.s]
        key = "flight"
        [stage.f]
        from = ["s"]
        filter = "true"
        [stage.m]
        from = ["f"]
        map = { price = "event.price" }
        [stage.n]
        from = ["f"]
        map = { flight = "event.route" }
        [stage.by_flight]
        from = ["s", "m", "n"]
        key = "flight"
        learn = { label = "price" }
        [stage.by_route]
        from = ["s"]
        key = "route"
        wasm = "x.wasm"
        [stage.second_by_route]
        from = ["s"]
        key = "route"
        wasm = "y.wasm""#,
        &[
            "Source s @ entry |  |  | s <head",
            "Behind s @ with input | Source s:0 (s) \
             | f filter <head, m map <0, n map <0, by_flight rekey flight <2, by_route rekey route <head \
             | f <0, m <1, n <2, n by flight <3, s by route <4",
            "Stage by_route @ shares | Behind s:4 (s) |  | by_route <head",
            "Stage by_flight @ shares | Source s:0 (s), Behind s:1 (m), Behind s:3 (n) \
             |  | by_flight <head, by_flight.scores <side0",
            "Stage second_by_route @ shares | Behind s:4 (s) |  | second_by_route <head",
        ],
    );
}

#[test]
fn a_diamond_runs_its_foot_once_per_way() {
    check(
        r#"
        [source.s]
        [stage.l]
        from = ["s"]
        filter = "event.v < 1"
        [stage.r]
        from = ["s"]
        filter = "event.v > 0"
        [stage.x]
        from = ["l", "r"]
        map = { v = "event.v" }
        [sink.out]
        from = ["x"]
        stdout = {}"#,
        &[
            "Source s @ entry |  |  | s <head",
            "Behind s @ with input | Source s:0 (s) \
             | l filter <head, r filter <head, x map <0, x map <1 | l <0, r <1, x <2, x <3",
            "Sink out @ single | Behind s:2 (x), Behind s:3 (x) |  | ",
        ],
    );
}

#[test]
fn one_filter_stands_behind_each_of_its_sources() {
    let text = r#"
        [source.a]
        key = "k"
        [source.b]
        [source.idle]
        [stage.f]
        from = ["a", "b"]
        filter = "true"
        [stage.all]
        from = ["f"]
        key = "k"
        learn = { label = "v" }
        [stage.some]
        from = ["all"]
        filter = "true"
        [stage.again]
        from = ["some", "all.scores"]
        key = "k"
        wasm = "x.wasm"
        [stage.unkeyed]
        from = ["all"]
        learn = { label = "v" }"#;
    check(
        text,
        &[
            "Source a @ entry |  |  | a <head",
            "Behind a @ with input | Source a:0 (a) | f filter <head | f <0",
            "Source b @ entry |  |  | b <head",
            "Behind b @ with input | Source b:0 (b) | f filter <head, all rekey k <0 | f <0, f by k <1",
            "Source idle @ entry |  |  | idle <head",
            "Stage all @ shares | Behind a:0 (f), Behind b:1 (f) | some filter <head \
             | all <head, all.scores <side0, some <0",
            "Stage again @ shares | Stage all:2 (some), Stage all:1 (all.scores) |  | again <head",
            "Stage unkeyed @ single | Stage all:0 (all) |  | unkeyed <head, unkeyed.scores <side0",
        ],
    );
    let plan = plan(text);
    let f = plan.stream(&"f".parse().unwrap());
    assert_eq!(f.len(), 2, "the stream of a filter behind two sources stands in two units");
}

#[test]
fn a_placed_function_has_shares_though_it_has_no_key() {
    check(
        r#"
        [source.s]
        [stage.w]
        from = ["s"]
        wasm = "x.wasm"
        [placement.w]
        spread = true"#,
        &["Source s @ entry |  |  | s <head", "Stage w @ shares | Source s:0 (s) |  | w <head"],
    );
}

/// Pipelines of up to ten stages, each reading some of what stands before it.
fn pipelines() -> impl Strategy<Value = String> {
    let stage = (0..4_u8, prop::collection::btree_set(0..12_usize, 1..3), 0..3_u8);
    prop::collection::vec(stage, 1..10).prop_map(|stages| {
        let mut text = String::from("[source.s0]\nkey = 'k1'\n[source.s1]\n");
        for (index, (kind, from, key)) in stages.iter().enumerate() {
            let from: alloc::collections::BTreeSet<usize> = from.iter().map(|f| f % (index + 2)).collect();
            let from: Vec<String> = from.iter().map(|f| format!("'s{f}'")).collect();
            text.push_str(&format!("[stage.s{}]\nfrom = [{}]\n", index + 2, from.join(",")));
            text.push_str(match kind {
                0 => "filter = 'true'\n",
                1 => "map = { k1 = 'event.k1', k2 = 'event.v' }\n",
                2 => "wasm = 'x.wasm'\n",
                _ => "learn = { label = 'v' }\n",
            });
            if *kind > 1 && *key > 0 {
                text.push_str(&format!("key = 'k{key}'\n"));
            }
        }
        let last = stages.len() + 1;
        text.push_str(&format!("[sink.out]\nfrom = ['s{last}', 's0']\nstdout = {{}}\n"));
        text
    })
}

proptest! {
    #[test]
    fn every_plan_is_wired(text in pipelines()) {
        let plan = plan(&text);
        let manifest = Manifest::from_toml(&format!("name = 'p'\n{text}"), "p.toml").unwrap();
        for (at, unit) in plan.units.iter().enumerate() {
            for input in &unit.inputs {
                let before = plan.units[..at].iter().find(|other| other.id == input.unit);
                let output = &before.expect("units come after what they read").chain.outputs[input.output as usize];
                prop_assert_eq!(&output.stream, &input.stream);
                if let Some(key) = manifest.stages.get(&unit.id.name).and_then(|stage| stage.key.as_ref()) {
                    prop_assert!(output.rekeyed.as_ref().is_none_or(|field| field == key));
                }
            }
            for (index, step) in unit.chain.steps.iter().enumerate() {
                prop_assert!(!matches!(step.from, Feed::Step(from) if from as usize >= index));
            }
            for output in &unit.chain.outputs {
                prop_assert!(!matches!(output.from, Feed::Step(from) if from as usize >= unit.chain.steps.len()));
            }
        }
        // Every stream can be had, and a reader has every place of what it reads.
        for (name, stage) in &manifest.stages {
            prop_assert!(!plan.stream(&main_stream(name)).is_empty());
            let id = UnitId { role: Role::Stage, name: name.clone() };
            if let Some(unit) = plan.unit(&id) {
                let places: usize = stage.from.iter().map(|from| plan.stream(from).len()).sum();
                prop_assert_eq!(unit.inputs.len(), places);
            }
        }
        prop_assert_eq!(&plan, &Plan::of(&manifest));
        prop_assert_eq!(&Manifest::from_json(&manifest.to_json()).unwrap(), &manifest);
    }
}
