//! Per key and source log, events come out in the order in which they entered, and the counter's
//! count of a key grows by one at each.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::rpc::TailEvent;

use super::tail::Numbered;

pub fn check(events: &[TailEvent], again: &BTreeSet<Numbered>) -> Result<(), String> {
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        let payload: serde_json::Value =
            serde_json::from_slice(&event.placed.event.payload).map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(&event.placed.event.key).into_owned();
        let producer = payload["producer"].as_str().unwrap_or_default().to_string();
        let n = payload["n"].as_u64().unwrap_or_default();
        // What may count again may come out of order, too.
        if !again.contains(&(producer.clone(), n))
            && let Some(before) = last.insert((key.clone(), producer.clone()), n)
            && before >= n
        {
            return Err(format!("key {key}: event {n} of {producer} came out behind event {before}"));
        }
        if let Some(count) = payload["count"].as_u64() {
            let before = counts.insert(key.clone(), count).unwrap_or(0);
            if count != before + 1 {
                return Err(format!("key {key}: the count went from {before} to {count}"));
            }
        }
    }
    Ok(())
}
