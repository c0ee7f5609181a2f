//! P2: what a tap of the last stage sees holds every event exactly once: each (producer, n) that
//! entered, no id twice.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::rpc::TailEvent;

use crate::workload::{Publisher, acknowledged};

pub fn check(events: &[TailEvent], publishers: &[Publisher]) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    let mut seen: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for event in events {
        if !ids.insert(event.placed.id) {
            return Err(format!("the tap saw event {} twice", event.placed.id));
        }
        let payload: serde_json::Value =
            serde_json::from_slice(&event.placed.event.payload).map_err(|error| error.to_string())?;
        let producer = payload["producer"].as_str().unwrap_or_default().to_string();
        *seen.entry((producer, payload["n"].as_u64().unwrap_or_default())).or_default() += 1;
    }
    for ((producer, n), times) in &seen {
        if *times != 1 {
            return Err(format!("event {n} of {producer} came out {times} times"));
        }
    }
    for ((producer, n), _) in acknowledged(publishers) {
        if !seen.contains_key(&(producer.clone(), n)) {
            return Err(format!("event {n} of {producer} was acknowledged and never came out"));
        }
    }
    Ok(())
}
