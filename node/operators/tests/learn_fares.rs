//! Real fares, in one share and in several: `DUNLIN_DATA` names the folder with `fares/fares.csv`
//! (by default `../shared/data` beside the repository). Run with `--nocapture` for the figures.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use dunlin_operators::learn::Learn;
use dunlin_operators::operator::{Operator, State};
use dunlin_protocol::effect::Invoked;
use dunlin_protocol::event::{Event, Placed};
use dunlin_protocol::id::{Epoch, EventId, LogId, Seq, slot_of};
use dunlin_protocol::pipeline::manifest::{F64, Label, LearnSpec};
use dunlin_protocol::time::{Span, Time};

#[derive(Default)]
struct Memory(BTreeMap<Vec<u8>, Bytes>);

impl State for Memory {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
    fn put(&mut self, key: &[u8], value: Bytes) {
        self.0.insert(key.to_vec(), value);
    }
    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
    fn scan(&mut self, prefix: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let from = self.0.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        from.take(limit).map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect()
    }
}

fn fares() -> Option<Vec<Invoked>> {
    let root = std::env::var_os("DUNLIN_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(root.join("fares/fares.csv")).ok()?;
    let id = |index| EventId { log: LogId([1; 16]), epoch: Epoch(1), seq: Seq(1), index };
    let event = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let payload = format!(
            r#"{{"observed_at":"{}","flight":"{}","departure":"{}","price":{}}}"#,
            cells[0], cells[1], cells[2], cells[3]
        );
        let key = Bytes::copy_from_slice(cells[1].as_bytes());
        Event { key, time: Time::parse(cells[0]).unwrap(), headers: Vec::new(), payload: payload.into() }
    };
    let events = text.lines().skip(1).enumerate();
    Some(
        events
            .map(|(i, line)| Invoked { input: 0, placed: Placed { id: id(i as u32), event: event(line) } })
            .collect(),
    )
}

/// (n, sum of errors, sum of the naive line's, auc, events predicted)
fn run(events: &[Invoked]) -> (f64, f64, f64, f64, usize) {
    let mut learn = Learn::new(&LearnSpec {
        label: Label::Later {
            target: "price".into(),
            after: Span::seconds(71 * 3600),
            rises_by: Some(F64(0.05)),
        },
        features: None,
        models: None,
        interval: None,
        seed: 0,
    })
    .unwrap();
    let mut state = Memory::default();
    let (mut running, mut predicted, mut inside) = (serde_json::Value::Null, 0, (0u32, 0u32));
    let mut weights = serde_json::Value::Null;
    for batch in events.chunks(512) {
        let handled = learn.handle(batch, Time(0), &mut state).unwrap();
        assert!(handled.failed.is_empty());
        for out in handled.emitted {
            match out.side {
                None => predicted += 1,
                Some(_) => {
                    let score: serde_json::Value = serde_json::from_slice(&out.event.payload).unwrap();
                    let at = |name: &str| score[name].as_f64().unwrap();
                    inside.0 += u32::from((at("low")..=at("high")).contains(&at("truth")));
                    inside.1 += 1;
                    weights = score["weights"].clone();
                    running = score["running"].clone();
                }
            }
        }
    }
    let bytes: usize = state.0.iter().map(|(key, value)| key.len() + value.len()).sum();
    println!(
        "  {running} inside {:.3} weights {weights} entries {} bytes {bytes}",
        f64::from(inside.0) / f64::from(inside.1),
        state.0.len()
    );
    let get = |name: &str| running[name].as_f64().unwrap_or(0.0);
    (get("n"), get("n") * get("mae"), get("n") * get("mae_last_value"), get("auc"), predicted)
}

#[test]
fn beats_price_stays_in_any_number_of_shares() {
    let Some(events) = fares() else {
        println!("no fares: DUNLIN_DATA names no folder with fares/fares.csv, so nothing was checked");
        return;
    };
    for shares in [1u16, 3, 8] {
        let began = std::time::Instant::now();
        let mut sums = (0.0, 0.0, 0.0, 0.0, 0);
        for share in 0..shares {
            let mine: Vec<Invoked> = events
                .iter()
                .filter(|e| slot_of(&e.placed.event.key) * shares / 1024 == share)
                .cloned()
                .collect();
            let (n, mae, naive, auc, predicted) = run(&mine);
            sums = (sums.0 + n, sums.1 + mae, sums.2 + naive, sums.3 + auc * n, sums.4 + predicted);
        }
        let (n, mae, naive, auc, predicted) = sums;
        println!(
            "{shares} shares: n {n} mae {:.3} mae_last_value {:.3} ratio {:.4} auc {:.4} {:.0} events/s",
            mae / n,
            naive / n,
            mae / naive,
            auc / n,
            events.len() as f64 / began.elapsed().as_secs_f64()
        );
        assert_eq!(predicted, events.len());
        assert!(mae <= 1.0 * naive, "{shares} shares: {mae} against {naive}");
        assert!(auc / n >= if shares == 1 { 0.62 } else { 0.58 });
    }
}
